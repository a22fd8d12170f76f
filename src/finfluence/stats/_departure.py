"""How far two samples are from one Gaussian trade-off curve, where one number mu would tell it all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from finfluence._seeds import stream
from finfluence.stats._checks import check_count, check_level, one_pair, varying
from finfluence.stats._intervals import Interval
from finfluence.stats._samples import auc_probit, binormal, counts_below

_ENDS = (0.01, 0.99)
_ROUNDS, _SECANT = 2, 0.2


@dataclass(frozen=True)
class Departure:
    """Whether one mu describes the whole curve.

    Attributes
    ----------
    slope
        Spread with the rows over spread without them, up to a monotone transform, with its interval. One
        for a Gaussian curve.
    mu
        Signed mu of the whole curve, as of `binormal`.
    mu_at_ends
        The mu that the fitted curve implies at false-alarm rates 0.01 and 0.99. Equal for a Gaussian curve;
        of opposite signs where the rows change the spread more than the mean.
    misfit
        Largest vertical distance of the empirical curve from G_mu.
    p_value
        Chance of a misfit at least as large if the curve is Gaussian (parametric bootstrap).
    level
        Level of the slope's interval, and 1 minus the level at which `finding` speaks.
    """

    slope: Interval
    mu: float
    mu_at_ends: tuple[float, float]
    misfit: float
    p_value: float
    level: float

    @property
    def finding(self) -> str:
        """A sentence if the curve is not Gaussian at the level, else empty."""
        steep = not self.slope.lower <= 1.0 <= self.slope.upper
        if not steep and self.p_value > 1.0 - self.level:
            return ""
        low, high = self.mu_at_ends
        spread = (
            f"Removing the rows changes the spread, not only the mean: slope {self.slope.estimate:.2f} "
            f"[{self.slope.lower:.2f}, {self.slope.upper:.2f}]; "
            if steep
            else f"The curve is not Gaussian (p = {self.p_value:.2g}); "
        )
        return (
            f"{spread}the implied mu runs from {low:+.2f} at a false-alarm rate of 1 % to {high:+.2f} at 99 %. "
            "One mu does not tell the whole curve: read the trade-off curve."
        )


def departure(
    with_rows: ArrayLike,
    without_rows: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Departure:
    r"""Return how far the trade-off curve of two samples is from Gaussian.

    .. math:: \mu(\alpha) = \Phi^{-1}(1-\alpha) - \Phi^{-1}(f(\alpha)) = a + (b - 1)\,\Phi^{-1}(\alpha)

    for the fitted binormal line with slope b. Constant in alpha if and only if b = 1.

    Parameters
    ----------
    with_rows, without_rows
        One-dimensional samples of at least five values.
    level
        Level of the slope's interval.
    resamples
        Simulated pairs, for the interval and for the p-value.
    seed
        Names the stream of random numbers.

    Returns
    -------
    Departure

    Raises
    ------
    DataError
        NaN, fewer than five values, or all values equal.

    Notes
    -----
    The slope is that of `binormal` with its bias removed: at n = 50 and a true slope of 1/2 `binormal` gives
    0.55 to 0.6. Slope and interval are found by simulating pairs of normals of other slopes.
    Depends on the ranks alone, so a statistic that is a monotone transform of a normal one is Gaussian here.
    N(0, 1) with the rows against N(0, 4) without: slope 1/2 and mu from +1.1632 to -1.1632, whose "largest
    magnitude" has no sign.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = departure(rng.normal(size=500), 2 * rng.normal(size=500))
    >>> found.finding[:60]
    'Removing the rows changes the spread, not only the mean: slo'
    """
    check_level(level)
    check_count("resamples", resamples, 99)
    x, y = one_pair(with_rows, without_rows, least=5)
    varying(np.concatenate([x, y]))
    n, m = x.size, y.size
    fit, mu = binormal(x, y), float(auc_probit(x, y))
    rng = stream(seed, "departure")
    normal_x, normal_y = rng.normal(size=(resamples, n)), rng.normal(size=(resamples, m))
    seen = float(np.log(fit.slope))
    middle, low, high = _inverted(seen, float(fit.mu), normal_x, normal_y, level)
    slope, bounds = float(np.exp(middle)), np.exp([low, high])
    intercept = float(fit.mu) * np.sqrt((1.0 + slope**2) / 2.0)
    misfit = _misfit(x, y, np.asarray(mu))
    null = _misfit(normal_x, normal_y + mu, auc_probit(normal_x, normal_y + mu))
    p = float(((null >= misfit - 1e-12).sum() + 1) / (resamples + 1))
    ends = tuple(float(intercept + (slope - 1.0) * ndtri(alpha)) for alpha in _ENDS)
    return Departure(
        Interval(slope, float(bounds[0]), float(bounds[1]), level, "simulated at the fit"),
        float(fit.mu), (ends[0], ends[1]), float(misfit), p, level,
    )  # fmt: skip


def _inverted(
    seen: float, mu: float, normal_x: np.ndarray, normal_y: np.ndarray, level: float
) -> tuple[float, float, float]:
    """Return the true log slopes of which `seen` is the mean, the upper and the lower quantile."""
    wanted = [0.5, (1 + level) / 2, (1 - level) / 2]

    def fitted(log_slope: float) -> np.ndarray:
        spread = np.exp(-log_slope)  # of Q, with that of P one
        shift = mu * np.sqrt((1.0 + spread**2) / 2.0)
        return np.quantile(np.log(binormal(normal_x, spread * normal_y + shift).slope), wanted)

    found = np.full(3, seen)
    for target in range(3):  # the quantiles rise with the true slope, nearly on a line: secant steps
        here = found[0]
        for _ in range(_ROUNDS):
            below, above = fitted(here - _SECANT)[target], fitted(here + _SECANT)[target]
            rise = max((above - below) / (2.0 * _SECANT), 0.2)
            here += (seen - (below + above) / 2.0) / rise
        found[target] = here
    return float(found[0]), float(found[1]), float(found[2])


def _misfit(x: np.ndarray, y: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Largest vertical distance between the empirical curve and G_mu, over all thresholds."""
    below_x, below_y, distinct = counts_below(x, y)
    gap = np.abs(below_y / y.shape[-1] - ndtr(ndtri(below_x / x.shape[-1]) - mu[..., None]))
    return np.where(distinct, gap, 0.0).max(axis=-1)
