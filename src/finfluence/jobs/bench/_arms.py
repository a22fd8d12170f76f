"""Trainings on chosen rows, each compared with one on the rows as they were, under the same seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from finfluence._progress import Progress
from finfluence.ensemble import ModelBank, RunSpec
from finfluence.jobs.bench._retrained import MASTER
from finfluence.runs import AnyQuery

RANDOM = "(rows at random)"


@dataclass(frozen=True, eq=False)
class Arm:
    """Rows to train on, by the word of one method.

    Attributes
    ----------
    method, share, seed
        Whose word, on how many rows, from which training.
    keep
        Positions of the rows that are trained on, ascending.
    query
        Which query it is judged by, a place in the list.
    """

    method: str
    share: float
    seed: int
    keep: np.ndarray
    query: int = 0


def train_arms(
    bank: ModelBank,
    judged: Sequence[AnyQuery],
    base: np.ndarray | None,
    arms: Sequence[Arm],
    runs: int,
    progress: Progress,
) -> pd.DataFrame:
    """Return the query of each arm after each of `runs` trainings, and its change from the base with the same seeds.

    Parameters
    ----------
    base : array, optional
        Positions of the rows that are trained on for comparison; all unless given.

    Returns
    -------
    DataFrame
        `method`, `share`, `seed`, `query`, `run`, `loss` and `change`.
    """
    seeds = [MASTER + k for k in range(runs)]
    specs = [RunSpec(s, s, base, paired=base is not None) for s in seeds]
    specs += [RunSpec(s, s, arm.keep, paired=True) for arm in arms for s in seeds]
    values = bank.values(specs, judged, progress).reshape(-1, runs, sum(len(q.names) for q in judged))
    lines = [
        {"method": arm.method, "share": arm.share, "seed": arm.seed, "query": arm.query, "run": k, "loss": loss,
         "change": loss - values[0, k, arm.query]}
        for arm, found in zip(arms, values[1:], strict=True) for k, loss in enumerate(found[:, arm.query].tolist())
    ]  # fmt: skip
    return pd.DataFrame(lines)


def mean_change(found: pd.DataFrame, method: str, share: float) -> float:
    """Return the mean change of a method at a share."""
    return float(found[(found["method"] == method) & (found["share"] == share)]["change"].mean())


def change_row(method: str, found: pd.DataFrame, shares: Sequence[float], remark: str) -> list[str]:
    """Return the line of a method: mean changes with 95 % intervals over rankings and trainings, and the remark."""
    mine = found[found["method"] == method]
    if mine.empty:
        return [method, *("" for _ in shares), remark]
    cells = []
    for share in shares:
        change = mine[mine["share"] == share]["change"]
        reach = float(student.ppf(0.975, len(change) - 1)) * change.std(ddof=1) / np.sqrt(len(change))
        cells.append(f"{change.mean():+.3f} [{change.mean() - reach:+.3f}, {change.mean() + reach:+.3f}]")
    return [method, *cells, remark]
