"""What a run's batches can say: of rows that were in none, nothing; of rows drawn unequally, only where they were."""

import numpy as np

from finfluence.errors import NotSupportedError, explain
from finfluence.runs import Tape


def check_draws(tape: Tape, full: bool) -> None:
    """Raise if *full*, which weighs all rows alike at every step, is asked of a run that drew them unequally.

    Raises
    ------
    NotSupportedError
        Some rows were drawn far more often than others, in all of the run or in a part of it; or always at one place.
    """
    if not full or tape.equal_draws:
        return
    if tape.same_places:
        raise NotSupportedError(
            explain(
                "rows that may come at any step of an epoch, for method 'full'",
                f"the same rows at about the same steps of all {len(tape.epochs)} epochs",
                "the loader does not shuffle, or sorts; 'full' takes every row to be as likely at a step as any other",
                "use method='online', which takes rows where they came, or shuffle",
            )
        )
    counts = tape.times_drawn()
    raise NotSupportedError(
        explain(
            "rows that are drawn equally often, for method 'full'",
            f"rows drawn from {counts.min()} to {counts.max()} times in {counts.sum()} draws",
            "the loop draws with weights (WeightedRandomSampler), from a list that holds some rows oftener, or other "
            "rows early than late; 'full' takes every row to be drawn as often as any other, at every step",
            "use method='online', which counts each draw",
        )
    )


def drawn(tape: Tape, where: list[np.ndarray], horizon: np.ndarray) -> np.ndarray:
    """Return how many rows of each subset were in a batch of the last `horizon` [Q] epochs [S, Q]."""
    epochs = len(tape.epochs)
    by_horizon = {int(h): tape.times_drawn(range(epochs - int(h), epochs)) > 0 for h in np.unique(horizon)}
    columns = [[int(by_horizon[int(h)][rows].sum()) for rows in where] for h in horizon]
    return np.array(columns, dtype=np.int64).reshape(len(horizon), len(where)).T


def draw_findings(where: list[np.ndarray], counts: np.ndarray) -> list[str]:
    """Say of how many subsets the run tells nothing, or not all; `counts` as `drawn` returns them."""
    sizes = np.array([len(rows) for rows in where])[:, None]
    never = int(((counts == 0) & (sizes > 0)).any(1).sum())
    partly = int(((counts > 0) & (counts < sizes)).any(1).sum())
    lines = []
    if never:
        lines.append(
            f"{never} of {len(where)} subsets were in no batch of the epochs that were followed back: nothing is known "
            "of their μ (NaN), and an effect of 0 counts in means over runs only; drop_last=False, more epochs or "
            "several runs would use their rows"
        )
    if partly:
        lines.append(
            f"of {partly} subsets some rows were in no batch of the epochs that were followed back: their part is left "
            "out"
        )
    return lines
