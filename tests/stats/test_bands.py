"""Bands and corrected curves: exact levels, coverage, no inflation without influence."""

import math

import numpy as np
import pytest
from scipy.special import betainc, ndtr, ndtri
from scipy.stats import binom

from finfluence.errors import ConfigError, DataError
from finfluence.stats import corrected_curve, curve_band, inside, local_error
from finfluence.tradeoff import compose, from_samples


# 10,000 samples: standard error 0.0022, four of them (6e-5 a case).
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_local_level_is_exact(n):
    sorted_uniforms = np.sort(np.random.default_rng(n).random((10_000, n)), axis=1)
    rank = np.arange(1, n + 1)
    below = betainc(rank, n + 1 - rank, sorted_uniforms)
    held = (2 * np.minimum(below, 1 - below) >= local_error(n, 0.05)).all(1).mean()
    assert held == pytest.approx(0.95, abs=4 * 0.0022)


def test_local_level_of_two_by_hand():
    # two sorted uniforms, bounds [l1, u1] and [l2, u2]: area of u < v inside, doubled
    gamma = 0.2
    l1, u1 = 1 - math.sqrt(1 - gamma / 2), 1 - math.sqrt(gamma / 2)
    l2, u2 = math.sqrt(gamma / 2), math.sqrt(1 - gamma / 2)
    low = np.linspace(l1, u1, 200_001)
    area = 2 * np.mean(np.maximum(u2 - np.maximum(low, l2), 0)) * (u1 - l1)
    assert inside(2, gamma) == pytest.approx(area, abs=1e-5)


def normal_curve(mu):
    return lambda alpha: ndtr(-ndtri(alpha) - mu)


def tied_curve(alpha):
    value = np.arange(-1, 5)
    return np.interp(alpha, (1 - binom.cdf(value, 4, 0.5))[::-1], binom.cdf(value, 4, 0.7)[::-1])


LAWS = {
    "no influence": (lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(size=n), normal_curve(0.0)),
    "helpful": (lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(size=n) + 1, normal_curve(1.0)),
    "harmful": (lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(size=n) - 1, normal_curve(-1.0)),
    "ties": (lambda rng, n: rng.binomial(4, 0.5, n), lambda rng, n: rng.binomial(4, 0.7, n), tied_curve),
}


# 150 pairs each at a nominal 0.9; the bands are careful, so anything below 0.9 - 4 * 0.0245 is a fault (3e-5).
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["simultaneous", "dkw"])
def test_the_band_holds_everywhere_at_once(law, kind):
    with_law, without_law, curve = LAWS[law]
    rng = np.random.default_rng(1)
    held = below = 0
    for _ in range(150):
        band = curve_band(with_law(rng, 40), without_law(rng, 60), level=0.9, kind=kind)
        truth = curve(band.alpha)
        held += bool(np.all((band.lower <= truth + 1e-12) & (truth <= band.upper + 1e-12)))
        best = normal_curve(1.0)(band.alpha) if law == "harmful" else truth
        below += bool(np.all(best <= band.best_upper(band.alpha) + 1e-12))
        assert np.all((band.lower <= band.estimate + 1e-12) & (band.estimate <= band.upper + 1e-12))
    assert held / 150 >= 0.9 - 4 * 0.0245
    assert below / 150 >= 0.9 - 4 * 0.0245


def test_a_one_sided_lead_makes_the_band_nearly_exact():
    # with P known almost exactly all error is Q's: the simultaneous band is no wider than its level asks
    rng = np.random.default_rng(2)
    held = []
    for _ in range(150):
        band = curve_band(rng.random(1500), rng.random(30), level=0.81)
        held.append(np.all((band.lower <= 1 - band.alpha) & (1 - band.alpha <= band.upper)))
    assert 0.81 <= np.mean(held) <= 0.995  # Q's own level is 0.9; P's small error only widens


def test_the_pointwise_band_is_narrower_and_covers_one_point():
    rng = np.random.default_rng(3)
    held = width = 0.0
    for _ in range(300):
        x, y = rng.normal(size=50), rng.normal(size=50) + 1
        point, everywhere = (
            curve_band(x, y, kind=k, alpha=[0.1, 0.3]) for k in ("pointwise", "simultaneous")
        )
        held += bool(point.lower[0] <= normal_curve(1.0)(0.1) <= point.upper[0])
        width += np.sum(everywhere.upper - everywhere.lower - point.upper + point.lower)
    assert held / 300 >= 0.95 - 4 * 0.0126 and width > 0


def test_estimate_equals_the_definition_and_total_variation_the_ks_distance():
    band = curve_band([0.0, 1.0, 2.0, 3.0], [1.5, 2.5, 3.5, 4.5], alpha=[0.0, 0.25, 0.3, 1.0])
    np.testing.assert_allclose(band.estimate, [0.5, 0.25, 0.25, 0.0])
    assert band.total_variation.estimate == 0.5
    assert band.total_variation.lower == 0.0 and band.total_variation.kind == "simultaneous"


def test_upper_bounds_compose_to_chance_without_influence():
    rng = np.random.default_rng(4)
    uppers = [curve_band(*rng.normal(size=(2, 100)), level=1 - 0.05 / 20).best_upper for _ in range(20)]
    assert all(u.bound == "upper" for u in uppers)
    assert compose(uppers, bound="upper", cells=4096).total_variation == pytest.approx(0.0, abs=1e-9)
    far = curve_band(rng.normal(size=300), rng.normal(size=300) + 2)
    assert far.best_upper.total_variation == pytest.approx(far.total_variation.lower)
    assert 0.3 < far.total_variation.lower < 0.6827


# Plug-in curves of 20 steps of n = 100 without influence: 0.64 on average (peers measured 0.66 on histograms).
def test_plug_in_inflates_and_the_correction_removes_it():
    rng = np.random.default_rng(5)
    plug_in, corrected = [], []
    for seed in range(4):
        found = corrected_curve(*rng.normal(size=(2, 20, 100)), resamples=19, seed=seed)
        plug_in.append(found.plug_in.total_variation)
        corrected.append(found.total_variation)
    assert np.mean(plug_in) > 0.55
    assert np.mean(corrected) < 0.2  # 0.07 on average, each below 0.2; standard error 0.04


def test_the_correction_keeps_real_influence():
    rng = np.random.default_rng(6)
    truth = math.erf(0.2 * math.sqrt(20) / math.sqrt(8))
    found = corrected_curve(rng.normal(size=(20, 100)), rng.normal(size=(20, 100)) + 0.2, resamples=19)
    assert found.total_variation == pytest.approx(truth, abs=0.16)  # standard deviation 0.035
    assert found.p_value == 1 / 20 and found.curve.bound == "estimate"


# 40 pairs of n = 100 and 39 exchanges: standard errors 0.008 (no influence) to 0.011.
@pytest.mark.parametrize(
    ("mu", "low", "high"), [(0.0, 0.0, 0.08), (0.5, 0.197 - 0.04, 0.197 + 0.08), (1.0, 0.34, 0.45)]
)
def test_total_variation_of_one_step(mu, low, high):
    rng = np.random.default_rng(7)
    pairs = [(rng.normal(size=100), rng.normal(size=100) + mu) for _ in range(40)]
    found = [corrected_curve(x, y, resamples=39, seed=i) for i, (x, y) in enumerate(pairs)]
    assert low <= np.mean([f.total_variation for f in found]) <= high
    assert np.mean([f.plug_in.total_variation for f in found]) > np.mean([f.total_variation for f in found])
    assert found[0].plug_in == from_samples(*pairs[0])


def test_seeds():
    x, y = np.random.default_rng(8).normal(size=(2, 50))
    one, same, other = (corrected_curve(x, y + 1, resamples=50, seed=s) for s in (0, 0, 1))
    assert one == same and one.inflation != other.inflation


def test_equal_constants_are_no_influence():
    found = corrected_curve(np.ones(10), np.ones(10))
    assert (found.total_variation, found.p_value) == (0.0, 1.0)
    band = curve_band(np.ones(10), np.ones(10))
    assert np.all(band.upper >= 1 - band.alpha) and band.total_variation.lower == 0.0


def test_words_of_the_errors():
    with pytest.raises(
        ConfigError,
        match=r"(?s)kind to be one of simultaneous, dkw, pointwise\n  got: 'ks'.*misspelt.*everywhere",
    ):
        curve_band([1.0, 2.0], [1.0, 2.0], kind="ks")
    with pytest.raises(
        ConfigError, match=r"(?s)alpha between 0 and 1, increasing\n  got: \[5\].*percent.*leave alpha out"
    ):
        curve_band([1.0, 2.0], [1.0, 2.0], alpha=[5])
    with pytest.raises(ConfigError, match=r'(?s)at most 5,000 values.*got: 5,001.*square.*kind="dkw"'):
        curve_band(np.zeros(5001), np.zeros(10))
    with pytest.raises(
        DataError,
        match=r"(?s)one leading axis of steps\n  got: 2 leading axes.*several queries.*each of them",
    ):
        corrected_curve(np.zeros((2, 2, 5)), np.zeros((2, 2, 5)))
