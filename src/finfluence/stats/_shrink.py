"""Empirical-Bayes shrinkage of many estimates: the ones chosen for being extreme are not exaggerated."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

FEWEST_SHRUNKEN = 10
FITTED = 2_000
ON_NOTHING = 2.0
_FINEST, _LEAST = 0.125, 1e-12
_ROUNDS, _PASSES = 6, 50


@dataclass(frozen=True, eq=False)
class Shrunken:
    """Posterior of each true value; NaN where the estimate or its error is.

    Attributes
    ----------
    mean, sd : array [n]
        Mean and standard deviation.
    sign_error : array [n]
        Chance that the true value has not the sign of `mean`: the other one, or none of its own, where it is the common
        centre (local false sign rate).
    fitted : bool
        Whether a prior was fitted. Fewer than 10 estimates with an error say too little: each then stands for itself.
    """

    mean: np.ndarray
    sd: np.ndarray
    sign_error: np.ndarray
    fitted: bool


@dataclass(frozen=True, eq=False)
class ScaleMixture:
    """The law of true values: centre + error · u, u from a mixture of N(0, scale²); the first scale is zero."""

    centre: float
    scales: np.ndarray
    weights: np.ndarray


def shrink(estimate: np.ndarray, se: np.ndarray) -> Shrunken:
    r"""Return the posterior of each true value, under a prior that is fitted to all of them.

    .. math:: \hat\theta_i \sim N(\theta_i, s_i^2), \quad \theta_i = c + s_i u_i, \quad
              u_i \sim w_0\,\delta_0 + \sum_k w_k N(0, \tau_k^2)

    c and w by maximum likelihood (EM; two pseudo-counts on the spike, so that what chance explains is given to it), the
    scales τ = 1/8, 1/4, … to twice the largest |θ̂|/s: any symmetric unimodal law, heavy tails among them. (A finer grid
    fits the tail of the sample: the top is then shrunken too little.) True values are exchangeable *in units of their
    own error*: of influences both grow with the size of the row's gradient. The posterior holds for any choice that was
    made by the estimates: a mean over chosen ones is not biased by the choice. An estimate without error is its own
    posterior and takes no part in the fit.

    Parameters
    ----------
    estimate, se : array [n]
        Estimates and their standard errors, in one unit.

    Returns
    -------
    Shrunken

    Notes
    -----
    Cost: n times the number of scales, about 10; the prior is fitted to at most 2,000 of the estimates, evenly spaced
    in the order of estimate/se.

    References
    ----------
    Stephens, "False discovery rates: a new deal" (2017): adaptive shrinkage, with its α = 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true = rng.normal(size=4000)
    >>> seen = true + rng.normal(size=4000)
    >>> top = np.argsort(-seen)[:100]
    >>> found = shrink(seen, np.ones(4000))
    >>> [round(float(v[top].mean()), 1) for v in (seen, found.mean, true)]
    [3.2, 1.7, 1.6]
    """
    estimate, se = np.asarray(estimate, dtype=np.float64), np.asarray(se, dtype=np.float64)
    known = np.isfinite(estimate) & np.isfinite(se)
    uncertain = known & (se > 0)
    mean, sd = np.where(known, estimate, np.nan), np.where(known, se, np.nan)
    sign_error = np.where(known, np.where(estimate == 0, 1.0, 0.0), np.nan)
    if uncertain.any():
        prior = (
            fit_mixture(estimate[uncertain], se[uncertain]) if uncertain.sum() >= FEWEST_SHRUNKEN else None
        )
        parts = posterior(estimate[uncertain], se[uncertain], prior)
        for whole, part in zip((mean, sd, sign_error), parts, strict=True):
            whole[uncertain] = part
    return Shrunken(mean, sd, sign_error, bool(uncertain.sum() >= FEWEST_SHRUNKEN))


def fit_mixture(estimate: np.ndarray, se: np.ndarray) -> ScaleMixture:
    """Return the prior that `shrink` fits to estimates with errors above zero."""
    order = np.argsort(estimate / se, kind="stable")
    largest = np.abs(estimate[order[[0, -1]]] / se[order[[0, -1]]]).max()
    chosen = order[np.linspace(0, len(order) - 1, min(len(order), FITTED)).round().astype(int)]
    x, s = estimate[chosen], se[chosen]
    centre = float((x / s**2).sum() / (1 / s**2).sum())
    reach = max(2 * largest, 2 * _FINEST)
    scales = np.concatenate([[0.0], _FINEST * 2.0 ** np.arange(np.ceil(np.log2(reach / _FINEST)) + 1)])
    weights = np.full(len(scales), 1 / len(scales))
    variances = 1 + scales**2
    for _ in range(_ROUNDS):
        density = np.exp(_log_density((x - centre) / s, variances))
        for _ in range(_PASSES):
            share = density.T @ (1 / (density @ weights)) * weights
            share[0] += ON_NOTHING
            weights = share / share.sum()
            weights[weights < _LEAST] = 0.0
        belongs = density * weights
        precision = (belongs / variances).sum(1) / belongs.sum(1) / s**2
        centre = float((precision * x).sum() / precision.sum())
    return ScaleMixture(centre, scales, weights)


def _log_density(z: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return log N(z; 0, variance) [n, K] less the largest of each row: only ratios within a row matter."""
    found = -0.5 * (np.log(variances) + z[:, None] ** 2 / variances)
    result: np.ndarray = found - found.max(1, keepdims=True)
    return result


def posterior(
    estimate: np.ndarray, se: np.ndarray, prior: ScaleMixture | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, sd and local false sign rate of each true value; with no prior, those of a flat one.

    Returns
    -------
    tuple of array [n]
    """
    if prior is None:
        return estimate, se, norm.sf(np.abs(estimate) / se)
    belongs = np.exp(_log_density((estimate - prior.centre) / se, 1 + prior.scales**2)) * prior.weights
    belongs /= belongs.sum(1, keepdims=True)
    kept = prior.scales**2 / (1 + prior.scales**2)
    means = prior.centre + kept * (estimate - prior.centre)[:, None]
    sds = np.sqrt(kept) * se[:, None]
    mean = (belongs * means).sum(1)
    sd = np.sqrt((belongs * (sds**2 + (means - mean[:, None]) ** 2)).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.where(sds > 0, norm.sf(-means / sds), 0.0)
        negative = np.where(sds > 0, norm.sf(means / sds), 0.0)
    agreed = np.where(mean > 0, (belongs * positive).sum(1), (belongs * negative).sum(1))
    return mean, sd, np.where(mean == 0, 1.0, 1 - agreed)
