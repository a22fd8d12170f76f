import numpy as np
import pytest
from scipy import stats as scipy_stats

from finfluence.errors import ConfigError, DataError
from finfluence.stats import (
    auc_probit,
    bootstrap_interval,
    delong_interval,
    mean_interval,
    paired_difference,
    welch_difference,
)


def test_mean_interval_is_the_t_interval():
    x = np.random.default_rng(0).normal(size=12)
    ours = mean_interval(x, level=0.9)
    low, high = scipy_stats.t.interval(0.9, 11, x.mean(), scipy_stats.sem(x))
    assert (ours.lower, ours.upper) == pytest.approx((low, high))
    assert str(mean_interval([1.0, 2.0, 3.0])) == "2 [-0.4841, 4.484] (95% t)"


def test_welch_is_scipys():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=7), 3 * rng.normal(size=15)
    ours = welch_difference(a, b)
    theirs = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (ours.lower, ours.upper) == pytest.approx((theirs.low, theirs.high))
    assert welch_difference([1.0, 1.0], [0.0, 0.0]).lower == 1.0


def test_paired_is_the_mean_of_differences():
    a, b = np.array([3.0, 5.0, 9.0]), np.array([1.0, 2.0, 3.0])
    ours, mean = paired_difference(a, b), mean_interval(a - b)
    assert (ours.estimate, ours.lower, ours.upper) == (mean.estimate, mean.lower, mean.upper)
    assert ours.kind == "paired t"


def test_bootstrap_repeats_under_a_seed_and_varies_across_seeds():
    x, y = np.random.default_rng(2).normal(size=(2, 40))
    one = bootstrap_interval(auc_probit, x, y + 1, resamples=300, seed=5)
    assert one == bootstrap_interval(auc_probit, x, y + 1, resamples=300, seed=5)
    assert one != bootstrap_interval(auc_probit, x, y + 1, resamples=300, seed=6)
    assert one.lower < one.estimate == float(auc_probit(x, y + 1)) < one.upper


def delong_by_hand(x, y):
    psi = (y[None] > x[:, None]) + 0.5 * (y[None] == x[:, None])
    return psi.mean(), psi.mean(1).var(ddof=1) / len(x) + psi.mean(0).var(ddof=1) / len(y)


def test_delong_equals_the_slow_double_sum():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=30).round(1), (rng.normal(size=20) + 0.5).round(1)
    area, variance = delong_by_hand(x, y)
    probit = scipy_stats.norm.ppf(area)
    half = 1.959963985 * np.sqrt(2 * variance) / scipy_stats.norm.pdf(probit)
    ours = delong_interval(x, y)
    assert float(ours.lower) == pytest.approx(np.sqrt(2) * probit - half)
    assert float(ours.upper) == pytest.approx(np.sqrt(2) * probit + half)


# 2,000 pairs each: standard error 0.005. Small samples and large mu cover more than asked, never less.
@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("mu", [0.0, 1.0, 3.0])
def test_delong_covers(n, mu):
    rng = np.random.default_rng([n, int(mu)])
    interval = delong_interval(rng.normal(size=(2000, n)), rng.normal(size=(2000, n)) + mu)
    held = np.mean((interval.lower <= mu) & (mu <= interval.upper))
    assert 0.935 <= held <= 0.998


def test_delong_without_overlap_has_no_outer_bound():
    x = np.arange(20.0)
    up, down = delong_interval(x, x + 50), delong_interval(x + 50, x)
    assert up.upper == np.inf and float(up.lower) == pytest.approx(
        np.sqrt(2) * scipy_stats.norm.ppf(0.025 ** (1 / 20))
    )
    assert (down.lower, down.upper) == (-np.inf, -up.lower)


def test_delong_is_antisymmetric_and_batched():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 6, 15))
    one, other = delong_interval(x, y), delong_interval(y, x)
    np.testing.assert_allclose(one.lower, -np.asarray(other.upper))
    np.testing.assert_allclose(one.lower[3], delong_interval(x[3], y[3]).lower)
    assert str(one) == "6 intervals, 95% DeLong probit"


def test_words_of_the_errors():
    with pytest.raises(DataError, match="at least two finite values\n  got: 1 value"):
        mean_interval([1.0])
    with pytest.raises(DataError, match=r"2 value\(s\), 1 of them not finite"):
        mean_interval([1.0, np.inf])
    with pytest.raises(DataError, match="matched by seed\n  got: 2 and 3"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="level between 0 and 1\n  got: 95"):
        mean_interval([1.0, 2.0], level=95)
