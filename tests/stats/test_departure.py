"""Departure from one Gaussian curve: the slope, its coverage, and when the finding speaks."""

import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.stats import departure


def test_equal_means_and_unequal_variances():
    rng = np.random.default_rng(0)  # mu(alpha) = -(1 - 1/2) probit(alpha): 1.1632 at 0.01, -1.1632 at 0.99
    found = departure(rng.normal(size=2000), 2 * rng.normal(size=2000), resamples=99)
    assert found.slope.estimate == pytest.approx(0.5, abs=0.06)
    assert found.mu_at_ends[0] == pytest.approx(1.1632, abs=0.25)
    assert found.mu_at_ends[1] == pytest.approx(-1.1632, abs=0.25)
    assert found.p_value == 1 / 100
    assert "changes the spread, not only the mean: slope 0." in found.finding
    assert "read the trade-off curve" in found.finding


def test_another_shape_is_a_misfit():
    rng = np.random.default_rng(1)
    mixed = np.where(rng.random(600) < 0.3, 4.0, 0.0) + rng.normal(size=600)
    found = departure(rng.normal(size=600), mixed, resamples=199)
    assert found.p_value <= 0.01 and found.finding


def test_a_monotone_transform_of_normals_is_gaussian():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=150), rng.normal(size=150) + 1
    plain, bent = departure(x, y, resamples=99), departure(np.exp(x), np.exp(y), resamples=99)
    assert plain == bent and plain.finding == ""
    assert plain.slope.lower < 1 < plain.slope.upper


# 60 pairs: standard error of coverage 0.028; four of them.
@pytest.mark.parametrize(("scale", "mu"), [(1.0, 0.5), (2.0, 1.0)])
def test_slope_interval_covers(scale, mu):
    rng = np.random.default_rng(3)
    held = []
    for seed in range(60):
        x, y = rng.normal(size=50), scale * rng.normal(size=50) + mu * np.sqrt((1 + scale**2) / 2)
        slope = departure(x, y, resamples=99, seed=seed).slope
        held.append(slope.lower <= 1 / scale <= slope.upper)
    assert np.mean(held) >= 0.95 - 4 * 0.028


def test_seeds():
    x, y = np.random.default_rng(4).normal(size=(2, 30))
    one, same, other = (departure(x, y, resamples=99, seed=s) for s in (0, 0, 1))
    assert one == same and one.slope != other.slope


def test_words_of_the_errors():
    with pytest.raises(DataError, match="at least 5 value"):
        departure([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(DataError, match="values that differ between runs"):
        departure(np.ones(9), np.ones(9))
    with pytest.raises(DataError, match="0 NaN with the rows, 1 without"):
        departure(np.arange(6.0), [1, 2, 3, 4, 5, np.nan])
