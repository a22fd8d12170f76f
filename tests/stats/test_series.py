"""Correlated series: effective size, blocks, and intervals that hold where plain ones do not."""

import numpy as np
import pytest
from scipy.signal import lfilter

from finfluence.errors import DataError
from finfluence.stats import (
    auc_probit,
    block_bootstrap_interval,
    block_length,
    effective_size,
    mean_interval,
    series_mean_interval,
)


def autoregressive(rho, n, size, seed):
    noise = np.random.default_rng(seed).normal(size=(size, n + 300))
    return lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 300:] * np.sqrt(1 - rho**2)


def covered(intervals, truth=0.0):
    return np.mean([i.lower <= truth <= i.upper for i in intervals])


def mean(x):
    return x.mean(axis=-1)


# 200 series; the median's standard error is 2 % of its value or less.
@pytest.mark.parametrize(("rho", "expected"), [(0.0, 1000.0), (0.5, 1000 / 3), (0.9, 52.6)])
def test_effective_size_of_an_autoregression(rho, expected):
    sizes = [effective_size(x) for x in autoregressive(rho, 1000, 200, 0)]
    assert np.median(sizes) == pytest.approx(expected, rel=0.1)


def test_an_alternating_series_gets_no_credit():
    x = autoregressive(-0.8, 400, 1, 1)[0]
    assert effective_size(x) == 400.0
    assert effective_size(5 * x + 3) == pytest.approx(effective_size(x))


def test_block_length_grows_with_correlation():
    lengths = [
        np.median([block_length(x) for x in autoregressive(rho, 500, 40, 2)]) for rho in (0.0, 0.5, 0.9)
    ]
    assert 1.0 <= lengths[0] < 4.0 < lengths[1] < lengths[2] <= 3 * np.sqrt(500) + 1


# 300 series of lag-1 correlation 0.9: standard error of the coverage 0.013 at 0.95; five of them below (1e-6).
def test_effective_size_restores_coverage():
    series = autoregressive(0.9, 1000, 300, 3)
    assert covered(map(series_mean_interval, series)) >= 0.95 - 5 * 0.013
    assert covered(map(mean_interval, series)) <= 0.5


def test_block_bootstrap_covers_more_than_half_of_what_is_missing():
    series = autoregressive(0.9, 1000, 60, 4)
    intervals = [block_bootstrap_interval(mean, x, resamples=200) for x in series]
    assert covered(intervals) >= 0.75  # 0.88 in truth; 0.75 is three standard errors below
    assert intervals[0].kind.startswith("stationary bootstrap, blocks of ")


def test_blocks_of_one_are_the_plain_bootstrap():
    x = np.random.default_rng(5).normal(size=400)
    interval = block_bootstrap_interval(mean, x, block=1, resamples=2000)
    plain = mean_interval(x)
    assert interval.upper - interval.lower == pytest.approx(plain.upper - plain.lower, rel=0.08)


def test_series_resampled_together_keep_what_they_share():
    shared = autoregressive(0.9, 300, 1, 6)[0]
    x, y = shared + np.random.default_rng(7).normal(size=(2, 300)) * 0.1
    apart, together = (
        block_bootstrap_interval(lambda a, b: mean(b) - mean(a), x, y, together=t, resamples=300)
        for t in (False, True)
    )
    assert together.upper - together.lower < 0.3 * (apart.upper - apart.lower)


def test_seeds():
    x, y = autoregressive(0.5, 100, 2, 8)
    one, same, other = (block_bootstrap_interval(auc_probit, x, y, resamples=200, seed=s) for s in (0, 0, 1))
    assert one == same and one.lower != other.lower


def test_words_of_the_errors():
    with pytest.raises(DataError, match=r"at least 20 finite values\n  got: 5 value"):
        effective_size(np.arange(5.0))
    with pytest.raises(DataError, match="values that differ between runs\n  got: 50 values"):
        series_mean_interval(np.ones(50))
    with pytest.raises(
        DataError,
        match=r"(?s)series of one length.*got: \[30, 40\] values.*steps are missing.*together=False",
    ):
        block_bootstrap_interval(auc_probit, np.arange(30.0), np.arange(40.0), together=True)
