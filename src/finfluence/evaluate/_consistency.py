"""Whether two runs name the same rows, and the right ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from finfluence._indices import same_rows
from finfluence.errors import ConfigError, DataError, explain


def top_ids(scores: ArrayLike, ids: Sequence[Any] | np.ndarray, k: int) -> set[Any]:
    """Return the ids of the k highest scores; NaN ranks last, ties go to the smaller position.

    Returns
    -------
    set
        k ids, fewer where there are fewer rows.

    Raises
    ------
    DataError
        Not one id for each score.

    Examples
    --------
    >>> sorted(top_ids([0.1, 0.9, 0.5], ["a", "b", "c"], 2))
    ['b', 'c']
    """
    same_rows(scores=scores, ids=ids)
    s = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, neginf=-np.inf, posinf=np.inf)
    if s.shape != np.shape(ids):
        raise DataError(
            explain(
                "one id per score",
                f"{len(ids)} ids, {s.size} scores",
                "scores of another split",
                "pass the ids that the scores belong to",
            )
        )
    return set(np.asarray(ids)[np.argsort(-s, kind="stable")[:k]].tolist())


def jaccard(first: set[Any], second: set[Any]) -> float:
    """Return the size of the intersection over that of the union; 1 for two empty sets.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> jaccard({1, 2, 3}, {2, 3, 4})
    0.5
    """
    union = first | second
    return len(first & second) / len(union) if union else 1.0


def jaccard_by_chance(k: int, n: int) -> float:
    """Return the Jaccard index of two random k-subsets of n rows, k / (2n - k).

    Returns
    -------
    float
        Expected size of the intersection over that of the union.

    Raises
    ------
    ConfigError
        k is not between 0 and n, or there are no rows.

    Examples
    --------
    >>> [round(jaccard_by_chance(k, 100), 4) for k in (5, 10, 20)]
    [0.0256, 0.0526, 0.1111]
    """
    if not 0 <= k <= n or n == 0:
        raise ConfigError(
            explain("0 <= k <= n", f"k={k}, n={n}", "k counted on another data set", "choose a smaller k")
        )
    return k / (2 * n - k)


def kendalls_w(scores: ArrayLike) -> float:
    r"""Return Kendall's coefficient of concordance of several rankings of the same rows, corrected for ties.

    .. math:: W = \frac{12 \sum_i (R_i - \bar R)^2}{m^2 (n^3 - n) - m \sum_j \sum_t (t^3 - t)}

    R_i is the sum of the ranks of row i over m rankings, t the sizes of ties. For two rankings W = (1 + ρ) / 2, ρ
    Spearman's correlation; of random rankings it is 1/m on average.

    Parameters
    ----------
    scores : array [m, n]
        Of each ranking; all of them finite.

    Returns
    -------
    float
        From 0 to 1; NaN where every ranking is one tie.

    Raises
    ------
    DataError
        Fewer than two rankings of two rows, or scores that are not finite.

    References
    ----------
    Kendall and Babington Smith, "The problem of m rankings" (1939).

    Examples
    --------
    >>> kendalls_w([[1, 2, 3, 4], [1, 2, 3, 4]]), kendalls_w([[1, 2, 3, 4], [4, 3, 2, 1]])
    (1.0, 0.0)
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 2 or min(s.shape) < 2 or not np.isfinite(s).all():
        raise DataError(
            explain(
                "finite scores [rankings, rows], two or more of each",
                f"shape {s.shape}, {int((~np.isfinite(s)).sum())} not finite",
                "one ranking has nothing to agree with",
                "rank by another seed, too",
            )
        )
    m, n = s.shape
    total = rankdata(s, axis=1).sum(0)
    ties = sum(
        int((c.astype(np.int64) ** 3 - c).sum()) for c in (np.unique(r, return_counts=True)[1] for r in s)
    )
    most = m**2 * (n**3 - n) - m * ties
    return float(12 * ((total - total.mean()) ** 2).sum() / most) if most else float("nan")


def consistent_and_correct(first: set[Any], second: set[Any], truth: set[Any]) -> float:
    r"""Return the joint score of two runs: consistently finding the right rows. At most their Jaccard index.

    .. math:: |A \cap B \cap T| / |A \cup B|

    Returns
    -------
    float
        From 0 to 1; 0 for two empty sets.

    Examples
    --------
    >>> consistent_and_correct({1, 2, 3}, {2, 3, 4}, {2, 9})
    0.25
    """
    union = first | second
    return len(first & second & truth) / len(union) if union else 0.0
