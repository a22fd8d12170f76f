"""How an estimate agrees with a truth that is itself noisy: figures, intervals, and the best one could reach."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm, rankdata
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

from finfluence._seeds import stream

RESAMPLES = 2_000
_GRID, _PASSES, _WORLDS = 200, 20, 400

MEANING = {
    "slope": "Truth over estimate of μ, least squares through zero: multiply μ by it.",
    "effect slope": "The same of effects in the query's own unit.",
    "Pearson": "Correlation of estimated and retrained μ.",
    "Spearman": "The same of their ranks: the order, the middle included.",
    "spread ratio": "True over estimated spread, the median.",
    "coverage": "Share of the estimate's intervals that hold the truth, the truth's own error allowed for.",
}


@dataclass(frozen=True)
class Figure:
    """One figure of agreement with its interval.

    Attributes
    ----------
    best
        What a perfect estimate would reach: 1, the nominal level, or the ceiling that the truth's noise sets.
    """

    name: str
    value: float
    lower: float
    upper: float
    best: float
    meaning: str


@dataclass(frozen=True, eq=False)
class Pairs:
    """Estimate and truth over (subset, query), arrays [S, Q] of finite μ.

    Attributes
    ----------
    shared
        Standard error, in units of μ, of the part of the truth's error that all subsets of a query share: the trainings
        on all rows.
    shared_spread
        Relative standard error of their spread, times √2: one over the root of their number.
    level
        Of every interval.
    """

    estimate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    truth: np.ndarray
    truth_se: np.ndarray
    effect: np.ndarray
    true_effect: np.ndarray
    spread: np.ndarray
    true_spread: np.ndarray
    shared: float
    shared_spread: float
    level: float

    @property
    def own_se(self) -> np.ndarray:
        """Standard error of each truth without the shared part."""
        return np.sqrt(np.maximum(self.truth_se**2 - self.shared**2, 0.0))


@dataclass(frozen=True)
class Evidence:
    """What the verdict is made from.

    Attributes
    ----------
    noise
        Root mean square of the truth's own standard errors.
    signal
        Estimated standard deviation of the noise-free truth over the pairs; 0 where the noise explains everything.
    p_signal
        Of the hypothesis that no subset moves any query.
    predicted
        Standard deviation of the estimates.
    """

    subsets: int
    noise: float
    signal: float
    p_signal: float
    predicted: float


def figures(pairs: Pairs, seed: int, resamples: int = RESAMPLES) -> tuple[Figure, ...]:
    r"""Return slope, effect slope, Pearson, Spearman, spread ratio and coverage.

    .. math:: \text{slope} = \sum e\,t / \sum e^2

    over all pairs of estimate e and retrained t. The noise of the truth is on t alone: it widens the slope's interval
    and does not bend it. The subsets were chosen by e, so that regression on e is what remains unbiased; total least
    squares or a correction for the noise of e would not be (it is not centred in groups picked for being extreme). The
    slope thus is what an estimate, its noise included, has to be multiplied by. Pairs are weighted alike: the standard
    error of t grows with the size of t, and weights from it would favour small truths.

    Intervals: bootstrap over subsets (all queries of a subset together), percentiles widened for few subsets
    (Hesterberg 2015), with the shared error of the truth drawn anew in each resample; Wilson's for coverage, on as many
    trials as there are subsets.

    Parameters
    ----------
    seed
        Names the stream of the bootstrap: the same seed, the same intervals.
    resamples
        Of the bootstrap.

    Returns
    -------
    tuple[Figure, ...]
    """
    count, queries = pairs.estimate.shape
    rng = stream(seed, "verification bootstrap")
    pick = rng.integers(count, size=(resamples, count))
    offset = pairs.shared * rng.normal(size=(resamples, 1, queries))
    e = pairs.estimate[pick].reshape(resamples, -1)
    t = (pairs.truth[pick] + offset).reshape(resamples, -1)
    e0, t0 = pairs.estimate.ravel(), pairs.truth.ravel()
    # each effect in units of its true spread, so that queries of different units can be taken together
    x, y = pairs.effect / pairs.true_spread, pairs.true_effect / pairs.true_spread
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = pairs.true_spread / pairs.spread
        # the spread of the runs on all rows is half of every true variance: its error is shared, too
        common = np.exp(0.25 * np.sqrt(2.0) * pairs.shared_spread * rng.normal(size=resamples))
        drawn = {
            "slope": _slope(e, t),
            "effect slope": _slope(x[pick].reshape(resamples, -1), (y[pick] + offset).reshape(resamples, -1)),
            "Pearson": pearson(e, t),
            "Spearman": spearman(e, t),
            "spread ratio": np.median(ratio[pick].reshape(resamples, -1), axis=1) * common,
        }
        values = {
            "slope": _slope(e0, t0),
            "effect slope": _slope(x.ravel(), y.ravel()),
            "Pearson": pearson(e0, t0),
            "Spearman": spearman(e0, t0),
            "spread ratio": np.median(ratio),
        }
    best = dict(zip(("Pearson", "Spearman"), ceilings(pairs, seed), strict=True))
    found = [
        Figure(name, float(value), *_percentiles(drawn[name], pairs), best.get(name, 1.0), MEANING[name])
        for name, value in values.items()
    ]
    return (*found, _coverage(pairs))


def ceilings(pairs: Pairs, seed: int) -> tuple[float, float]:
    """Return the Pearson and Spearman correlation that a perfect estimate would have with this noisy truth.

    The law of the noise-free truth is fitted to the retrained values and their standard errors (nonparametric
    maximum likelihood on a grid, few passes so that it stays smooth); then noise-free values and new noisy truths are
    drawn from it, and their correlations averaged.

    Returns
    -------
    tuple[float, float]

    References
    ----------
    Kiefer and Wolfowitz (1956), for the estimator.
    """
    t = pairs.truth.ravel()
    queries = pairs.truth.shape[1]
    between = pairs.shared**2 * (1 - 1 / queries)  # one query: a common offset moves no correlation
    s = np.maximum(np.sqrt(pairs.own_se.ravel() ** 2 + between), 1e-12)
    if np.ptp(t) == 0:
        return float("nan"), float("nan")
    grid = np.linspace(t.min(), t.max(), _GRID)
    scaled = (t[:, None] - grid) / s[:, None]
    likelihood = np.exp(-0.5 * (scaled**2 - (scaled**2).min(1, keepdims=True)))
    weight = np.full(_GRID, 1 / _GRID)
    for _ in range(_PASSES):
        posterior = likelihood * weight
        posterior /= posterior.sum(1, keepdims=True)
        weight = posterior.mean(0)
    posterior = likelihood * weight
    reached = (posterior / posterior.sum(1, keepdims=True)).cumsum(1)
    rng = stream(seed, "verification ceilings")
    uniform = rng.random((_WORLDS, len(t)))
    cell = np.stack([np.searchsorted(reached[i], uniform[:, i]) for i in range(len(t))], axis=1)
    true = grid[cell.clip(0, _GRID - 1)] + (grid[1] - grid[0]) * (rng.random(cell.shape) - 0.5)
    noisy = true + s * rng.normal(size=true.shape)
    return float(np.mean(pearson(true, noisy))), float(np.mean(spearman(true, noisy)))


def evidence(pairs: Pairs) -> Evidence:
    """Return whether there is anything to agree with.

    Each query's homogeneity is tested by χ² = Σ_S ((t_S − t̄)/se_S)² with S − 1 degrees of freedom, the least p-value
    times the number of queries.

    Returns
    -------
    Evidence
    """
    se = np.maximum(pairs.own_se, 1e-12)
    weight = 1 / se**2
    centred = pairs.truth - (weight * pairs.truth).sum(0) / weight.sum(0)
    count, queries = pairs.truth.shape
    p = chi2.sf((centred**2 * weight).sum(0), count - 1)
    noise = float((se**2).mean())
    variance = float(pairs.truth.var(axis=0, ddof=1).mean()) if count > 1 else 0.0
    return Evidence(
        subsets=count,
        noise=float(np.sqrt(noise)),
        signal=float(np.sqrt(max(0.0, variance - noise))),
        p_signal=float(min(1.0, p.min() * queries)),
        predicted=float(pairs.estimate.std()),
    )


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation along the last axis; NaN where one side is constant."""
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)), -1.0, 1.0)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rank correlation along the last axis, ties by their mean rank; NaN where one side is constant."""
    return pearson(rankdata(a, axis=-1), rankdata(b, axis=-1))


def _slope(e: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.asarray((e * t).sum(-1) / (e * e).sum(-1))


def _percentiles(drawn: np.ndarray, pairs: Pairs) -> tuple[float, float]:
    count = len(pairs.estimate)
    known = drawn[np.isfinite(drawn)]
    if count < 3 or len(known) < len(drawn) // 2:
        return float("nan"), float("nan")
    wide = student.ppf((1 + pairs.level) / 2, count - 1) * np.sqrt(count / (count - 1))
    low, high = np.quantile(known, [norm.cdf(-wide), norm.cdf(wide)])
    return float(low), float(high)


def _coverage(pairs: Pairs) -> Figure:
    noise = norm.ppf((1 + pairs.level) / 2) * pairs.truth_se
    low = pairs.estimate - np.hypot(pairs.estimate - pairs.lower, noise)
    high = pairs.estimate + np.hypot(pairs.upper - pairs.estimate, noise)
    known = np.isfinite(low) & np.isfinite(high)
    nan = float("nan")
    if not known.any():
        return Figure("coverage", nan, nan, nan, pairs.level, MEANING["coverage"])
    share = float(((low <= pairs.truth) & (pairs.truth <= high))[known].mean())
    count = int(known.any(1).sum())
    lower, upper = proportion_confint(share * count, count, 1 - pairs.level, method="wilson")
    return Figure("coverage", share, float(lower), float(upper), pairs.level, MEANING["coverage"])
