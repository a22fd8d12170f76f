"""Permutation p-values: against enumeration by hand, their uniformity, seeds and words."""

import itertools

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import kstest, mannwhitneyu, norm, ttest_ind

from finfluence.errors import ConfigError, DataError
from finfluence.stats import (
    auc,
    block_permutation_p,
    delong_interval,
    mean_difference,
    permutation_p,
    pooled_d,
    rank_p,
    welch_difference,
)


def test_exact_p_equals_the_slow_enumeration():
    x, y = np.array([1.0, 4.0, 2.5]), np.array([3.0, 6.0, 5.5, 7.0])
    pooled, seen = np.r_[x, y], y.mean() - x.mean()
    null = []
    for first in itertools.combinations(range(7), 3):
        arm = np.isin(np.arange(7), first)
        null.append(pooled[~arm].mean() - pooled[arm].mean())
    null = np.array(null)
    expected = min(1.0, 2 * min((null >= seen - 1e-12).mean(), (null <= seen + 1e-12).mean()))
    found = permutation_p(x, y)
    assert (found.p_value, found.exact, found.arrangements) == (pytest.approx(expected), True, 35)
    assert permutation_p(x, y, alternative="greater").p_value == pytest.approx((null >= seen - 1e-12).mean())


def test_paired_p_is_the_sign_flip_test():
    rng = np.random.default_rng(0)
    x = rng.normal(size=8)
    y = x + rng.normal(size=8) + 0.5
    signs = np.array(list(itertools.product((1, -1), repeat=8)))
    null = (signs * (y - x)).mean(1)
    seen = (y - x).mean()
    expected = min(1.0, 2 * min((null >= seen - 1e-12).mean(), (null <= seen + 1e-12).mean()))
    found = permutation_p(x, y, paired=True)
    assert (found.p_value, found.exact, found.kind) == (pytest.approx(expected), True, "pairs")
    assert block_permutation_p(x, y, 1).p_value == pytest.approx(expected)
    assert block_permutation_p(x, y, np.arange(8)).p_value == pytest.approx(expected)


def test_random_p_counts_the_observed_one():
    rng = np.random.default_rng(1)
    found = permutation_p(rng.normal(size=60), rng.normal(size=60) + 5, resamples=99)
    assert (found.p_value, found.exact, found.arrangements) == (2 / 100, False, 99)
    blocks = block_permutation_p(rng.normal(size=400), rng.normal(size=400) + 5, 10, resamples=99)
    assert (blocks.p_value, blocks.exact) == (2 / 100, False)


def test_seeds_and_other_statistics():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=30), rng.normal(size=30) + 0.3
    for statistic in (auc, pooled_d, mean_difference):
        one, same, other = (
            permutation_p(x, y, statistic=statistic, resamples=499, seed=s) for s in (0, 0, 1)
        )
        assert one == same and one.p_value != other.p_value
        assert one.statistic == pytest.approx(float(statistic(x, y)))
    found = [block_permutation_p(x, y - 0.3, 2, resamples=499, seed=s) for s in (0, 0, 1, 2, 3)]
    assert found[0] == found[1] and len({f.p_value for f in found}) > 1


def test_rank_p_is_scipys_and_batched():
    rng = np.random.default_rng(3)
    for n in (6, 30):
        x, y = rng.normal(size=(2, 4, n))
        x[0], y[0] = x[0].round(), y[0].round()
        ours = rank_p(x, y)
        method = ["asymptotic" if n == 30 or i == 0 else "exact" for i in range(4)]
        for i in range(4):
            assert ours[i] == pytest.approx(mannwhitneyu(x[i], y[i], method=method[i]).pvalue)
    assert rank_p([1.0, 1.0], [1.0, 1.0]) == 1.0


# P-values without influence are uniform. 1,000 pairs of n = 40, Kolmogorov-Smirnov at 1e-4 each: that is the rate at
# which a right test fails here. Discrete p-values are spread over their last step by a uniform number of their own.
N, PAIRS, FALSE_FAILURES = 40, 1000, 1e-4


def null_pairs(seed, scale=1.0, n=N):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(PAIRS, n)), scale * rng.normal(size=(PAIRS, n))


def uniform(p):
    return kstest(p, "uniform").pvalue > FALSE_FAILURES


def test_welch_p_is_uniform_without_influence():
    assert uniform(ttest_ind(*null_pairs(10), axis=1, equal_var=False).pvalue)
    assert uniform(ttest_ind(*null_pairs(11, scale=3.0), axis=1, equal_var=False).pvalue)
    x, y = null_pairs(12, scale=3.0)
    missed = [not (i.lower <= 0 <= i.upper) for i in map(welch_difference, x, y)]
    assert abs(np.mean(missed) - 0.05) <= 4.5 * 0.0069  # the interval says what the p-value says


def test_permutation_p_is_uniform_without_influence():
    x, y = null_pairs(13, n=15)
    rng = np.random.default_rng(0)
    found = [
        permutation_p(a, b, resamples=199, seed=i).p_value for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    assert uniform(np.array(found) - rng.random(PAIRS) / 100)
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 4.5 * 0.0069


def test_rank_p_is_uniform_without_influence():
    assert uniform(rank_p(*null_pairs(14)))


def test_delong_p_is_uniform_without_influence():
    x, y = null_pairs(15, n=100)
    interval = delong_interval(x, y)
    z = interval.estimate / (interval.upper - interval.lower) * 2 * norm.ppf(0.975)
    assert uniform(2 * norm.sf(np.abs(z)))


def test_block_p_holds_its_level_on_correlated_series_where_plain_permutation_does_not():
    rng = np.random.default_rng(16)
    noise = lfilter([1.0], [1.0, -0.9], rng.normal(size=(2, 200, 700)), axis=-1)[..., 300:]
    blocks = np.mean(
        [block_permutation_p(a, b, 40, resamples=499).p_value <= 0.05 for a, b in zip(*noise, strict=True)]
    )
    plain = np.mean(
        [permutation_p(a, b, resamples=199).p_value <= 0.05 for a, b in zip(*noise[:, :60], strict=True)]
    )
    assert blocks <= 0.05 + 4 * 0.0154
    assert plain >= 0.4


def test_words_of_the_errors():
    x, y = np.arange(10.0), np.arange(10.0) + 1
    with pytest.raises(
        ConfigError,
        match=r"(?s)alternative to be one of two-sided, greater, less\n  got: 'up'.*misspelt.*leave",
    ):
        permutation_p(x, y, alternative="up")
    with pytest.raises(ConfigError, match="resamples to be a whole number of at least 19\n  got: 5"):
        permutation_p(x, y, resamples=5)
    with pytest.raises(
        DataError,
        match=r"(?s)as many values with as without.*got: 10 and 9.*missing on one side.*paired=False",
    ):
        permutation_p(x, y[:9], paired=True)
    with pytest.raises(
        DataError,
        match=r"(?s)at least 6 blocks\n  got: 10 labels for 10 values, 2 blocks.*too short.*record more",
    ):
        block_permutation_p(x, y, 5)
    with pytest.raises(
        DataError,
        match=r"(?s)values that differ between runs\n  got: 20 values, every sample constant.*accuracy.*loss",
    ):
        permutation_p(np.ones(10), np.ones(10))
    with pytest.raises(DataError, match="1 NaN with the rows, 0 without"):
        permutation_p([np.nan, 1.0], [1.0, 2.0])
