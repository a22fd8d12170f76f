"""Whether two runs name the same rows, and the right ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
