"""Series of correlated values: how many independent ones they are worth, and intervals that know it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence._seeds import stream
from finfluence.errors import DataError, explain
from finfluence.stats._checks import check_count, check_level, sample, varying
from finfluence.stats._intervals import Interval

_SPAN = 2**21  # values drawn at once
_SHORTEST = 20


def effective_size(series: ArrayLike) -> float:
    r"""Return how many independent values say as much about the mean as the series does.

    .. math:: n_{\mathrm{eff}} = \frac{n}{1 + 2\sum_{k \ge 1} \rho_k}

    The sum stops by Geyer's rule: sums of neighbouring pairs of autocorrelations, made monotone, until one
    is negative.

    Parameters
    ----------
    series
        At least 20 finite values in the order in which they were recorded.

    Returns
    -------
    float
        Between 1 and n: a series that alternates is not credited with more than its length.

    Raises
    ------
    DataError
        Too short, not finite, or constant.

    References
    ----------
    Geyer, "Practical Markov chain Monte Carlo" (1992), section 3.3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> 900 < effective_size(rng.normal(size=1000)) <= 1000
    True
    """
    x = _series(series)
    rho = _autocorrelation(x, x.size - 1)
    pairs = rho[0 : 2 * (x.size // 2)].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs < 0.0)) if (pairs < 0.0).any() else pairs.size
    time = 2.0 * float(np.minimum.accumulate(pairs[:stop]).sum()) - 1.0
    return x.size / min(max(time, 1.0), float(x.size))


def block_length(series: ArrayLike) -> float:
    r"""Return the automatic mean block length of the stationary bootstrap.

    .. math:: b = \left(\frac{2 \hat G^2}{\hat D}\, n\right)^{1/3}, \quad
              \hat G = \sum_k \lambda(k/M)\,|k|\,\hat R_k,\ \hat D = 2\Big(\sum_k \lambda(k/M)\hat R_k\Big)^2

    Parameters
    ----------
    series
        At least 20 finite values in the order in which they were recorded.

    Returns
    -------
    float
        At least 1, at most min(3 sqrt(n), n/3).

    References
    ----------
    Politis and White (2004); Patton, Politis and White (2009) for the corrected constant.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> block_length(rng.normal(size=1000)) < 5
    True
    """
    x = _series(series)
    n = x.size
    quiet = max(5, math.ceil(math.log10(n)))
    furthest = math.ceil(math.sqrt(n)) + quiet
    covariance = _autocorrelation(x, min(furthest, n - 1)) * x.var()
    rho = covariance / covariance[0]
    small = np.abs(rho[1:]) < 2.0 * math.sqrt(math.log10(n) / n)
    runs = np.flatnonzero(np.convolve(small, np.ones(quiet), "valid") == quiet)
    if runs.size:
        last = max(int(runs[0]), 1)
    else:
        last = int(np.flatnonzero(~small)[-1]) + 1
    width = min(2 * last, covariance.size - 1)
    lag = np.arange(-width, width + 1)
    weight = np.clip(2.0 * (1.0 - np.abs(lag) / width), 0.0, 1.0)  # flat to one half, then linear to zero
    spread = weight * covariance[np.abs(lag)]
    slope, level = float((np.abs(lag) * spread).sum()), float(spread.sum())
    most = math.ceil(min(3.0 * math.sqrt(n), n / 3.0))
    if level <= 0.0:
        return float(most)
    return float(np.clip((slope**2 / level**2 * n) ** (1.0 / 3.0), 1.0, most))


def series_mean_interval(series: ArrayLike, *, level: float = 0.95) -> Interval:
    r"""Return the mean of a correlated series with a t interval on its effective size.

    .. math:: \bar x \pm t_{n_{\mathrm{eff}}-1}\, s/\sqrt{n_{\mathrm{eff}}}

    Parameters
    ----------
    series
        At least 20 finite values in the order in which they were recorded, stationary.
    level
        Wanted coverage.

    Returns
    -------
    Interval

    Raises
    ------
    DataError
        Too short, not finite, or constant.

    Notes
    -----
    A trend is no correlation: a series that has not settled gives a wide interval around a mean that means
    little. Drop the first steps of a recording.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> interval = series_mean_interval(rng.normal(size=1000))
    >>> bool(interval.lower < 0 < interval.upper)
    True
    """
    check_level(level)
    x, size = _series(series), effective_size(series)
    # the effective size is itself estimated from the same lags: its own squared spread s/sqrt(n_eff)
    # takes as many degrees of freedom as there are effective values
    half = stats.t.ppf((1 + level) / 2, max(size - 1.0, 1.0)) * x.std(ddof=1) / math.sqrt(size)
    mean = float(x.mean())
    return Interval(mean, mean - float(half), mean + float(half), level, f"t, effective size {size:.0f}")


def block_bootstrap_interval(
    statistic: Callable[..., Any],
    *series: ArrayLike,
    block: float | None = None,
    together: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of one or more correlated series with its stationary-bootstrap interval.

    Blocks of geometric length start anywhere and wrap around, so resampled series are stationary.

    Parameters
    ----------
    statistic
        Function of the series along the last axis (every estimate of mu here; `np.mean` with axis=-1).
    *series
        Values in the order in which they were recorded.
    block
        Mean block length; None: `block_length` of each series (the longest of them, if `together`).
    together
        The series were recorded at the same steps: resample the same steps of all.
    level, resamples, seed
        As in `bootstrap_interval`.

    Returns
    -------
    Interval
        Percentile interval; `kind` tells the block length. Too narrow where a series is worth few
        independent values: at lag-1 correlation 0.9 and n = 1,000 see docs/explanation/statistics.md.

    Raises
    ------
    DataError
        Series that are to be resampled together differ in length.

    References
    ----------
    Politis and Romano, "The stationary bootstrap" (1994).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> interval = block_bootstrap_interval(lambda x: x.mean(axis=-1), rng.normal(size=400))
    >>> bool(interval.lower < 0 < interval.upper)
    True
    """
    check_level(level)
    check_count("resamples", resamples, 2)
    arrays = [_series(s) for s in series]
    if together and len({a.size for a in arrays}) > 1:
        raise DataError(
            explain(
                "series of one length to resample together",
                f"{[a.size for a in arrays]} values",
                "steps are missing in one of them",
                "leave out those steps in all, or pass together=False",
            )
        )
    if block is None:
        lengths = [block_length(a) for a in arrays]
    else:
        check_count("the block length", math.ceil(block), 1)
        lengths = [max(float(block), 1.0)] * len(arrays)
    if together:
        lengths = [max(lengths)] * len(arrays)
    rng = stream(seed, "block bootstrap")
    values = []
    step = max(1, _SPAN // sum(a.size for a in arrays))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        picks = [_stationary(rng, count, a.size, b) for a, b in zip(arrays, lengths, strict=True)]
        if together:
            picks = [picks[0]] * len(arrays)
        values.append(np.asarray(statistic(*(a[p] for a, p in zip(arrays, picks, strict=True)))))
    lower, upper = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    kind = "stationary bootstrap, blocks of " + ", ".join(f"{b:.0f}" for b in dict.fromkeys(lengths))
    return Interval(float(statistic(*arrays)), float(lower), float(upper), level, kind)


def _stationary(rng: np.random.Generator, count: int, n: int, block: float) -> np.ndarray:
    """Return positions [count, n]: each continues the one before, or jumps with chance 1/block."""
    jump = rng.random((count, n)) < 1.0 / block
    jump[:, 0] = True
    start = rng.integers(n, size=(count, n))
    position = np.arange(n)
    since = np.maximum.accumulate(np.where(jump, position, 0), axis=1)
    return (np.take_along_axis(start, since, axis=1) + position - since) % n


def _autocorrelation(x: np.ndarray, lags: int) -> np.ndarray:
    """Return the autocorrelations of a series at lags 0 to `lags`; what they are taken from is slow to import."""
    from statsmodels.tsa.stattools import acf

    found: np.ndarray = acf(x, nlags=lags, fft=True)
    return found


def _series(values: ArrayLike) -> np.ndarray:
    x = sample(values, least=_SHORTEST)
    varying(x)
    return x
