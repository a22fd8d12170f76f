"""The pooled d': noncentral t, its standard error, and the runs a precision needs."""

import numpy as np
import pytest
from scipy.stats import nct

from finfluence.errors import ConfigError, DataError
from finfluence.stats import bootstrap_interval, pooled_d, pooled_d_interval, pooled_d_se, runs_needed


@pytest.mark.parametrize("n", [3, 10, 100])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4, 6.0])
def test_bounds_invert_the_noncentral_t(n, shift):
    x = np.linspace(-1.0, 1.0, n)  # no heavier than normal, and equal variances: 2n - 2 degrees of freedom
    y = x + shift
    found = pooled_d_interval(x, y)
    scale = np.sqrt(2 / n)
    t = float(found.estimate) / scale
    assert nct.cdf(t, 2 * n - 2, float(found.lower) / scale) == pytest.approx(0.975, abs=2e-4)
    assert nct.cdf(t, 2 * n - 2, float(found.upper) / scale) == pytest.approx(0.025, abs=2e-4)


# 2,000 pairs each: standard error 0.0049; the band is 4.5 of them (false-failure rate 7e-6 a case).
@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("mu", [0.0, 1.0, 3.0])
def test_it_covers_exactly_for_normals(n, mu):
    rng = np.random.default_rng([n, int(mu)])
    found = pooled_d_interval(rng.normal(size=(2000, n)), rng.normal(size=(2000, n)) + mu)
    assert np.mean((found.lower <= mu) & (mu <= found.upper)) == pytest.approx(0.95, abs=4.5 * 0.0049 + 0.01)


def test_unequal_variances_and_sizes():
    rng = np.random.default_rng(1)
    found = pooled_d_interval(rng.normal(size=(2000, 60)), 3 * rng.normal(size=(2000, 20)) + np.sqrt(5))
    assert np.mean((found.lower <= 1.0) & (found.upper >= 1.0)) == pytest.approx(0.95, abs=0.03)


# 1,000 pairs: standard error 0.0077 at the 0.94 that is reached, 0.011 at the 0.85 without the correction.
def test_heavy_tails_widen_it():
    rng = np.random.default_rng(5)
    x, y = rng.standard_t(4, size=(2, 1000, 200))
    truth = 2 / np.sqrt(2)
    found = pooled_d_interval(x, y + 2)
    assert np.mean((found.lower <= truth) & (truth <= found.upper)) >= 0.9
    plain = 1.96 * np.sqrt(2 / 200 + found.estimate**2 / 800)
    assert np.mean(np.abs(found.estimate - truth) <= plain) <= 0.9


def test_it_is_antisymmetric_batched_and_says_nothing_of_constants():
    x, y = np.random.default_rng(2).normal(size=(2, 6, 15))
    one, other = pooled_d_interval(x, y), pooled_d_interval(y, x)
    np.testing.assert_allclose(one.lower, -other.upper)
    np.testing.assert_allclose(one.lower[3], pooled_d_interval(x[3], y[3]).lower)
    same, up = pooled_d_interval(np.ones(4), np.ones(4)), pooled_d_interval(np.ones(4), np.ones(4) + 1)
    assert (same.lower, same.upper) == (-np.inf, np.inf) and (up.lower, up.upper) == (0.0, np.inf)


@pytest.mark.parametrize(("n", "mu"), [(3, 0.0), (20, 0.0), (20, 3.0), (100, 1.0), (5001, 2.0)])
def test_standard_error_is_that_of_the_noncentral_t(n, mu):
    assert pooled_d_se(n, mu) == pytest.approx(
        np.sqrt(2 / n) * nct.std(2 * n - 2, mu * np.sqrt(n / 2)), rel=1e-5
    )


def test_standard_error_by_simulation():
    rng = np.random.default_rng(3)  # 20,000 pairs: 0.5 % standard error of a standard deviation
    d = pooled_d(rng.normal(size=(20_000, 12)), rng.normal(size=(20_000, 12)) + 1.5)
    assert d.std() == pytest.approx(pooled_d_se(12, 1.5), rel=0.025)


@pytest.mark.parametrize(("se", "mu"), [(0.5, 0.0), (0.2, 0.0), (0.1, 0.0), (0.1, 4.0), (0.01, 1.0)])
def test_runs_needed_are_the_least(se, mu):
    runs = runs_needed(se, mu)
    assert pooled_d_se(runs, mu) <= se < pooled_d_se(runs - 1, mu)
    assert runs == pytest.approx((2 + mu**2 / 4) / se**2, rel=0.3)


def test_bootstrap_methods_and_the_edge_of_the_range():
    x, y = np.random.default_rng(4).normal(size=(2, 30))
    kinds = {
        m: bootstrap_interval(pooled_d, x, y + 1, method=m, resamples=500)
        for m in ("bca", "percentile", "basic")
    }
    assert {m: i.kind for m, i in kinds.items()} == {
        "bca": "bootstrap BCa", "percentile": "bootstrap percentile", "basic": "bootstrap basic",
    }  # fmt: skip
    assert len({i.lower for i in kinds.values()}) == 3
    fast = bootstrap_interval(pooled_d, x, y + 1, resamples=500, vectorized=True)
    assert fast.lower == pytest.approx(kinds["bca"].lower)
    edge = bootstrap_interval(np.max, np.r_[np.zeros(9), 1.0], resamples=200)
    assert np.isfinite([edge.lower, edge.upper]).all()


def test_words_of_the_errors():
    with pytest.raises(
        ConfigError,
        match=r"(?s)a positive standard error and a finite mu\n  got: se=0, mu=0.0.*infinitely.*se=0.1",
    ):
        runs_needed(0)
    with pytest.raises(
        ConfigError,
        match=r"(?s)a precision that 1,000,000,000 runs reach\n  got: se=1e-06.*far below.*se=0.1",
    ):
        runs_needed(1e-6)
    with pytest.raises(ConfigError, match="runs to be a whole number of at least 3\n  got: 2"):
        pooled_d_se(2)
    with pytest.raises(
        ConfigError, match=r"(?s)method to be one of percentile, basic, bca\n  got: 't'.*misspelt.*bca"
    ):
        bootstrap_interval(np.mean, [1.0, 2.0], method="t")
    with pytest.raises(DataError, match="values that differ between runs\n  got: 3 values"):
        bootstrap_interval(np.mean, [1.0, 1.0, 1.0])
    with pytest.raises(DataError, match="at least 2 value"):
        pooled_d_interval([1.0], [1.0, 2.0])


def test_samples_that_are_constant_but_for_rounding_have_no_distance_or_an_infinite_one():
    before, rounded = [0.3, 0.3, 0.3], [0.1 + 0.2, 0.3, 0.3]
    assert np.std(rounded) > 0
    np.testing.assert_array_equal(
        pooled_d([before, before], [rounded, np.subtract(rounded, 0.1)]), [0.0, -np.inf]
    )
