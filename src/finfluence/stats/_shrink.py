"""Empirical-Bayes shrinkage of many estimates: the ones chosen for being extreme are not exaggerated."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

FEWEST_SHRUNKEN = 10
FITTED = 2_000
ON_NOTHING = 2.0
EXPONENTS = (1.0, 1.25, 1.5, 2.0)
_FINEST, _LEAST, _FARTHEST = 0.125, 1e-12, 1e6
_ROUNDS, _PASSES, _PASSES_TO_CHOOSE = 6, 50, 20
_SURER = 2.0


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
    """The law of true values: centre + error · (error/typical)^(exponent − 1) · u, u from a mixture of N(0, scale²).

    The first scale is zero.
    """

    centre: float
    scales: np.ndarray
    weights: np.ndarray
    exponent: float = 1.0
    typical: float = 1.0

    def variances(self, se: np.ndarray) -> np.ndarray:
        """Return Var(estimate)/error² under each scale [n, K]."""
        result: np.ndarray = 1 + np.outer(_units(se, self.typical, self.exponent), self.scales) ** 2
        return result


def shrink(estimate: np.ndarray, se: np.ndarray) -> Shrunken:
    r"""Return the posterior of each true value, under a prior that is fitted to all of them.

    .. math:: \hat\theta_i \sim N(\theta_i, s_i^2), \quad \theta_i = c + s_i (s_i / \tilde s)^{\alpha - 1} u_i, \quad
              u_i \sim w_0\,\delta_0 + \sum_k w_k N(0, \tau_k^2)

    c and w by maximum likelihood (EM; two pseudo-counts on the spike, so that what chance explains is given to it), the
    scales τ = 1/8, 1/4, … to twice the largest |θ̂|/s: any symmetric unimodal law, heavy tails among them. (A finer grid
    fits the tail of the sample: the top is then shrunken too little.) True values are exchangeable in units of their
    own error, α = 1: of influences both grow with the size of the row's gradient. Where they grow faster than their
    errors do (means of several runs), α is 1¼, 1½ or 2, whichever is likeliest and by more than 2 in log-likelihood; s̃
    is the median error. (α < 1 is never taken: an error that is too large by chance looks like it.) The posterior holds
    for any choice that was made by the estimates: a mean over chosen ones is not biased by the choice. An estimate
    without error is its own posterior and takes no part in the fit.

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
    in the order of estimate/se. Exponents are compared after a few passes of EM.

    References
    ----------
    Stephens, "False discovery rates: a new deal" (2017): adaptive shrinkage; α is 0 or 1 there.

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
    chosen = order[np.linspace(0, len(order) - 1, min(len(order), FITTED)).round().astype(int)]
    x, s = estimate[chosen], se[chosen]
    tried = [_fit(x, s, exponent, 1, _PASSES_TO_CHOOSE) for exponent in EXPONENTS]
    found = np.array([_log_likelihood(x, s, prior) for prior in tried])
    likeliest = int(found.argmax()) if found.max() > found[0] + _SURER else 0
    return _fit(x, s, EXPONENTS[likeliest], _ROUNDS, _PASSES)


def _fit(x: np.ndarray, s: np.ndarray, exponent: float, rounds: int, passes: int) -> ScaleMixture:
    """Return the likeliest centre and weights, by expectation maximisation, with one exponent."""
    typical = float(np.median(s))
    centre = float((x / s**2).sum() / (1 / s**2).sum())
    reach = 2 * max(float(np.abs(x / s / _units(s, typical, exponent)).max()), _FINEST)
    scales = np.concatenate([[0.0], _FINEST * 2.0 ** np.arange(np.ceil(np.log2(reach / _FINEST)) + 1)])
    prior = ScaleMixture(centre, scales, np.full(len(scales), 1 / len(scales)), exponent, typical)
    weights, variances = prior.weights, prior.variances(s)
    for _ in range(rounds):
        density = np.exp(_log_density((x - centre) / s, variances))
        for _ in range(passes):
            share = density.T @ (1 / (density @ weights)) * weights
            share[0] += ON_NOTHING
            weights = share / share.sum()
            weights[weights < _LEAST] = 0.0
        belongs = density * weights
        precision = (belongs / variances).sum(1) / belongs.sum(1) / s**2
        centre = float((precision * x).sum() / precision.sum())
    return replace(prior, centre=centre, weights=weights)


def _units(se: np.ndarray, typical: float, exponent: float) -> np.ndarray:
    """Return what u counts in [n], in errors."""
    result: np.ndarray = np.clip(se / typical, 1 / _FARTHEST, _FARTHEST) ** (exponent - 1)
    return result


def _log_likelihood(x: np.ndarray, s: np.ndarray, prior: ScaleMixture) -> float:
    """Return the log-likelihood of estimates under a prior, less what all priors share."""
    each = _log_normal((x - prior.centre) / s, prior.variances(s))
    return float(logsumexp(each, axis=1, b=prior.weights).sum())


def _log_normal(z: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return log N(z; 0, variances) [n, K], but for a constant."""
    result: np.ndarray = -0.5 * (np.log(variances) + z[:, None] ** 2 / variances)
    return result


def _log_density(z: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return `_log_normal` less the largest of each row: only ratios within a row matter."""
    found = _log_normal(z, variances)
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
    variances = prior.variances(se)
    belongs = np.exp(_log_density((estimate - prior.centre) / se, variances)) * prior.weights
    belongs /= belongs.sum(1, keepdims=True)
    kept = 1 - 1 / variances
    means = prior.centre + kept * (estimate - prior.centre)[:, None]
    sds = np.sqrt(kept) * se[:, None]
    mean = (belongs * means).sum(1)
    sd = np.sqrt((belongs * (sds**2 + (means - mean[:, None]) ** 2)).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.where(sds > 0, norm.sf(-means / sds), 0.0)
        negative = np.where(sds > 0, norm.sf(means / sds), 0.0)
    agreed = np.where(mean > 0, (belongs * positive).sum(1), (belongs * negative).sum(1))
    return mean, sd, np.where(mean == 0, 1.0, 1 - agreed)
