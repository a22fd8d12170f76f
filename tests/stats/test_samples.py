import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtr, ndtri

from finfluence.errors import DataError
from finfluence.stats import auc, auc_probit, binormal, max_scan, pooled_d

samples = arrays(np.float64, st.integers(2, 12), elements=st.integers(-5, 5).map(float))
ESTIMATORS = {
    "auc_probit": auc_probit,
    "pooled_d": pooled_d,
    "max_scan": max_scan,
    "trimmed": lambda x, y: max_scan(x, y, trim=0.05),
    "smoothed": lambda x, y: max_scan(x, y, smoothing=0.5),
    "binormal": lambda x, y: binormal(x, y).mu,
}


def normals(n, mu, pairs, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(pairs, n)), rng.normal(size=(pairs, n)) + mu


# Mean |estimate| of 2,000 pairs of equal laws; its standard error is below 0.007, the tolerance four of them.
@pytest.mark.parametrize(
    ("n", "scan", "trimmed", "probit", "pooled"),
    [(20, 0.87, 0.87, 0.26, 0.26), (100, 0.62, 0.43, 0.12, 0.12), (500, 0.51, 0.21, 0.05, 0.05)],
)
def test_mean_size_without_influence(n, scan, trimmed, probit, pooled):
    x, y = normals(n, 0.0, 2000)
    assert np.abs(max_scan(x, y)).mean() == pytest.approx(scan, abs=0.03)
    assert np.abs(max_scan(x, y, trim=0.05)).mean() == pytest.approx(trimmed, abs=0.03)
    assert np.abs(auc_probit(x, y)).mean() == pytest.approx(probit, abs=0.02)
    assert np.abs(pooled_d(x, y)).mean() == pytest.approx(pooled, abs=0.02)


@pytest.mark.parametrize(
    ("mu", "scan", "trimmed", "probit"), [(0.5, 0.95, 0.79, 0.498), (1.0, 1.44, 1.28, 1.01)]
)
def test_mean_under_influence(mu, scan, trimmed, probit):
    x, y = normals(100, mu, 2000)
    assert max_scan(x, y).mean() == pytest.approx(scan, abs=0.03)
    assert max_scan(x, y, trim=0.05).mean() == pytest.approx(trimmed, abs=0.03)
    assert auc_probit(x, y).mean() == pytest.approx(probit, abs=0.02)
    assert binormal(x, y).mu.mean() == pytest.approx(mu, abs=0.04)


def test_standard_error_of_pooled_d():
    for n in (20, 50, 100):  # 4,000 pairs: 1.1 % standard error of a standard deviation
        exact = np.sqrt(2 / n * (2 * n - 2) / (2 * n - 4))
        assert pooled_d(*normals(n, 0.0, 4000)).std() == pytest.approx(exact, rel=0.045)


def test_auc_of_two_normals():
    x, y = normals(20_000, 1.0, 1)
    assert auc(x, y)[0] == pytest.approx(ndtr(1 / np.sqrt(2)), abs=0.01)


def test_auc_counts_ties_one_half():
    assert auc([1.0, 2.0], [2.0, 2.0]) == 0.75
    assert auc([3.0, 3.0], [3.0]) == 0.5


def test_binormal_slope_is_the_ratio_of_spreads():
    rng = np.random.default_rng(0)
    fit = binormal(rng.normal(size=(200, 2000)), 2.0 * rng.normal(size=(200, 2000)) + 1.0)
    assert fit.slope.mean() == pytest.approx(0.5, abs=0.01)
    assert fit.mu.mean() == pytest.approx(1 / np.sqrt(2.5), abs=0.01)


def test_samples_that_do_not_overlap_stay_finite():
    x, y = np.arange(5.0), np.arange(5.0) + 100
    edge = -np.sqrt(2) * ndtri(1 / 50)
    assert auc_probit(x, y) == pytest.approx(edge)
    assert auc_probit(y, x) == pytest.approx(-edge)
    assert 0 < max_scan(x, y) < 5
    assert max_scan(x, y, trim=0.05) == max_scan(x, y)


def test_constant_samples():
    same = np.ones(4)
    for name in ("auc_probit", "pooled_d", "max_scan", "binormal"):
        assert ESTIMATORS[name](same, same) == 0.0
    assert pooled_d(same, same + 1) == np.inf
    assert pooled_d(same + 1, same) == -np.inf


@pytest.mark.parametrize("name", ESTIMATORS)
def test_many_pairs_at_once_equal_one_by_one(name):
    x, y = normals(15, 0.7, 12)
    x, y = x.round(1).reshape(3, 4, 15), y.round(1).reshape(3, 4, 15)[..., :11]
    together = ESTIMATORS[name](x, y)
    assert together.shape == (3, 4)
    alone = [[float(ESTIMATORS[name](x[i, j], y[i, j])) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_leading_axes_broadcast():
    x, y = normals(9, 1.0, 5)
    np.testing.assert_array_equal(auc_probit(x[0], y), auc_probit(np.tile(x[:1], (5, 1)), y))


@given(samples, samples)
def test_swapping_the_samples_flips_the_sign(x, y):
    for name in ("auc_probit", "pooled_d", "binormal"):
        assert ESTIMATORS[name](y, x) == pytest.approx(-ESTIMATORS[name](x, y), abs=1e-9)
    for options in ({}, {"trim": 0.1}, {"smoothing": 0.5}):
        assert abs(max_scan(y, x, **options)) == pytest.approx(abs(max_scan(x, y, **options)), abs=1e-9)


@given(samples, samples)
def test_negating_the_statistic_flips_the_sign(x, y):
    assert auc_probit(-x, -y) == pytest.approx(-auc_probit(x, y), abs=1e-9)
    assert pooled_d(-x, -y) == pytest.approx(-pooled_d(x, y), abs=1e-9)


@given(samples, samples)
def test_monotone_transforms_change_nothing(x, y):
    for name in ("auc_probit", "max_scan", "binormal"):
        assert ESTIMATORS[name](np.exp(x), np.exp(y)) == pytest.approx(ESTIMATORS[name](x, y), abs=1e-9)
    assert pooled_d(3 * x + 1, 3 * y + 1) == pytest.approx(pooled_d(x, y), abs=1e-9)


@given(samples, samples, st.randoms())
def test_the_order_of_runs_changes_nothing(x, y, random):
    shuffled = x.copy().tolist()
    random.shuffle(shuffled)
    for name in ("auc_probit", "max_scan", "binormal"):
        assert ESTIMATORS[name](shuffled, y) == pytest.approx(ESTIMATORS[name](x, y), abs=1e-12)


def test_words_of_the_errors():
    with pytest.raises(DataError, match=r"samples without NaN\n  got: 1 NaN with the rows, 0 without"):
        auc([1.0, np.nan], [1.0])
    with pytest.raises(DataError, match="at least 2 value"):
        pooled_d([1.0], [1.0, 2.0])
