"""Sequential stopping: runs are added, one interim analysis after another, until standard errors are small enough."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finfluence.errors import ConfigError, explain
from finfluence.estimators.retrain._estimates import Estimates

Plan = np.ndarray
FIRST_ANALYSIS = 32
_STEP = 16
_MOST_GROWTH = 4.0
# Aimed a little beyond the bound, so that an analysis is seldom followed by one for a handful of runs.
_MARGIN = 1.05


@dataclass(frozen=True)
class Precision:
    """The demand that the standard error of `of` be below `bound` for every subset and query."""

    of: Literal["mu", "effect"]
    bound: float

    def __str__(self) -> str:
        return f"se({self.of}) < {self.bound:g}"

    def ratio(self, found: Estimates) -> np.ndarray:
        """Return (standard error / bound)²: how many times the runs are needed.

        Returns
        -------
        array [S, Q]
            0 where there is no spread; infinite where the standard error is not finite yet.
        """
        se = found.se if self.of == "mu" else found.effect_se
        times = np.where(np.isfinite(se), se / self.bound, np.inf) ** 2
        return np.where(found.spread > 0, times, 0.0)


@dataclass(frozen=True)
class StandardError:
    """The standard error of an estimate; compared with a number it becomes a stopping rule."""

    of: Literal["mu", "effect"]

    def __lt__(self, bound: float) -> Precision:
        if not isinstance(bound, (int, float, np.number)) or not 0 < bound < np.inf:
            raise ConfigError(
                explain(
                    f"se({self.of!r}) to be compared with a positive number",
                    repr(bound),
                    "no number of runs brings an error to zero",
                    "pass for instance until=se('mu') < 0.1",
                )
            )
        return Precision(self.of, float(bound))


def se(of: Literal["mu", "effect"] = "mu") -> StandardError:
    """Name the standard error of an estimate, to be compared: `until=se("mu") < 0.1`.

    Parameters
    ----------
    of : {"mu", "effect"}
        "mu" has no unit; "effect" is in the query's unit.

    Returns
    -------
    StandardError
        `se(…) < bound` is a Precision.

    Raises
    ------
    ConfigError
        Another word, or a bound that is no positive number.

    Examples
    --------
    >>> str(se("mu") < 0.1)
    'se(mu) < 0.1'
    """
    if of not in ("mu", "effect"):
        raise ConfigError(
            explain("se('mu') or se('effect')", f"se({of!r})", "a mistyped word", "use one of the two")
        )
    return StandardError(of)


def check_until(until: Precision | None) -> None:
    """Raise ConfigError if `until` is not what comparing `se(…)` gives."""
    if until is not None and not isinstance(until, Precision):
        raise ConfigError(
            explain(
                "until to be None or a comparison such as se('mu') < 0.1",
                repr(until),
                "the number alone was passed, or se(…) without a bound",
                "pass until=se('mu') < 0.1 (from finfluence import se)",
            )
        )


def least_runs(until: Precision, design: str, n_subsets: int) -> int:
    """Return how many runs a precision takes even with equal spreads and no influence.

    se(μ)² ≥ 1/K + 1/K_S: at best (1 + √S)² / bound² runs for "leave-out", 4 / bound² for "half-subsets".

    Returns
    -------
    int
        0 for a difference of pairs and for an effect: what they need is only known from runs.
    """
    return int(np.ceil(_unit_error(until, design, n_subsets) / until.bound**2))


def check_reachable(until: Precision | None, design: str, n_subsets: int, max_runs: int) -> None:
    """Raise ConfigError if `least_runs` are more than allowed."""
    if until is None or (needed := least_runs(until, design, n_subsets)) <= max_runs:
        return
    reachable = np.ceil((_unit_error(until, design, n_subsets) / max_runs) ** 0.5 * 1000) / 1000
    raise ConfigError(
        explain(
            f"max_runs to have room for {until}: at least {needed} runs for {n_subsets} subsets",
            f"max_runs={max_runs}",
            "the standard error of μ falls with the square root of the number of runs",
            f"pass max_runs={needed * 5 // 4}, or until=se('mu') < {1.1 * reachable:.3g}, or fewer subsets",
        )
    )


def _unit_error(until: Precision, design: str, n_subsets: int) -> float:
    """Return the least se(μ)² of one run in all, to be divided by the number of runs."""
    if until.of != "mu" or design == "paired":
        return 0.0
    return 4.0 if design == "half-subsets" else (1 + n_subsets**0.5) ** 2


@dataclass(frozen=True, eq=False)
class SequentialStopping:
    """What a design says about its plan, an array of run counts.

    Attributes
    ----------
    measure : callable
        plan -> Estimates.
    grow : callable
        (estimates, ratio [S, Q], plan) -> a larger plan, the cheapest that the estimates say will do.
    cost : callable
        plan -> number of trainings.
    """

    measure: Callable[[Plan], Estimates]
    grow: Callable[[Estimates, np.ndarray, Plan], Plan]
    cost: Callable[[Plan], int]

    def until(self, plan: Plan, until: Precision | None, max_runs: int) -> tuple[Estimates, Plan, int]:
        """Analyse, and add runs until the precision is reached or no more fit.

        Every analysis uses runs 0 … n−1 of each arm and decides from their values alone: the same numbers result
        whether runs were trained now or found, and however often it was interrupted.

        Returns
        -------
        tuple
            Estimates, plan, and the number of analyses.
        """
        found, analyses = self.measure(plan), 1
        while until is not None and (ratio := until.ratio(found)).max(initial=0) >= 1:
            wider = self._fitting(plan, self.grow(found, ratio, plan), max_runs)
            if (wider == plan).all():
                break
            found, plan, analyses = self.measure(wider), wider, analyses + 1
        return found, plan, analyses

    def _fitting(self, plan: Plan, wider: Plan, max_runs: int) -> Plan:
        """Return the largest step from `plan` towards `wider` that costs at most `max_runs`."""
        for share in np.linspace(1, 0, 129):
            step = plan + np.floor(share * (wider - plan)).astype(np.int64)
            if self.cost(step) <= max_runs:
                return step
        return plan


def grow_arms(found: Estimates, ratio: np.ndarray, plan: Plan) -> Plan:
    """Return the cheapest counts of the common arm and each subset's [1 + S] that bring every ratio below 1.

    With se² = A/K + B/K_S (A: the part of the error that comes from the common arm), minimise K + Σ K_S subject to
    A/K + B/K_S ≤ bound² for every pair, K by a search on a grid; arms without a pair in need stay as they are.

    A and B are taken as equal. Splitting se² by the two samples' variances would lengthen the arm that happened to
    vary more so far; for skewed distributions that arm's mean is off in the same direction, and coverage fell by four
    points.

    Returns
    -------
    array [1 + S]
    """
    ratio = _capped(ratio)
    share = (1 / plan[0]) / (1 / plan[0] + 1 / plan[1:, None])
    need = np.where(ratio >= 1, ratio * _MARGIN, 0.0)
    common, own = need * share * plan[0], need * (1 - share) * plan[1:, None]
    least = max(plan[0], common.max() * 1.001)
    best = plan
    for count in np.geomspace(least, least * 4 * (1 + len(plan)) ** 0.5, 32):
        trial = _raised(plan, np.array([count, *(own / (1 - common / count)).max(1)]))
        if best is plan or trial.sum() < best.sum():
            best = trial
    return np.minimum(best, _raised(plan, plan * _MOST_GROWTH))


def grow_pairs(found: Estimates, ratio: np.ndarray, plan: Plan) -> Plan:
    """Return larger counts [1 + S] for pairs: the first arm serves all, so it is as long as the longest."""
    need = _capped(ratio).max(1) * _MARGIN
    arms = _raised(plan[1:], np.where(need >= _MARGIN, need * plan[1:], 0.0))
    return np.array([max(plan[0], arms.max()), *arms])


def grow_halves(found: Estimates, ratio: np.ndarray, plan: Plan) -> Plan:
    """Return the larger number [1] of random halves."""
    return _raised(plan, plan * _capped(ratio).max() * _MARGIN)


def pairs_cost(plan: Plan) -> int:
    """Trainings of paired arms."""
    return int(max(plan[0], plan[1:].max()) + plan[1:].sum())


def unreached(
    until: Precision | None,
    found: Estimates,
    subsets: np.ndarray,
    queries: list[str],
    cost: int,
    max_runs: int,
) -> tuple[list[list[str]], list[str]]:
    """Return the (subset, query) pairs that miss the precision, worst first, and the finding that tells of them."""
    if until is None:
        return [], []
    ratio = until.ratio(found)
    worst = [divmod(int(place), ratio.shape[1]) for place in np.argsort(-ratio, axis=None, kind="stable")]
    missed = [(s, q) for s, q in worst if ratio[s, q] >= 1]
    if not missed:
        return [], []
    s, q = missed[0]
    at = (found.se if until.of == "mu" else found.effect_se)[s, q]
    needed = (
        f"about {int(np.ceil(cost * ratio[s, q]))}" if np.isfinite(ratio[s, q]) else "an unknown number of"
    )
    told = (
        f"{len(missed)} of {ratio.size} pairs of subset and query did not reach {until} within max_runs={max_runs} "
        f"(worst: {at:.3g}, '{subsets[s]}' on {queries[q]}); {needed} runs in all would do"
    )
    return [[str(subsets[s]), queries[q]] for s, q in missed], [told]


def _capped(ratio: np.ndarray) -> np.ndarray:
    return np.minimum(ratio, _MOST_GROWTH)


def _raised(plan: Plan, wanted: np.ndarray) -> Plan:
    """Return `wanted` rounded up to whole steps where it is more than `plan`."""
    return np.where(wanted > plan, np.ceil(wanted / _STEP) * _STEP, plan).astype(np.int64)
