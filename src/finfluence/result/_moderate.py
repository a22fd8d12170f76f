"""Variances of many estimates from few runs, moderated by what else is known of them."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

ENOUGH = 20
PRIOR_DF = 4.0
MOST_DF = 50.0


def moderate(variance: np.ndarray, df: int, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (variance, degrees of freedom) of each estimate: empirical Bayes with a prior of its own scale.

    s²_i | σ²_i ~ σ²_i χ²_d/d and σ²_i ~ c·v_i · d₀/χ²_{d₀}, so that s²_i/(c·v_i) ~ F(d, d₀):

        v = (d₀·c·v_i + d·s²_i)/(d₀ + d)  on d₀ + d degrees of freedom.

    c and d₀ are fitted to the mean and variance of log s²_i/v_i over all i. d₀ is at most 50, for estimates from the
    same runs are not independent. Fewer than 20 of them say little: then c = 1, d₀ = 4. Where v_i is unknown, s²_i
    stands alone on d degrees of freedom.

    Parameters
    ----------
    variance : array
        s², the variance between runs, on `df` = d degrees of freedom.
    prior : array
        v, the estimates' own variances from within the runs; NaN where unknown.

    Returns
    -------
    tuple[array, array]

    References
    ----------
    Smyth, "Linear models and empirical Bayes methods" (2004), section 6.2, with v_i in place of a common scale.

    Examples
    --------
    >>> v, df = moderate(np.array([1.0, 1.0]), 2, np.array([0.01, np.nan]))
    >>> v.round(4).tolist(), df.tolist()
    ([0.34, 1.0], [6.0, 2.0])
    """
    usable = np.isfinite(prior) & (prior > 0) & np.isfinite(variance)
    scale, prior_df = _fit(variance[usable] / prior[usable], df)
    mixed = (prior_df * scale * np.where(usable, prior, 0.0) + df * variance) / (prior_df + df)
    return np.where(usable, mixed, variance), np.where(usable, prior_df + df, float(df))


def trended(variance: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return the priors v, bent to follow the variances s² that they are held against: vᵇ, up to a scale.

    b is the least-squares slope of log s² on log v over all of them, from 0 to 1. Below 1 the largest v say too much: a
    row whose influence changes over the run has a large variance within it, and no larger one between runs. Fewer than
    20 say little: then b = 1.

    Returns
    -------
    array, as `prior`
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        seen, known = np.log(variance), np.log(prior)
    usable = np.isfinite(seen) & np.isfinite(known)
    if usable.sum() < ENOUGH or np.ptp(known[usable]) == 0:
        return prior
    slope = float(np.clip(np.polyfit(known[usable], seen[usable], 1)[0], 0.0, 1.0))
    middle = known[usable].mean()
    return np.where(usable, np.exp(middle + slope * (known - middle)), prior)


def _fit(ratio: np.ndarray, df: int) -> tuple[float, float]:
    """Return c and d₀ of ratios ~ c·F(d, d₀)."""
    ratio = ratio[ratio > 0]
    if len(ratio) < ENOUGH:
        return 1.0, PRIOR_DF
    logs = np.log(ratio) - digamma(df / 2) + np.log(df / 2)
    left = logs.var(ddof=1) - polygamma(1, df / 2)
    most = float(polygamma(1, MOST_DF / 2))
    if left <= most:
        prior_df = MOST_DF
    else:
        prior_df = 2 * float(brentq(lambda x: polygamma(1, x) - left, 1e-3, MOST_DF / 2))
    return float(np.exp(logs.mean() + digamma(prior_df / 2) - np.log(prior_df / 2))), prior_df
