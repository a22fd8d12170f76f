"""What retrain refuses, and what it remarks about the runs it was given."""

import numpy as np

from finfluence.errors import ConfigError, DataError, TrainingError, explain
from finfluence.estimators.retrain._estimates import Estimates
from finfluence.runs.describe import Subsets


def check_budget(total: int, max_runs: int, n_subsets: int, design: str) -> None:
    """Raise ConfigError if more runs are asked for than allowed."""
    if total > max_runs:
        raise ConfigError(
            explain(
                f"at most {max_runs} runs (max_runs)",
                f"{total} runs for {n_subsets} subsets",
                "every row alone was asked for" if design == "leave-out" else "a mistyped number",
                "name fewer subsets or runs, use design='half-subsets' (subsets cost nothing there), or pass "
                f"max_runs={total}",
            )
        )


def check_disjoint(subsets: Subsets) -> None:
    """Raise DataError if two subsets share a row."""
    rows, counts = np.unique(np.concatenate(subsets.positions), return_counts=True)
    if (counts > 1).any():
        raise DataError(
            explain(
                "subsets that do not overlap for design='half-subsets'",
                f"{int((counts > 1).sum())} rows in more than one, first position {int(rows[counts > 1][0])}",
                "groups were built by several columns at once",
                "pass one grouping per call, or use design='leave-out'",
            )
        )


def finite_runs(values: np.ndarray, names: list[str], lr: float, arm: str) -> np.ndarray:
    """Return the runs of one arm whose values are all finite.

    Returns
    -------
    array [K, Q]

    Raises
    ------
    TrainingError
        Fewer than two are.
    """
    good = np.isfinite(values).all(1)
    if good.sum() >= 2:
        return values[good]
    bad = [n for n, column in zip(names, np.isfinite(values).T, strict=True) if not column.all()]
    raise TrainingError(
        explain(
            f"at least two finished runs on {arm}"
            if arm == "all rows"
            else f"at least two finished runs {arm}",
            f"{int(good.sum())} of {len(values)}; not finite: {', '.join(bad[:3])}",
            f"the learning rate ({lr:g}) is too high, or a query takes the logarithm of zero",
            "lower the learning rate tenfold, or bound the query",
        )
    )


def diverged_finding(dropped: dict[str, int], total: int) -> list[str]:
    """Return the finding that tells of runs left out: `dropped` of each arm."""
    if not dropped:
        return []
    worst = max(dropped, key=lambda name: dropped[name])
    return [
        f"{sum(dropped.values())} of {total} runs diverged and are left out "
        f"(most: {dropped[worst]}, {worst}); the estimates describe the runs that did not"
    ]


def constant_finding(found: Estimates, names: list[str]) -> list[str]:
    """Return the finding that names queries without spread.

    Returns
    -------
    list of str
        Empty where every query has some.

    Raises
    ------
    DataError
        No query has any.
    """
    still = found.spread == 0
    if still.all():
        raise DataError(
            explain(
                "queries that differ between runs",
                f"the same value in every run of {', '.join(names[:3])}",
                "nothing random is left (one batch holds all rows, and the initialisation is fixed), or the "
                "query counts something that never changes",
                "vary what your training varies (model=callable(seed)), or ask for a loss instead of a count",
            )
        )
    constant = [name for name, column in zip(names, still.T, strict=True) if column.any()]
    if not constant:
        return []
    return [f"no spread between runs, so no μ, for some subsets of: {', '.join(constant[:5])}"]
