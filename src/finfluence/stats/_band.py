"""Confidence bands for the trade-off curve of two samples."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, explain
from finfluence.stats._certificates import clopper_pearson
from finfluence.stats._checks import check_level, one_pair
from finfluence.stats._intervals import Interval
from finfluence.stats._local_level import local_error
from finfluence.tradeoff import PiecewiseLinear, hull

BandKind = Literal["simultaneous", "dkw", "pointwise"]

_LARGEST = 5000


@dataclass(frozen=True, eq=False)
class CurveBand:
    """A trade-off curve estimated from two samples, between two bounds.

    Attributes
    ----------
    alpha
        False-alarm rates, increasing from 0 to 1.
    lower, estimate, upper
        Miss rates at `alpha` of the tests "reject values above a threshold", with their sign: above
        1 - alpha where large values speak *for* the rows.
    best_upper
        Upper bound of the curve T(P, Q) of the best tests, from thresholds on either side, as a value that
        composes. No two samples can bound T(P, Q) from below: laws that look alike at n points may not
        overlap at all.
    total_variation
        Largest difference in probability of one value range between the laws. Its lower bound is certified;
        its estimate is the largest gap of the two empirical laws, inflated by about sqrt(1.2/n) without any
        influence; its upper bound is that of threshold tests alone.
    level
        Chance that the bounds hold: everywhere at once, or (kind "pointwise") at one alpha.
    kind
        "simultaneous", "dkw" or "pointwise".
    """

    alpha: np.ndarray
    lower: np.ndarray
    estimate: np.ndarray
    upper: np.ndarray
    best_upper: PiecewiseLinear
    total_variation: Interval
    level: float
    kind: str


def curve_band(
    with_rows: ArrayLike,
    without_rows: ArrayLike,
    *,
    level: float = 0.95,
    kind: BandKind = "simultaneous",
    alpha: ArrayLike | None = None,
) -> CurveBand:
    r"""Return the empirical trade-off curve of threshold tests with its confidence band.

    .. math:: f(\alpha) = F_Q(F_P^{-1}(1-\alpha)), \quad
              F_P(\tau) \in [L_P(\tau), U_P(\tau)],\ F_Q(\tau) \in [L_Q(\tau), U_Q(\tau)]\ \forall\tau

    Parameters
    ----------
    with_rows, without_rows
        One-dimensional samples of at least two independent values.
    level
        Chance that the band holds; each arm holds at its square root.
    kind
        "simultaneous": Clopper-Pearson bounds of every count, at the pointwise level under which all hold at
        once (exact; narrow in the tails); "dkw": the two empirical laws give or take a constant; "pointwise":
        Clopper-Pearson bounds at one alpha, still valid where alpha was fixed beforehand.
    alpha
        False-alarm rates to evaluate at; default: 0 to 1 in steps of 1/200, and finer at the ends.

    Returns
    -------
    CurveBand

    Raises
    ------
    DataError
        NaN, or fewer than two values.
    ConfigError
        Unknown kind, level or alpha outside range; more than 5,000 values for "simultaneous".

    Notes
    -----
    Holds for any two laws, ties included, at any n, and is careful: where both samples matter alike the band
    covers nearly always, for both arms would have to fail at one threshold. `best_upper` composes: the
    composition of upper bounds of independent steps is an upper bound of the composition, with the chance
    that all of them hold.

    References
    ----------
    Massart (1990); Owen (1995); Campbell, "Advances in statistical methodology for ROC" (1994).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> band = curve_band(rng.normal(size=200), rng.normal(size=200) + 1)
    >>> at = np.searchsorted(band.alpha, 0.2)
    >>> bool(band.lower[at] < 0.437 < band.upper[at])          # G_1(0.2) = 0.4367
    True
    >>> print(band.total_variation)                            # 2 Phi(1/2) - 1 = 0.3829
    0.34 [0.1281, 0.5515] (95% simultaneous)
    """
    check_level(level)
    if kind not in get_args(BandKind):
        raise ConfigError(
            explain(
                f"kind to be one of {', '.join(get_args(BandKind))}",
                f"{kind!r}",
                "a misspelt option",
                'use kind="simultaneous" for a band that holds everywhere at once',
            )
        )
    x, y = (np.sort(s) for s in one_pair(with_rows, without_rows, least=2))
    at = _levels(alpha)
    arm = math.sqrt(level)
    low_p, high_p = arm_bounds(x.size, 1.0 - arm, kind)
    low_q, high_q = arm_bounds(y.size, 1.0 - arm, kind)
    # all thresholds at which a count changes, and one below all values
    tau = np.concatenate([[-np.inf], np.unique(np.concatenate([x, y]))])
    below_x, below_y = np.searchsorted(x, tau, side="right"), np.searchsorted(y, tau, side="right")
    upper = _step_down(1.0 - low_p[below_x], high_q[below_y], at)
    lower = low_q[_misses_left_of(x, y, high_p, at)]
    estimate = np.interp(at, 1.0 - below_x[::-1] / x.size, below_y[::-1] / y.size)
    _fix_vertical(estimate, at, below_x / x.size, below_y / y.size)
    best = _best(low_p[below_x], high_p[below_x], low_q[below_y], high_q[below_y])
    gap = max(
        float((low_p[below_x] - high_q[below_y]).max()), float((low_q[below_y] - high_p[below_x]).max()), 0.0
    )
    widest = float(np.maximum(high_p[below_x] - low_q[below_y], high_q[below_y] - low_p[below_x]).max())
    seen = float(np.abs(below_x / x.size - below_y / y.size).max())
    distance = Interval(seen, gap, min(widest, 1.0), level, kind)
    return CurveBand(at, lower, estimate, upper, best, distance, level, kind)


def arm_bounds(n: int, error: float, kind: BandKind) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of F where 0 to n of n values lie below, wrong somewhere with at most the chance `error`."""
    count = np.arange(n + 1)
    if kind == "dkw":
        reach = math.sqrt(math.log(2.0 / error) / (2.0 * n))
        return np.clip(count / n - reach, 0.0, 1.0), np.clip(count / n + reach, 0.0, 1.0)
    if kind == "pointwise":
        return clopper_pearson(count, n, error / 2.0)
    if n > _LARGEST:
        raise ConfigError(
            explain(
                f'at most {_LARGEST:,} values per sample for kind="simultaneous"',
                f"{n:,}",
                "its exact level takes time that grows with the square of the sample",
                'use kind="dkw", which is as narrow in the middle at this size',
            )
        )
    return clopper_pearson(count, n, local_error(n, error) / 2.0)


def _levels(alpha: ArrayLike | None) -> np.ndarray:
    if alpha is None:
        ends = np.array([0.001, 0.002, 0.003])
        return np.unique(np.concatenate([np.linspace(0.0, 1.0, 201), ends, 1.0 - ends]))
    at = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
    if at.ndim != 1 or not np.all((at >= 0.0) & (at <= 1.0)) or np.any(np.diff(at) < 0.0):
        raise ConfigError(
            explain(
                "alpha between 0 and 1, increasing",
                f"{alpha!r}",
                "rates given in percent, or NaN",
                "leave alpha out for the default levels",
            )
        )
    return at


def _step_down(alpha: np.ndarray, beta: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the least beta among points whose alpha is at most `at`; 1 where there is none."""
    order = np.argsort(alpha, kind="stable")
    least = np.concatenate([[1.0], np.minimum.accumulate(beta[order])])
    return least[np.searchsorted(alpha[order], at, side="right")]


def _misses_left_of(x: np.ndarray, y: np.ndarray, high_p: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Count y strictly below the first threshold at which F_P may have reached 1 - alpha."""
    needed = np.searchsorted(high_p, 1.0 - at, side="left")  # least count of x whose upper bound reaches it
    first = np.concatenate([[-np.inf], x])[np.minimum(needed, x.size)]
    return np.searchsorted(y, first, side="left")


def _fix_vertical(estimate: np.ndarray, at: np.ndarray, f_p: np.ndarray, f_q: np.ndarray) -> None:
    """At a corner where the curve drops straight down, take the lower end: the least miss rate."""
    corner, index = np.unique(1.0 - f_p[::-1], return_index=True)
    least = np.minimum.reduceat(f_q[::-1], index)
    where = np.searchsorted(corner, at)
    hit = (where < corner.size) & (corner[np.minimum(where, corner.size - 1)] == at)
    estimate[hit] = least[where[hit]]


def _best(low_p: np.ndarray, high_p: np.ndarray, low_q: np.ndarray, high_q: np.ndarray) -> PiecewiseLinear:
    """Return the convex bound of the best test from tests that reject above, or below, any threshold."""
    alpha, beta = np.concatenate([1.0 - low_p, high_p]), np.concatenate([high_q, 1.0 - low_q])
    return hull(alpha, beta, "upper")
