"""Intervals that carry their own level and kind."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence._indices import same_rows
from finfluence.errors import DataError, explain
from finfluence.stats._checks import check_level, sample


@dataclass(frozen=True)
class Interval:
    """An estimate between two bounds.

    Attributes
    ----------
    estimate, lower, upper
        In the unit of what was measured. Floats, or arrays of one shape.
    level
        Chance that the interval covers the truth, if its assumptions hold.
    kind
        How it was made: "t", "paired t", "crossed t", "Welch", "bootstrap percentile" or "DeLong probit".
    """

    estimate: float | np.ndarray
    lower: float | np.ndarray
    upper: float | np.ndarray
    level: float
    kind: str

    def __str__(self) -> str:
        if np.ndim(self.estimate):
            return f"{np.size(self.estimate)} intervals, {self.level:.0%} {self.kind}"
        return f"{self.estimate:.4g} [{self.lower:.4g}, {self.upper:.4g}] ({self.level:.0%} {self.kind})"


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    r"""Return the mean of independent values with its t interval.

    .. math:: \bar x \pm t_{n-1}\, s/\sqrt n

    Parameters
    ----------
    values
        At least two independent values, for instance one held-out loss per seed.
    level
        Wanted coverage.

    Returns
    -------
    Interval

    Examples
    --------
    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2 [-0.4841, 4.484] (95% t)
    """
    x = _checked(values, level)
    half = stats.t.ppf((1 + level) / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size)
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), level, "t")


def paired_difference(after: ArrayLike, before: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return mean(after - before) with its paired t interval; use it where the i-th values share a seed.

    Parameters
    ----------
    after, before
        Values of equal length, matched by position.
    level
        Wanted coverage.

    Returns
    -------
    Interval
        Positive where `after` is larger.

    Raises
    ------
    DataError
        The samples differ in length.

    Examples
    --------
    >>> print(paired_difference([2.0, 3.0, 5.0], [1.0, 2.0, 3.0]))
    1.333 [-0.1009, 2.768] (95% paired t)
    """
    same_rows(after=after, before=before)
    a, b = _checked(after, level), _checked(before, level)
    if a.size != b.size:
        raise DataError(
            explain(
                "as many values after as before, matched by seed",
                f"{a.size} and {b.size}",
                "some runs are missing on one side",
                "train the missing seeds, or use welch_difference for unmatched runs",
            )
        )
    whole = mean_interval(a - b, level=level)
    return Interval(whole.estimate, whole.lower, whole.upper, level, "paired t")


def welch_difference(after: ArrayLike, before: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return mean(after) - mean(before) with Welch's t interval, for independent runs of unequal variance.

    Parameters
    ----------
    after, before
        At least two values each.
    level
        Wanted coverage.

    Returns
    -------
    Interval
        Positive where `after` is larger.

    Examples
    --------
    >>> print(welch_difference([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]))
    3 [0.733, 5.267] (95% Welch)
    """
    a, b = _checked(after, level), _checked(before, level)
    gap = float(a.mean() - b.mean())
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    if va + vb == 0.0:
        return Interval(gap, gap, gap, level, "Welch")
    freedom = (va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1))
    half = float(stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(va + vb))
    return Interval(gap, gap - half, gap + half, level, "Welch")


def _checked(values: ArrayLike, level: float) -> np.ndarray:
    check_level(level)
    return sample(values)
