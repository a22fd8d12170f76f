"""Curves of given laws: two samples, two discrete laws, two distributions, a privacy profile."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import expit

from finfluence.errors import ConfigError, DataError, explain
from finfluence.tradeoff._base import Bound, as_level
from finfluence.tradeoff._masses import lower_hull
from finfluence.tradeoff._piecewise import PiecewiseLinear, hull

Tail = Literal["upper", "lower", "two-sided"]


def from_samples(with_rows: ArrayLike, without_rows: ArrayLike, tail: Tail = "two-sided") -> PiecewiseLinear:
    r"""Return the plug-in curve of tests that compare one value with a threshold.

    .. math:: \alpha_\tau = \hat P(X > \tau), \qquad \beta_\tau = \hat Q(X \le \tau)

    Parameters
    ----------
    with_rows, without_rows : ArrayLike
        Independent values of the statistic with the rows (P) and without them (Q).
    tail : {"upper", "lower", "two-sided"}
        Reject large values, small values, or allow both kinds of test.

    Returns
    -------
    PiecewiseLinear
        Convexified; `bound` is "estimate".

    Raises
    ------
    DataError
        If a sample is empty or holds NaN or infinite values.
    ConfigError
        If `tail` is none of the three.

    Notes
    -----
    The best of many noisy tests looks better than it is: under equal laws the curve lies below 1 -
    alpha, the more so the smaller the samples. It bounds nothing without a band.

    Examples
    --------
    >>> f = from_samples([0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0])
    >>> f(0.0), f(0.5), f.bound
    (0.5, 0.0, 'estimate')
    """
    x, y = _sample(with_rows, "with_rows"), _sample(without_rows, "without_rows")
    tau = np.union1d(x, y)
    alpha = 1.0 - np.searchsorted(x, tau, side="right") / x.size
    beta = np.searchsorted(y, tau, side="right") / y.size
    both = {
        "upper": (alpha, beta),
        "lower": (1.0 - alpha, 1.0 - beta),
        "two-sided": (np.concatenate((alpha, 1.0 - alpha)), np.concatenate((beta, 1.0 - beta))),
    }
    if tail not in both:
        raise ConfigError(
            explain(
                'tail "upper", "lower" or "two-sided"',
                repr(tail),
                "a misspelt tail",
                'use "two-sided" unless the direction was fixed before looking at the data',
            )
        )
    return hull(*both[tail])


def from_discrete(p: ArrayLike, q: ArrayLike) -> PiecewiseLinear:
    r"""Return T(P, Q) of two laws on the same finite set: points enter the test by falling q/p.

    Parameters
    ----------
    p, q : ArrayLike
        Probabilities of the same points under P and Q.

    Returns
    -------
    PiecewiseLinear
        Exact.

    Raises
    ------
    DataError
        If the two are not laws on the same points.

    Examples
    --------
    >>> from_discrete([0.5, 0.5, 0.0], [0.25, 0.25, 0.5]).total_variation
    0.5
    """
    a, b = np.asarray(p, dtype=np.float64).ravel(), np.asarray(q, dtype=np.float64).ravel()
    sums = [float(law.sum()) for law in (a, b)]
    if a.shape != b.shape or not all(np.all(law >= 0.0) and abs(law.sum() - 1.0) < 1e-9 for law in (a, b)):
        raise DataError(
            explain(
                "two lists of probabilities of the same points, each summing to 1",
                f"{a.size} values summing to {sums[0]:g} and {b.size} summing to {sums[1]:g}",
                "counts instead of probabilities, or points that only one list names",
                "divide by the totals; give points that a law lacks the probability 0",
            )
        )
    return PiecewiseLinear.from_masses(a, b)


def from_distributions(p: Any, q: Any, bound: Bound = "estimate", cells: int = 4096) -> PiecewiseLinear:
    r"""Return T(P, Q) of two continuous distributions on the line, frozen ones of `scipy.stats` or alike.

    Parameters
    ----------
    p, q : scipy.stats frozen distributions
        Anything with `logpdf`, `cdf`, `sf`, `ppf` and `isf`.
    bound : {"lower", "estimate", "upper"}
        "upper" joins the points of each cell into one (a coarser statistic, so a rigorous bound); "lower" moves
        the mass of each cell to the least and the largest log ratio in it; "estimate" has the corners of the
        upper curve.
    cells : int
        About how many cells; the gap between lower and upper is the numerical error and falls with the
        square.

    Returns
    -------
    PiecewiseLinear
        With the `bound` asked for.

    Raises
    ------
    ConfigError
        If `bound` is none of the three.

    Notes
    -----
    Cells end at quantiles of both laws and at the stationary points of the log ratio, found by
    minimisation between cells. The lower bound is rigorous if no two of those fall into one cell.

    Examples
    --------
    >>> from scipy.stats import norm
    >>> low, up = (from_distributions(norm(), norm(0.3, 1.2), bound) for bound in ("lower", "upper"))
    >>> round(up(0.05), 4), bool(0 < up(0.05) - low(0.05) < 1e-5)
    (0.8682, True)
    """
    if bound not in ("lower", "estimate", "upper"):
        raise ConfigError(
            explain(
                "bound one of lower, estimate, upper",
                repr(bound),
                "densities are integrated over cells, never exactly",
                'ask for bound="lower" and bound="upper" and compare',
            )
        )
    x = _cuts(p, q, cells)
    mass_p, mass_q = _between(p, x), _between(q, x)
    if bound != "lower":
        return PiecewiseLinear.from_masses(mass_p / mass_p.sum(), mass_q / mass_q.sum(), bound)
    at = _log_ratio(p, q, x)
    low, high = np.fmin(at[:-1], at[1:]), np.fmax(at[:-1], at[1:])
    inner_p, inner_q = mass_p[1:-1], mass_q[1:-1]
    finite = np.isfinite(low) & np.isfinite(high)
    floor, ceiling = np.exp(np.where(finite, low, 0.0)), np.exp(np.where(finite, high, 0.0))
    with np.errstate(invalid="ignore"):
        wide = finite & (high - low > 1e-12)
    up = np.where(wide, (inner_q - floor * inner_p) / np.where(wide, ceiling - floor, 1.0), 0.0)
    up = np.clip(up, 0.0, inner_p)
    down = np.where(finite, inner_p - up, 0.0)
    at_p = np.concatenate(
        (up, down, [mass_p[0], mass_p[-1]], np.where(finite, 0.0, inner_p), np.zeros(2 + up.size))
    )
    at_q = np.concatenate(
        (
            up * ceiling,
            np.where(wide, down * floor, np.where(finite, inner_q, 0.0)),
            np.zeros(2 + up.size),
            [mass_q[0], mass_q[-1]],
            np.where(finite, 0.0, inner_q),
        )
    )
    return PiecewiseLinear.from_masses(at_p / at_p.sum(), at_q / at_q.sum(), "lower")


def from_profile(epsilon: ArrayLike, delta: ArrayLike, symmetric: bool = False) -> PiecewiseLinear:
    r"""Return the lowest curve that points of a privacy profile allow.

    .. math:: f(\alpha) = \max\{0,\ \max_i 1 - \delta_i - e^{\varepsilon_i}\alpha\}

    Parameters
    ----------
    epsilon, delta : ArrayLike
        Points with :math:`\sup_A Q(A) - e^{\varepsilon_i} P(A) \le \delta_i`; epsilon may be negative, at
        most 300.
    symmetric : bool
        The points also hold with P and Q exchanged, as in differential privacy.

    Returns
    -------
    PiecewiseLinear
        `bound` is "lower": between the points the profile may be anything.

    Raises
    ------
    ConfigError
        If there are not as many values of epsilon as of delta, none, or some beyond 300.

    Examples
    --------
    >>> from finfluence.tradeoff import EpsilonDelta
    >>> f = from_profile([1.0], [0.05], symmetric=True)
    >>> bool(abs(f(0.3) - EpsilonDelta(1.0, 0.05)(0.3)) < 1e-15), f.bound
    (True, 'lower')
    """
    eps = np.asarray(epsilon, dtype=np.float64).ravel()
    slack = as_level(delta, "delta").ravel()
    if eps.shape != slack.shape or eps.size == 0 or not np.all(np.abs(eps) <= 300.0):
        raise ConfigError(
            explain(
                "as many values of epsilon, from -300 to 300, as of delta",
                f"{eps.size} of epsilon and {slack.size} of delta",
                "an infinite epsilon, or lists of different length",
                "leave points with infinite epsilon out: they say nothing",
            )
        )
    if symmetric:
        eps, slack = (
            np.concatenate((eps, -eps)),
            np.concatenate((slack, -np.expm1(-eps) + np.exp(-eps) * slack)),
        )
    slope = np.concatenate((np.exp(eps), [0.0]))
    slope, slack = lower_hull(slope, np.concatenate((slack, [1.0])))
    falling = np.append(True, np.diff(slack) < 0.0)
    slope, slack = slope[falling][::-1], slack[falling][::-1]
    alpha = (slack[1:] - slack[:-1]) / (slope[:-1] - slope[1:])
    alpha = np.minimum(np.concatenate(([0.0], alpha)), 1.0)
    beta = np.maximum(1.0 - slack - slope * alpha, 0.0)
    beta[-1] = 0.0
    keep = np.append(np.diff(alpha) > 0.0, True) if alpha.size > 1 else np.array([True])
    alpha, beta = np.append(alpha[keep], 1.0), np.append(beta[keep], 0.0)
    if alpha[0] > 0.0:
        alpha, beta = np.insert(alpha, 0, 0.0), np.insert(beta, 0, 1.0 - slack[0])
    last = -1 if alpha[-2] == 1.0 else None
    return PiecewiseLinear(alpha[:last], np.minimum(beta[:last], 1.0 - alpha[:last]), "lower")


def _sample(values: ArrayLike, name: str) -> np.ndarray:
    sample = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if sample.size == 0 or not np.all(np.isfinite(sample)):
        raise DataError(
            explain(
                f"at least one finite value in {name}",
                f"{sample.size} values, {int(np.sum(~np.isfinite(sample)))} of them NaN or infinite",
                "runs that diverged, or an empty arm",
                "look at those runs; leave them out only if that does not depend on the rows",
            )
        )
    return sample


def _cuts(p: Any, q: Any, cells: int) -> np.ndarray:
    """Return the ends of the cells: quantiles of both laws and stationary points of the log ratio."""
    level = expit(np.linspace(-36.0, 0.0, max(cells // 4, 8)))
    x = np.concatenate([law.ppf(level) for law in (p, q)] + [law.isf(level) for law in (p, q)])
    x = np.unique(x[np.isfinite(x)])
    at = _log_ratio(p, q, x)
    with np.errstate(invalid="ignore"):
        step = np.diff(at)
        turns = np.flatnonzero(step[:-1] * step[1:] < 0.0) + 1
    found = []
    for i in turns:
        sign = -1.0 if at[i] > at[i - 1] else 1.0
        best = minimize_scalar(
            lambda z, sign=sign: sign * float(_log_ratio(p, q, np.array([z]))[0]),
            bounds=(x[i - 1], x[i + 1]),
            method="bounded",
            options={"xatol": 1e-12 * max(1.0, abs(x[i]))},
        )
        found.append(float(best.x))
    return np.unique(np.concatenate((x, found)))


def _log_ratio(p: Any, q: Any, x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(q.logpdf(x)) - np.asarray(p.logpdf(x))


def _between(law: Any, x: np.ndarray) -> np.ndarray:
    """Return the mass between consecutive points, from the nearer tail."""
    left, right = np.append(0.0, np.append(law.cdf(x), 1.0)), np.append(1.0, np.append(law.sf(x), 0.0))
    return np.maximum(np.where(left[:-1] < 0.5, np.diff(left), -np.diff(right)), 0.0)
