"""The dial of a scan: from training runs to spend to how many runs, and how closely each is replayed."""

import math
from collections.abc import Mapping
from typing import Any

from finfluence.errors import ConfigError, explain

RUNS, RUN_COST = 4, 4


def runs_for(runs: int | None, budget: float | None) -> int:
    """Return how many trainings to replay: as asked, by the budget at `RUN_COST` each, or `RUNS`.

    Returns
    -------
    int

    Examples
    --------
    >>> runs_for(None, None), runs_for(None, 10.0), runs_for(3, 10.0), runs_for(None, 2.5)
    (4, 2, 3, 1)
    """
    if runs is not None:
        return runs
    return RUNS if budget is None else max(1, int(budget // RUN_COST))


def check_scan_budget(budget: float, runs: int | None) -> None:
    """Refuse what is no number of training runs, or does not pay for the trainings themselves.

    Raises
    ------
    ConfigError
        It is not a finite number, or not above the number of runs.
    """
    number = isinstance(budget, (int, float)) and not isinstance(budget, bool) and math.isfinite(budget)
    if not number or budget <= 0:
        raise ConfigError(
            explain(
                "--budget to be a number of training runs above 1, such as 16",
                repr(budget),
                "a time, a percentage or a sign slipped in (only finfluence verify takes a time)",
                f"pass about {RUN_COST} for each run: its training and its replay",
            )
        )
    least = 1 if runs is None else runs
    if budget <= least:
        raise ConfigError(
            explain(
                f"--budget above {least:g}, what {'a training' if least == 1 else f'the {least} trainings'} alone cost",
                f"{budget:g}",
                "--budget pays for every run's training and for its replay, which costs two to three trainings more",
                f"raise --budget to about {RUN_COST * least}" + (", or lower --runs" if least > 1 else ""),
            )
        )


def planned(budget: float, runs: int) -> str:
    """Say how a budget is divided, before anything is measured.

    Returns
    -------
    str

    Examples
    --------
    >>> planned(10.0, 2)
    'A budget of 10 training runs: 2 runs, each one training and a replay of at most 4.'
    """
    each = budget / runs - 1
    made = f"{runs} runs, each" if runs > 1 else "1 run,"
    return f"A budget of {budget:g} training runs: {made} one training and a replay of at most {each:.3g}."


def spent(budget: float, runs: int, settings: Mapping[str, Any], epochs: int) -> str:
    """Say what the first run's measurements made of a budget; all runs are replayed alike."""
    total = runs * (1 + settings["expected"])
    queries = settings["queries_together"]
    what = (
        f"Replayed: {settings['method']} rows, at most {settings['horizon']} of {epochs} epochs back, probe rows "
        f"{settings['probe_share']:g}, {queries} quer{'y' if queries == 1 else 'ies'} together, {settings['states']}"
    )
    over = (
        f" That is more than the budget: nothing less can be replayed in {runs} runs."
        if total > budget
        else ""
    )
    return (
        f"{planned(budget, runs)} {what}. Expected cost: {total:.3g} training runs, and beside them "
        f"{settings['tracing']:.2g} s a run to trace the model.{over}"
    )
