"""Estimates of the signed mu from two samples: x under P (with the rows), y under Q (without them)."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import rankdata

from finfluence.stats._checks import pair

_ROUNDING = 1e-14
"""Relative size of a spread or a difference that is rounding alone."""


class Binormal(NamedTuple):
    """Two-parameter fit of the probit ROC line.

    Attributes
    ----------
    mu
        Signed distance of the two laws: sqrt(2) times the probit of the fitted AUC.
    slope
        Spread with the rows over spread without them, up to a monotone transform. One for a Gaussian
        trade-off curve: a slope far from one says that one number mu does not tell the whole curve.
    """

    mu: np.ndarray
    slope: np.ndarray


def auc(with_rows: ArrayLike, without_rows: ArrayLike) -> np.ndarray:
    r"""Return the chance that a value without the rows exceeds one with them; ties count one half.

    .. math:: \mathrm{AUC} = P(Y > X) + \tfrac12 P(Y = X)

    Parameters
    ----------
    with_rows, without_rows
        Samples along the last axis; leading axes broadcast, one pair of samples each.

    Returns
    -------
    ndarray
        One value per pair, of the broadcast leading shape.

    Raises
    ------
    DataError
        A sample is empty or holds NaN.

    Notes
    -----
    O((n+m) log(n+m)) per pair, through ranks.

    Examples
    --------
    >>> float(auc([1.0, 2.0], [2.0, 3.0]))
    0.875
    """
    x, y = pair(with_rows, without_rows)
    n, m = x.shape[-1], y.shape[-1]
    ranks = rankdata(np.concatenate([x, y], axis=-1), axis=-1)
    return (ranks[..., n:].sum(axis=-1) - m * (m + 1) / 2.0) / (n * m)


def auc_probit(with_rows: ArrayLike, without_rows: ArrayLike) -> np.ndarray:
    r"""Estimate mu from the AUC; the default, nearly unbiased and invariant to monotone transforms.

    .. math:: \hat\mu = \sqrt2\,\Phi^{-1}(\mathrm{AUC})

    Parameters
    ----------
    with_rows, without_rows
        Samples along the last axis; leading axes broadcast, one pair of samples each.

    Returns
    -------
    ndarray
        One signed mu per pair; positive where values without the rows are larger.

    Notes
    -----
    The AUC is clipped to [1/(2nm), 1 - 1/(2nm)], so two samples that do not overlap give a finite answer
    that only grows with n and m: read it as "at least".

    Examples
    --------
    >>> round(float(auc_probit([0.0, 1.0, 2.0], [1.5, 2.5, 3.5])), 4)
    1.7262
    """
    x, y = pair(with_rows, without_rows)
    return mu_of_auc(auc(x, y), x.shape[-1], y.shape[-1])


def mu_of_auc(area: np.ndarray, n: int, m: int) -> np.ndarray:
    """Return sqrt(2) times the probit of an AUC from samples of sizes n and m, clipped away from 0 and 1."""
    edge = 1.0 / (2.0 * n * m)
    return math.sqrt(2.0) * ndtri(np.clip(area, edge, 1.0 - edge))


def pooled_d(with_rows: ArrayLike, without_rows: ArrayLike) -> np.ndarray:
    r"""Estimate mu as the standardised difference of means; exact for two normals of equal variance.

    .. math:: d' = \frac{\bar y - \bar x}{\sqrt{(s_x^2 + s_y^2)/2}}

    Parameters
    ----------
    with_rows, without_rows
        Samples of at least two values along the last axis; leading axes broadcast.

    Returns
    -------
    ndarray
        One signed d' per pair. Two samples that are constant but for rounding give 0 if they are equal and a signed
        infinity if not.

    Notes
    -----
    Standard error about sqrt(2/n + d'^2/(4n)) for n values per sample. One outlier can move it anywhere.

    Examples
    --------
    >>> float(pooled_d([0.0, 1.0, 2.0], [1.5, 2.5, 3.5]))
    1.5
    """
    x, y = pair(with_rows, without_rows, least=2)
    gap = y.mean(axis=-1) - x.mean(axis=-1)
    scale = np.sqrt((x.var(axis=-1, ddof=1) + y.var(axis=-1, ddof=1)) / 2.0)
    rounding = _ROUNDING * np.maximum(np.abs(x).max(axis=-1), np.abs(y).max(axis=-1))
    scale, gap = (np.where(np.abs(v) <= rounding, 0.0, v) for v in (scale, gap))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((scale == 0.0) & (gap == 0.0), 0.0, gap / scale)


def binormal(with_rows: ArrayLike, without_rows: ArrayLike) -> Binormal:
    r"""Fit a straight line to the probit ROC: mu, and the slope that tells how Gaussian the curve is.

    .. math:: \Phi^{-1}(1-\beta_\tau) = a + b\,\Phi^{-1}(\alpha_\tau), \quad
              \mu = a\sqrt{2/(1+b^2)}

    Parameters
    ----------
    with_rows, without_rows
        Samples of at least two values along the last axis; leading axes broadcast.

    Returns
    -------
    Binormal
        `mu` and `slope`, one of each per pair.

    Notes
    -----
    The line is the weighted reduced major axis over all thresholds, counts smoothed by one half and each
    threshold weighted by the inverse of its sampling variance: swapping the samples gives exactly
    1/slope and -mu. Depends on the ranks alone.

    Examples
    --------
    >>> x = np.linspace(-2, 2, 41)
    >>> fit = binormal(x, x + 1)
    >>> float(fit.slope.round(2)), float(fit.mu.round(2))
    (1.0, 0.75)
    """
    x, y = pair(with_rows, without_rows, least=2)
    n, m = x.shape[-1], y.shape[-1]
    below_x, below_y, distinct = counts_below(x, y)
    far, hit = (n - below_x + 0.5) / (n + 1), (m - below_y + 0.5) / (m + 1)
    u, v = ndtri(far), ndtri(hit)
    variance = far * (1 - far) / (n * _density(u) ** 2) + hit * (1 - hit) / (m * _density(v) ** 2)
    weight = distinct / variance
    weight /= np.maximum(weight.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    u0, v0 = (weight * u).sum(axis=-1), (weight * v).sum(axis=-1)
    su = np.sqrt((weight * (u - u0[..., None]) ** 2).sum(axis=-1))
    sv = np.sqrt((weight * (v - v0[..., None]) ** 2).sum(axis=-1))
    flat = (su == 0.0) | (sv == 0.0)
    slope = np.where(flat, 1.0, sv / np.where(flat, 1.0, su))
    return Binormal((v0 - slope * u0) * np.sqrt(2.0 / (1.0 + slope**2)), slope)


def counts_below(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each pooled value: how many x and y are <= it, and whether it ends its ties (the last does not)."""
    pooled = np.concatenate([x, y], axis=-1)
    order = np.argsort(pooled, axis=-1, kind="stable")
    ordered = np.take_along_axis(pooled, order, axis=-1)
    below_x = np.cumsum(order < x.shape[-1], axis=-1)
    below_y = np.arange(1, pooled.shape[-1] + 1) - below_x
    distinct = np.zeros(pooled.shape, dtype=bool)
    distinct[..., :-1] = ordered[..., :-1] < ordered[..., 1:]
    return below_x, below_y, distinct


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2.0) / math.sqrt(2.0 * math.pi)
