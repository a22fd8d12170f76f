"""P-values by permutation: exact where few arrangements exist, else by (b+1)/(m+1)."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu, permutation_test

from finfluence._seeds import stream
from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats._checks import check_count, one_pair, pair, varying

Alternative = Literal["two-sided", "greater", "less"]
Statistic = Callable[[np.ndarray, np.ndarray], Any]

_TIE = 1e-12
_SPAN = 2**22  # values drawn at once


@dataclass(frozen=True)
class PermutationTest:
    """Answer of a permutation test.

    Attributes
    ----------
    p_value
        Chance, if the rows change nothing, of a statistic at least as extreme. Never zero.
    statistic
        The observed statistic, positive where values without the rows are larger.
    arrangements
        How many arrangements were looked at.
    exact
        Whether these are all there are; otherwise p = (b + 1)/(m + 1) for b of m drawn at random.
    kind
        "two samples", "pairs" or "blocks".
    """

    p_value: float
    statistic: float
    arrangements: int
    exact: bool
    kind: str


def mean_difference(with_rows: np.ndarray, without_rows: np.ndarray) -> np.ndarray:
    """Return mean(without) - mean(with) along the last axis.

    Returns
    -------
    array

    Examples
    --------
    >>> float(mean_difference([1.0, 2.0], [4.0, 5.0]))
    3.0
    """
    return np.mean(without_rows, axis=-1) - np.mean(with_rows, axis=-1)


def permutation_p(
    with_rows: ArrayLike,
    without_rows: ArrayLike,
    *,
    statistic: Statistic = mean_difference,
    paired: bool = False,
    alternative: Alternative = "two-sided",
    resamples: int = 9999,
    seed: int = 0,
) -> PermutationTest:
    r"""Test by permutation whether the two samples have one law.

    .. math:: p = \frac{b + 1}{m + 1}, \quad b = \#\{\pi : T_\pi \ge T\}, \qquad
              p_{\text{two-sided}} = \min(1, 2 \min(p_\ge, p_\le))

    Parameters
    ----------
    with_rows, without_rows
        One-dimensional samples.
    statistic
        Function of two samples along the last axis: the mean difference (default), `auc`, `pooled_d`, ...
    paired
        The i-th values share a seed: swap within pairs alone.
    alternative
        "greater": values without the rows are larger; "less": smaller; "two-sided" (default).
    resamples
        Arrangements drawn; if no more than this many exist, all are enumerated and p is exact.
    seed
        Names the stream of random numbers.

    Returns
    -------
    PermutationTest

    Raises
    ------
    DataError
        NaN, too few values, unmatched pairs, or samples of one constant.

    Notes
    -----
    Valid at any n and for any law, if under the null the two samples can be exchanged. With unequal
    variances and unequal n a test of means by permutation is not; Welch's is nearly.

    References
    ----------
    Phipson and Smyth (2010) for the plus one; `scipy.stats.permutation_test` does the work.

    Examples
    --------
    >>> found = permutation_p([1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0])
    >>> found.p_value == 2 / 70, found.exact
    (True, True)
    """
    _check(alternative, resamples)
    x, y = one_pair(with_rows, without_rows, least=2)
    varying(np.concatenate([x, y]))
    if paired:
        _matched(x, y)
    total = 2**x.size if paired else math.comb(x.size + y.size, x.size)
    found = permutation_test(
        (x, y), lambda a, b, axis: statistic(a, b), permutation_type="samples" if paired else "independent",
        vectorized=True, n_resamples=resamples, batch=max(1, _SPAN // (x.size + y.size)),
        alternative=alternative, axis=-1, random_state=stream(seed, "permutation"),
    )  # fmt: skip
    exact = total <= resamples
    kind = "pairs" if paired else "two samples"
    return PermutationTest(
        float(found.pvalue), float(found.statistic), total if exact else resamples, exact, kind
    )


def block_permutation_p(
    with_rows: ArrayLike,
    without_rows: ArrayLike,
    blocks: ArrayLike | int,
    *,
    statistic: Statistic = mean_difference,
    alternative: Alternative = "two-sided",
    resamples: int = 9999,
    seed: int = 0,
) -> PermutationTest:
    """Test two series recorded at the same steps by swapping them in whole blocks.

    Parameters
    ----------
    with_rows, without_rows
        Values of equal length, matched by position.
    blocks
        Length of consecutive blocks (for a series: at least a few correlation times, `block_length` says
        how many), or a label per position: a seed, an epoch, a machine.
    statistic, alternative, resamples, seed
        As in `permutation_p`.

    Returns
    -------
    PermutationTest
        Exact if 2^blocks <= resamples.

    Raises
    ------
    DataError
        Fewer than 6 blocks: no arrangement could reach p < 0.05 two-sided.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = block_permutation_p(rng.normal(size=100), rng.normal(size=100) + 1, 10)
    >>> found.p_value == 2 / 2**10, found.exact
    (True, True)
    """
    _check(alternative, resamples)
    x, y = one_pair(with_rows, without_rows, least=2)
    varying(np.concatenate([x, y]))
    _matched(x, y)
    label, n_blocks = _labels(blocks, x.size)
    exact = n_blocks < 31 and 2**n_blocks <= resamples
    rng = stream(seed, "block permutation")
    if exact:
        flips = np.array(list(itertools.product((False, True), repeat=n_blocks)))
    else:
        flips = rng.integers(2, size=(resamples, n_blocks)).astype(bool)
    observed = float(statistic(x, y))
    null = np.empty(len(flips))
    step = max(1, _SPAN // x.size)
    for start in range(0, len(flips), step):
        swapped = flips[start : start + step][:, label]
        null[start : start + step] = statistic(np.where(swapped, y, x), np.where(swapped, x, y))
    slack = _TIE * max(1.0, abs(observed))
    above, below = int((null >= observed - slack).sum()), int((null <= observed + slack).sum())
    added = 0 if exact else 1
    tails = {
        side: (count + added) / (len(null) + added) for side, count in (("greater", above), ("less", below))
    }
    p = min(1.0, 2.0 * min(tails.values())) if alternative == "two-sided" else tails[alternative]
    return PermutationTest(p, observed, len(null), exact, "blocks")


def rank_p(with_rows: ArrayLike, without_rows: ArrayLike) -> np.ndarray:
    r"""Return the two-sided p-value of the AUC under equal laws (Mann and Whitney).

    .. math:: U = nm\,\mathrm{AUC}, \quad \text{exact without ties for } \min(n, m) \le 8, \text{ else normal}

    Parameters
    ----------
    with_rows, without_rows
        Samples along the last axis; leading axes broadcast, one p-value each.

    Returns
    -------
    ndarray
        1 where all values are equal.

    Notes
    -----
    The exact law counts arrangements without ties; larger or tied samples use the normal approximation with
    the correction for ties and continuity. It tests equal laws: two laws of AUC one half and unequal spread
    are rejected more or less often than the level says.

    References
    ----------
    Mann and Whitney (1947); `scipy.stats.mannwhitneyu` does the work.

    Examples
    --------
    >>> float(rank_p([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]))
    0.1
    """
    x, y = pair(with_rows, without_rows)
    n, m = x.shape[-1], y.shape[-1]
    pooled = np.sort(np.concatenate([x, y], axis=-1), axis=-1)
    tied = (np.diff(pooled, axis=-1) == 0.0).any(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = mannwhitneyu(x, y, axis=-1, method="asymptotic").pvalue
    if min(n, m) > 8 or tied.all():
        p = normal
    else:
        p = np.where(tied, normal, mannwhitneyu(x, y, axis=-1, method="exact").pvalue)
    return np.where(pooled[..., 0] == pooled[..., -1], 1.0, p)


def _labels(blocks: ArrayLike | int, size: int) -> tuple[np.ndarray, int]:
    if np.ndim(blocks) == 0:
        check_count("the block length", blocks, 1)  # type: ignore[arg-type]
        label = np.arange(size) // int(blocks)  # type: ignore[arg-type]
    else:
        label = np.unique(np.asarray(blocks), return_inverse=True)[1].ravel()
    n_blocks = int(label.max()) + 1 if label.size else 0
    if label.size != size or n_blocks < 6:
        raise DataError(
            explain(
                "one block label per value, and at least 6 blocks",
                f"{label.size} labels for {size} values, {n_blocks} blocks",
                "a series too short for its correlation, or labels of another series",
                "record more steps, or pool several runs",
            )
        )
    return label, n_blocks


def _matched(x: np.ndarray, y: np.ndarray) -> None:
    if x.size != y.size:
        raise DataError(
            explain(
                "as many values with as without the rows, matched by position",
                f"{x.size} and {y.size}",
                "some runs or steps are missing on one side",
                "leave out the unmatched ones on both sides, or use permutation_p with paired=False",
            )
        )


def _check(alternative: str, resamples: int) -> None:
    check_count("resamples", resamples, 19)
    if alternative not in get_args(Alternative):
        raise ConfigError(
            explain(
                f"alternative to be one of {', '.join(get_args(Alternative))}",
                f"{alternative!r}",
                "a misspelt option",
                'leave alternative="two-sided" unless the direction was known before the runs',
            )
        )
