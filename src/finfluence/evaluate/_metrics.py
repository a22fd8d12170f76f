"""Metrics of detection and of agreement with the truth: pure functions of arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence._indices import same_rows
from finfluence.errors import ConfigError, DataError, explain


class Agreement(NamedTuple):
    """How estimates agree with the truth.

    Attributes
    ----------
    pearson, spearman
        Correlations; NaN where one side is constant.
    slope
        Truth over estimate, least squares through the origin: multiply estimates by it.
    slope_with_intercept, intercept
        The same with a free intercept.
    n
        Pairs used: both sides finite.
    """

    pearson: float
    spearman: float
    slope: float
    slope_with_intercept: float
    intercept: float
    n: int


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    r"""Return the average precision of a ranking, ties entered together; higher scores come first.

    .. math:: \mathrm{AP} = \sum_k (R_k - R_{k-1}) P_k

    Parameters
    ----------
    scores
        One per row; larger is more suspect. NaN ranks last.
    positive
        True where the row is what is sought.

    Returns
    -------
    float
        Between 0 and 1; a random ranking gives about the share of positives.

    Examples
    --------
    >>> round(average_precision([0.9, 0.8, 0.7, 0.1], [True, False, True, False]), 4)
    0.8333
    """
    s, y = _ranked(scores, positive)
    order = np.argsort(-s, kind="stable")
    found = np.cumsum(y[order])
    last = np.flatnonzero(np.r_[s[order][1:] != s[order][:-1], True])
    recall = found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * found[last] / (last + 1.0)))


def roc_auc(scores: ArrayLike, positive: ArrayLike) -> float:
    r"""Return the area under the ROC curve: the chance that a positive ranks above a negative, ties counted half.

    .. math:: \mathrm{AUC} = P(s_+ > s_-) + \tfrac{1}{2} P(s_+ = s_-)

    Parameters
    ----------
    scores
        One per row; larger is more suspect. NaN ranks last.
    positive
        True where the row is what is sought.

    Returns
    -------
    float
        Between 0 and 1, by chance 0.5; NaN where all rows are positive.

    Examples
    --------
    >>> roc_auc([0.9, 0.8, 0.7, 0.1], [True, False, True, False]), roc_auc([1.0, 1.0], [True, False])
    (0.75, 0.5)
    """
    s, y = _ranked(scores, positive)
    negatives = y.size - y.sum()
    if negatives == 0:
        return float("nan")
    ranks = stats.rankdata(s)
    return float((ranks[y].sum() - y.sum() * (y.sum() + 1) / 2) / (y.sum() * negatives))


def recall_at(scores: ArrayLike, positive: ArrayLike, k: int) -> float:
    """Return the share of positives among the k rows of highest score; a tie at the border counts in part.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ConfigError
        k is not between 0 and the number of rows.

    Examples
    --------
    >>> recall_at([3.0, 2.0, 2.0, 1.0], [True, True, False, False], 2)
    0.75
    """
    s, y = _ranked(scores, positive)
    if not 0 <= k <= s.size:
        raise ConfigError(
            explain(
                f"k between 0 and {s.size}",
                f"{k}",
                "k counted on another data set",
                "choose a k within the number of rows",
            )
        )
    if k == 0:
        return 0.0
    border = np.sort(s)[::-1][k - 1]
    above, tied = s > border, s == border
    hits = y[above].sum() + (k - above.sum()) * y[tied].sum() / tied.sum()
    return float(hits / y.sum())


def recall_flagged(flagged: ArrayLike, positive: ArrayLike) -> float:
    """Return the share of positives that were flagged.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> recall_flagged([True, False, True], [True, True, False])
    0.5
    """
    f, y = _masks(flagged, positive)
    _some_positive(y)
    return float((f & y).sum() / y.sum())


def false_discovery_proportion(flagged: ArrayLike, positive: ArrayLike) -> float:
    """Return the share of flagged rows that are not positive; 0 if nothing was flagged.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> false_discovery_proportion([True, True, False], [True, False, False])
    0.5
    """
    f, y = _masks(flagged, positive)
    return float((f & ~y).sum() / max(int(f.sum()), 1))


def agreement(estimate: ArrayLike, truth: ArrayLike) -> Agreement:
    """Return how estimates agree with the truth, over the pairs where both are finite.

    Parameters
    ----------
    estimate, truth
        Values of one shape, matched by position.

    Returns
    -------
    Agreement
        Slopes are truth over estimate: below one, the estimate overstates.

    Raises
    ------
    DataError
        Shapes differ, or fewer than three pairs are finite.

    Examples
    --------
    >>> a = agreement([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    >>> round(a.pearson, 9), round(a.slope, 9), round(a.intercept, 9), a.n
    (1.0, 2.0, 0.0, 3)
    """
    e, t = _pairs(estimate, truth, "estimate", "truth")
    usable = np.isfinite(e) & np.isfinite(t)
    e, t = e[usable], t[usable]
    if e.size < 3:
        raise DataError(
            explain(
                "at least three pairs of finite estimate and truth",
                f"{e.size}",
                "truth for too few subsets, or runs that diverged",
                "retrain without more subsets",
            )
        )
    square = float(e @ e)
    origin = float(e @ t) / square if square else np.nan
    if e.std() == 0.0:
        return Agreement(np.nan, np.nan, origin, np.nan, np.nan, e.size)
    slope = float(np.cov(e, t)[0, 1] / e.var(ddof=1))
    varied = t.std() > 0.0
    return Agreement(
        float(stats.pearsonr(e, t)[0]) if varied else np.nan,
        float(stats.spearmanr(e, t)[0]) if varied else np.nan,
        origin,
        slope,
        float(t.mean() - slope * e.mean()),
        e.size,
    )


def spread_ratio(estimate: ArrayLike, truth: ArrayLike) -> float:
    """Return the median of true over estimated spread; above one, the estimate is too sure of itself.

    Returns
    -------
    float
        Over the pairs where both are finite and the estimate is above zero.

    Raises
    ------
    DataError
        No estimated spread is above zero.

    Examples
    --------
    >>> spread_ratio([1.0, 2.0, 4.0], [1.1, 2.2, 4.4])
    1.1
    """
    e, t = _pairs(estimate, truth, "estimated spread", "true spread")
    usable = np.isfinite(e) & np.isfinite(t) & (e > 0.0)
    if not usable.any():
        raise DataError(
            explain(
                "some spreads above zero",
                f"none of {e.size}",
                "a query that training randomness does not move",
                "choose another query",
            )
        )
    return float(np.median(t[usable] / e[usable]))


def coverage(lower: ArrayLike, upper: ArrayLike, truth: ArrayLike) -> float:
    """Return the share of intervals that hold the truth, where all three are numbers.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    DataError
        No interval and truth are all numbers.

    Examples
    --------
    >>> coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0])
    0.5
    """
    low, high = _pairs(lower, upper, "lower", "upper")
    low, value = _pairs(lower, truth, "lower", "truth")
    usable = ~(np.isnan(low) | np.isnan(high) | np.isnan(value))
    if not usable.any():
        raise DataError(
            explain(
                "some intervals and truths that are numbers",
                f"none of {low.size}",
                "runs that diverged, or one run where an interval needs two",
                "retrain the missing runs",
            )
        )
    return float(np.mean((low <= value)[usable] & (value <= high)[usable]))


def _ranked(scores: ArrayLike, positive: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    s, y = _pairs(scores, positive, "scores", "positive")
    _some_positive(y)
    return np.where(np.isnan(s), -np.inf, s), y.astype(bool)


def _masks(flagged: ArrayLike, positive: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    f, y = _pairs(flagged, positive, "flagged", "positive")
    return f.astype(bool), y.astype(bool)


def _some_positive(y: np.ndarray) -> None:
    if not y.any():
        raise DataError(
            explain(
                "at least one positive row",
                f"none of {y.size}",
                "no error was planted, or the mask is of another split",
                "plant some, or report false discoveries alone",
            )
        )


def _pairs(a: ArrayLike, b: ArrayLike, name_a: str, name_b: str) -> tuple[np.ndarray, np.ndarray]:
    same_rows(**{name_a: a, name_b: b})
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(
            explain(
                f"{name_a} and {name_b} of one shape",
                f"{first.shape} and {second.shape}",
                "values of another split or query",
                "match them by id first",
            )
        )
    return first.ravel(), second.ravel()
