"""Intervals for mu from two samples: DeLong on the probit scale, and noncentral t for the pooled d'."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import nctdtrinc, ndtri
from scipy.stats import rankdata

from finfluence.stats._checks import check_level, pair
from finfluence.stats._intervals import Interval
from finfluence.stats._samples import auc, mu_of_auc, pooled_d


def delong_interval(with_rows: ArrayLike, without_rows: ArrayLike, *, level: float = 0.95) -> Interval:
    r"""Return the signed mu of `auc_probit` with DeLong's variance of the AUC on the probit scale.

    .. math:: \hat\mu \pm z\, \frac{\sqrt2\, \mathrm{se}(\mathrm{AUC})}{\varphi(\Phi^{-1}(\mathrm{AUC}))}

    Parameters
    ----------
    with_rows, without_rows
        Samples of at least two values along the last axis; leading axes broadcast, one interval each.
    level
        Wanted coverage.

    Returns
    -------
    Interval
        Arrays of the broadcast leading shape.

    Notes
    -----
    Two samples that do not overlap set no outer bound: it is infinite. The inner one is then exact for any
    two laws: with k = min(n, m) disjoint pairs, all in one order, the AUC is at least
    ((1 - level)/2)^(1/k). Near that edge, at AUCs beyond 1 - 1/k, where DeLong's variance is made of a
    handful of pairs, Hanley and McNeil's is a floor. Simulated coverage at 95 %, n from 5 to 100, mu from 0
    to 4: 0.944 to 0.998.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988); Sun and Xu (2014) for the rank form; Hanley and McNeil (1982).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-2, 2, 50)
    >>> interval = delong_interval(x, x + 1)
    >>> [round(float(v), 2) for v in (interval.lower, interval.estimate, interval.upper)]
    [0.41, 0.82, 1.23]
    """
    x, y = pair(with_rows, without_rows, least=2)
    check_level(level)
    n, m = x.shape[-1], y.shape[-1]
    ranks = rankdata(np.concatenate([x, y], axis=-1), axis=-1)
    lost = 1.0 - (ranks[..., :n] - rankdata(x, axis=-1)) / m
    won = (ranks[..., n:] - rankdata(y, axis=-1)) / n
    raw = auc(x, y)
    edge = 1.0 / (2.0 * n * m)
    area = np.clip(raw, edge, 1.0 - edge)
    variance = lost.var(axis=-1, ddof=1) / n + won.var(axis=-1, ddof=1) / m
    sparse = np.minimum(area, 1.0 - area) < 1.0 / min(n, m)
    variance = np.where(sparse, np.maximum(variance, _hanley(area, n, m)), variance)
    mu = mu_of_auc(raw, n, m)
    slope = math.sqrt(2.0) * math.sqrt(2.0 * math.pi) * np.exp(ndtri(area) ** 2 / 2.0)
    half = ndtri((1.0 + level) / 2.0) * slope * np.sqrt(variance)
    inner = math.sqrt(2.0) * ndtri(((1.0 - level) / 2.0) ** (1.0 / min(n, m)))
    lower = np.where(raw >= 1.0, inner, np.where(raw <= 0.0, -np.inf, mu - half))
    upper = np.where(raw <= 0.0, -inner, np.where(raw >= 1.0, np.inf, mu + half))
    return Interval(mu, lower, upper, level, "DeLong probit")


def _hanley(area: np.ndarray, n: int, m: int) -> np.ndarray:
    """Variance of an AUC under the exponential model of Hanley and McNeil, symmetric in direction."""
    a = np.maximum(area, 1.0 - area)
    q1, q2 = a / (2.0 - a), 2.0 * a**2 / (1.0 + a)
    return (a * (1.0 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2)) / (n * m)


def pooled_d_interval(with_rows: ArrayLike, without_rows: ArrayLike, *, level: float = 0.95) -> Interval:
    r"""Return the pooled d' with the interval that inverts the noncentral t law.

    .. math:: \frac{d'}{c} \sim t_\nu(\mu / c), \quad
              c^2 = \frac{s_x^2/n + s_y^2/m}{(s_x^2+s_y^2)/2}, \quad
              \nu = \frac{2\,(s_x^2 + s_y^2)^2}{s_x^4 r_x + s_y^4 r_y}, \quad
              r = \frac{2}{n-1} + \frac{\max(0, \hat\kappa_4)}{n}

    Parameters
    ----------
    with_rows, without_rows
        Samples of at least two values along the last axis; leading axes broadcast, one interval each.
    level
        Wanted coverage.

    Returns
    -------
    Interval
        Arrays of the broadcast leading shape. Two constant samples that differ set no bound but their sign:
        [0, inf] or [-inf, 0]; two equal constants say nothing: [-inf, inf].

    Notes
    -----
    r is the relative variance of a sample variance, from the unbiased excess kurtosis where that is positive.
    Exact for normals of equal variance and n = m whose samples look no heavier than normal; with
    Satterthwaite's degrees of freedom otherwise. The truth it covers is (mean(Q) - mean(P)) over the root
    mean variance. Measured at 95 % for a t law with 4 degrees of freedom at d' = 1.4, n = 500: 0.94, and 0.85
    without the kurtosis.

    References
    ----------
    Hedges and Olkin (1985), chapter 5; Satterthwaite (1946).

    Examples
    --------
    >>> x = np.linspace(-2, 2, 20)
    >>> interval = pooled_d_interval(x, x + 1)
    >>> [round(float(v), 2) for v in (interval.lower, interval.estimate, interval.upper)]
    [0.15, 0.8, 1.44]
    """
    x, y = pair(with_rows, without_rows, least=2)
    check_level(level)
    n, m = x.shape[-1], y.shape[-1]
    vx, vy = x.var(axis=-1, ddof=1), y.var(axis=-1, ddof=1)
    d, total = np.asarray(pooled_d(x, y)), vx + vy
    safe = np.where(total > 0.0, total, 1.0)
    a, b = np.where(total > 0.0, vx / safe, 0.5), np.where(total > 0.0, vy / safe, 0.5)
    scale = np.sqrt(2.0 * (a / n + b / m))
    freedom = np.maximum(2.0 / (a**2 * _relative_variance(x, vx) + b**2 * _relative_variance(y, vy)), 2.0)
    t = np.where(np.isfinite(d), d, 0.0) / scale
    lower = scale * _noncentrality(t, freedom, (1.0 + level) / 2.0)
    upper = scale * _noncentrality(t, freedom, (1.0 - level) / 2.0)
    silent = total == 0.0
    lower = np.where(silent, np.where(d > 0.0, 0.0, -np.inf), lower)
    upper = np.where(silent, np.where(d < 0.0, 0.0, np.inf), upper)
    return Interval(d, lower, upper, level, "noncentral t")


def _relative_variance(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return Var(s^2)/sigma^4: that of a normal, or more where the sample's tails are heavier."""
    n = x.shape[-1]
    normal = 2.0 / (n - 1)
    if n < 4:
        return np.full(variance.shape, normal)
    centred = x - x.mean(axis=-1, keepdims=True)
    square = np.where(variance > 0.0, (centred**2).mean(axis=-1), 1.0)
    excess = (centred**4).mean(axis=-1) / square**2 - 3.0
    unbiased = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6.0)
    return normal + np.where(variance > 0.0, np.maximum(unbiased, 0.0), 0.0) / n


def _noncentrality(t: np.ndarray, freedom: np.ndarray, tail: float) -> np.ndarray:
    """Return the noncentrality under which a t at most this large has the chance `tail`."""
    mirrored = np.where(t < 0.0, -1.0, 1.0)  # scipy's inverse is accurate for positive t alone
    below = nctdtrinc(freedom, tail, np.abs(t))
    above = -nctdtrinc(freedom, 1.0 - tail, np.abs(t))
    return np.where(mirrored > 0.0, below, above)
