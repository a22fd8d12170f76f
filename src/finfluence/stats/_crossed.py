"""Means over training runs and rows at once: an interval for other trainings and for other rows."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence.errors import DataError, explain
from finfluence.stats._checks import check_level
from finfluence.stats._intervals import Interval


def crossed_interval(values: ArrayLike, strata: ArrayLike | None = None, *, level: float = 0.95) -> Interval:
    r"""Return the mean over strata of the mean over runs and rows, with an interval for both kinds of chance.

    .. math:: \bar y = \frac1K \sum_k \bar y_k, \quad
              \mathrm{se}^2 = \frac{s^2_\text{runs}}{R} + \frac{1}{K^2} \sum_k \frac{s^2_{\text{rows}, k}}{n_k},
              \quad \bar y \pm t_\nu\, \mathrm{se}

    with s²_runs the variance of the R run means, s²_rows,k that of the n_k row means of stratum k, and ν by Welch and
    Satterthwaite.

    Parameters
    ----------
    values : array [R, n]
        One value for each run (independent trainings) and row (drawn independently). For the difference of two
        versions that share seeds: the difference, run by run and row by row.
    strata : array [n], optional
        Stratum of each row, of which each weighs the same: the classes, for a balanced accuracy. One stratum otherwise.
    level : float
        Wanted coverage.

    Returns
    -------
    Interval

    Raises
    ------
    DataError
        Fewer than two runs, or fewer than two rows in a stratum.

    Notes
    -----
    Chance that runs and rows share (a run that errs on a row by its own) is counted in both parts, which makes the
    interval wider by less than a part in min(R, n).

    References
    ----------
    Satterthwaite (1946), equation 17.

    Examples
    --------
    >>> print(crossed_interval([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]))
    2.5 [0.01227, 4.988] (95% crossed t)
    """
    check_level(level)
    y = np.asarray(values, dtype=np.float64)
    groups = np.zeros(y.shape[-1], dtype=np.int64) if strata is None else np.asarray(strata)
    _check(y, groups)
    member = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(member)
    of_runs = np.stack([y[:, member == k].mean(1) for k in range(len(counts))], axis=1).mean(1)
    of_rows = y.mean(0)
    spread = np.array([of_rows[member == k].var(ddof=1) for k in range(len(counts))])
    parts = np.array([of_runs.var(ddof=1) / len(y), (spread / counts).sum() / len(counts) ** 2])
    middle, total = float(of_runs.mean()), float(parts.sum())
    if not total > 0.0:
        return Interval(middle, middle, middle, level, "crossed t")
    freedom = total**2 / float((parts**2 / [len(y) - 1, y.shape[1] - len(counts)]).sum())
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    return Interval(middle, middle - half, middle + half, level, "crossed t")


def _check(y: np.ndarray, strata: np.ndarray) -> None:
    fits = y.ndim == 2 and strata.shape == y.shape[1:] and np.isfinite(y).all()
    if not fits or len(y) < 2 or (np.unique(strata, return_counts=True)[1] < 2).any() or not y.shape[1]:
        raise DataError(
            explain(
                "finite values [runs, rows] of two or more runs, with two or more rows in every stratum",
                f"shape {y.shape}, strata of shape {strata.shape}",
                "a run diverged, a class has a single row, or runs and rows are exchanged",
                "leave out runs that diverged and classes of one row",
            )
        )
