"""Agreement of predictions with retraining on many random subsets: linear datamodelling score, ceilings, intervals."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from finfluence._seeds import stream
from finfluence.errors import DataError, explain

LEVEL = 0.95


def correlation(a: np.ndarray, b: np.ndarray, ranks: bool = False) -> np.ndarray:
    """Return the correlation of two arrays [M, …] along the first axis, or of their ranks; NaN where one is constant.

    Returns
    -------
    ndarray […]

    Examples
    --------
    >>> correlation(np.array([1.0, 2.0, 9.0]), np.array([1.0, 4.0, 5.0]), ranks=True).round(6).item()
    1.0
    """
    x, y = (rankdata(v, axis=0) if ranks else np.asarray(v, dtype=np.float64) for v in (a, b))
    x, y = x - x.mean(0), y - y.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = (x * y).sum(0) / np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.asarray(found)


def datamodel_score(predicted: ArrayLike, outcome: ArrayLike) -> np.ndarray:
    r"""Return the linear datamodelling score of each query: the rank correlation over random subsets of the rows.

    .. math:: \mathrm{LDS}_q = \rho_S\left(\sum_{i \in A_m} s_{iq},\; q(\theta(A_m))\right)_{m = 1 \dots M}

    Parameters
    ----------
    predicted : array [M, Q]
        For each subset, the sum of the scores of its rows, turned so that a larger sum predicts a larger outcome.
    outcome : array [M, Q]
        The query at the end of training on the subset, or its mean over several trainings.

    Returns
    -------
    ndarray [Q]
        NaN where all predictions, or all outcomes, are the same.

    Raises
    ------
    DataError
        The shapes differ, or there are fewer than three subsets.

    References
    ----------
    Park et al., "TRAK: attributing model behavior at scale" (2023), Section 2.

    Examples
    --------
    >>> scores, subsets = np.array([3.0, 1, -2, 0.5]), [[0, 1], [0, 2], [1, 3], [2, 3]]
    >>> sums = [[scores[s].sum()] for s in subsets]
    >>> datamodel_score(sums, [[5.0], [2.0], [1.4], [-3.0]]).round(9).tolist()
    [0.8]
    """
    p, o = np.asarray(predicted, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.shape != o.shape or p.ndim != 2 or len(p) < 3:
        raise DataError(
            explain(
                "predictions and outcomes of one shape [subsets, queries], of three subsets or more",
                f"{p.shape} and {o.shape}",
                "predictions of other subsets or queries",
                "predict the subsets that were trained on, in their order",
            )
        )
    return correlation(p, o, ranks=True)


def datamodel_ceiling(outcomes: ArrayLike) -> np.ndarray:
    r"""Return the score that a perfect prediction of the expected outcome would reach against means over few trainings.

    With r the mean rank correlation between trainings of different seeds, the mean over R of them has reliability
    R·r / (1 + (R − 1)·r) (Spearman and Brown), and what is free of noise correlates with it by the root of that.

    Parameters
    ----------
    outcomes : array [R, M, Q]
        R trainings, each of its own seed, on each of M subsets.

    Returns
    -------
    ndarray [Q]
        0 where trainings agree no better than by chance.

    Raises
    ------
    DataError
        Fewer than two trainings of each subset.

    Examples
    --------
    >>> same = np.arange(6.0).reshape(1, 6, 1).repeat(3, 0)
    >>> datamodel_ceiling(same).tolist()
    [1.0]
    """
    o = np.asarray(outcomes, dtype=np.float64)
    count = len(o)
    if o.ndim != 3 or count < 2:
        raise DataError(
            explain(
                "outcomes [trainings, subsets, queries] of two trainings or more",
                f"{o.shape}",
                "one training tells nothing of the noise",
                "train on each subset again with another seed",
            )
        )
    pairs = [correlation(o[a], o[b], ranks=True) for a in range(count) for b in range(a)]
    r = np.maximum(np.nan_to_num(np.mean(pairs, axis=0)), 0.0)
    return np.sqrt(count * r / (1 + (count - 1) * r))


def agreement_ceiling(truth: ArrayLike, errors: ArrayLike, ranks: bool = False, seed: int = 0) -> np.ndarray:
    """Return the correlation that an estimate without any error would reach with a truth that has errors.

    The noise-free truth is taken to be the truth, drawn towards its mean by the share of its variance that is noise;
    400 times noise is added, and both are correlated.

    Parameters
    ----------
    truth, errors : array [G, Q]
        Values and their standard errors.
    ranks : bool
        Of the ranks.
    seed : int
        Of the noise.

    Returns
    -------
    ndarray [Q]

    Examples
    --------
    >>> agreement_ceiling(np.arange(9.0)[:, None], np.zeros((9, 1))).round(9).tolist()
    [1.0]
    """
    t, e = np.asarray(truth, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    variance = t.var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(np.clip(1 - (e**2).mean(0) / variance, 0, 1))
    free = t.mean(0) + np.sqrt(share) * (t - t.mean(0))
    noise = stream(seed, "agreement ceiling").normal(size=(400, *t.shape)) * e
    seen = np.moveaxis(free + noise, 0, -1)
    found = correlation(np.repeat(free[..., None], 400, axis=-1), seen, ranks)
    return np.nan_to_num(found).mean(-1)


def resampled_interval(
    statistic: Callable[[np.ndarray], float], count: int, seed: int = 0, resamples: int = 300
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic over units drawn with replacement.

    Parameters
    ----------
    statistic : callable
        Of the positions of the units drawn.
    count : int
        Units there are.
    seed : int
        Of the draws.
    resamples : int
        Draws.

    Returns
    -------
    tuple of float
        NaN where the statistic is.

    Examples
    --------
    >>> x = np.arange(100.0)
    >>> low, high = resampled_interval(lambda at: x[at].mean(), 100)
    >>> bool(low < x.mean() < high), round(high - low) in (10, 11, 12, 13)
    (True, True)
    """
    drawn = stream(seed, "resampled interval").integers(count, size=(resamples, count))
    found = np.array([statistic(at) for at in drawn])
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
