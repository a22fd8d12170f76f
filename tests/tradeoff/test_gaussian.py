import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finfluence.errors import ConfigError
from finfluence.tradeoff import Blatant, Gaussian, Perfect, TradeOff

mus = st.floats(-8, 8)
levels = st.floats(0, 1)
CURVES = [Gaussian(0.0), Gaussian(0.7), Gaussian(-2.5), Perfect(), Blatant()]


@pytest.mark.parametrize(
    ("mu", "alpha", "beta"),
    [
        (1, 0.05, 0.740489),
        (1, 0.5, 0.158655),
        (2, 0.05, 0.361240),
        (0.5, 0.1, 0.782761),
        (3, 0.01, 0.250266),
        (-1, 0.1, 0.988742),
        (-1, 0.05, 0.995914),
    ],
)
def test_curve_figures(mu, alpha, beta):
    assert Gaussian(mu)(alpha) == pytest.approx(beta, abs=5e-7)


@pytest.mark.parametrize(("mu", "auc"), [(0.5, 0.638163), (1, 0.760250), (2, 0.921350), (3, 0.983053)])
def test_auc_figures(mu, auc):
    assert Gaussian(mu).auc == pytest.approx(auc, abs=5e-7)
    assert Gaussian(-mu).auc == pytest.approx(1 - auc, abs=5e-7)


@pytest.mark.parametrize(("mu", "tv"), [(0.5, 0.197413), (1, 0.382925), (2, 0.682689)])
def test_total_variation_and_bayes_error_figures(mu, tv):
    assert Gaussian(mu).total_variation == pytest.approx(tv, abs=5e-7)
    assert 1 - Gaussian(-mu).bayes_error == pytest.approx({0.5: 0.5987, 1: 0.6915, 2: 0.8413}[mu], abs=5e-5)


def test_fixed_point_and_kl():
    assert Gaussian(1)(0.3085375387) == pytest.approx(0.308538, abs=5e-7)
    assert Gaussian(-3).kl == 4.5


@pytest.mark.parametrize(
    ("mu", "eps", "delta"),
    [(1, 0.5, 0.238422), (1, 1, 0.126937), (1, 2, 0.020924), (2, 1, 0.509862), (-2, 1, 0.509862)],
)
def test_delta_figures(mu, eps, delta):
    assert Gaussian(mu).delta(eps) == pytest.approx(delta, abs=5e-7)


def test_composition_figures():
    assert Gaussian(0.3) @ Gaussian(0.4) == Gaussian(0.5)
    total = Perfect()
    for _ in range(10):
        total = total @ Gaussian(0.1)
    assert total.mu == pytest.approx(0.316228, abs=5e-7)


def test_power_is_one_minus_the_optimal_curve_for_either_sign():
    alpha = np.array([0.0, 1e-300, 0.01, 0.05, 0.5, 1.0])
    for mu in (1.3, -1.3):
        np.testing.assert_allclose(Gaussian(mu).power(alpha), 1 - Gaussian(1.3)(alpha), atol=1e-15)
    assert Gaussian(0).power(1e-300) == pytest.approx(1e-300, rel=1e-9)


@given(mus, levels, levels, st.floats(0, 1))
def test_optimal_curve_is_convex_non_increasing_below_chance(mu, a, b, t):
    f = Gaussian(mu).optimal
    assert f(t * a + (1 - t) * b) <= t * f(a) + (1 - t) * f(b) + 1e-12
    assert f(max(a, b)) <= f(min(a, b))
    assert f(a) <= 1 - a + 1e-12


@given(mus, st.floats(1e-9, 1 - 1e-9))
def test_inverse_undoes_the_curve(mu, alpha):
    beta = Gaussian(mu)(alpha)
    if 1e-6 < beta < 1 - 1e-6:
        assert Gaussian(mu).inverse()(beta) == pytest.approx(alpha, rel=1e-6, abs=1e-9)


@given(mus, st.integers(0, 1024).map(lambda k: k / 1024))  # 1 - alpha is exact
def test_negated_statistic_swaps_the_one_sided_curve(mu, alpha):
    assert Gaussian(-mu)(alpha) == pytest.approx(1 - Gaussian(mu)(1 - alpha), abs=1e-12)


@given(mus, mus, mus)
def test_composition_is_commutative_associative_with_unit_and_zero(a, b, c):
    f, g, h = Gaussian(a), Gaussian(b), Gaussian(c)
    assert f @ g == g @ f
    assert ((f @ g) @ h).mu == pytest.approx((f @ (g @ h)).mu, abs=1e-12)
    assert f @ Perfect() == Perfect() @ f == f.optimal
    assert f @ Blatant() == Blatant() @ f == Blatant()


@given(mus, st.floats(-20, 20))
def test_delta_is_the_dual_of_the_curve(mu, eps):
    f = Gaussian(mu).optimal
    alpha = np.linspace(0, 1, 2001)
    dual = np.max(1 - f(alpha) - np.exp(eps) * alpha)
    assert 0 <= f.delta(eps) <= 1
    assert f.delta(eps) >= dual - 1e-12
    assert f.delta(0.0) == pytest.approx(f.total_variation, abs=1e-12)


@pytest.mark.parametrize("f", CURVES)
def test_one_interface(f):
    assert isinstance(f, TradeOff)
    assert isinstance(f(0.3), float)
    assert f(np.array([0.1, 0.2])).shape == (2,)
    assert f.power(np.array([[0.1, 0.2]])).shape == (1, 2)
    assert f.delta(np.array([0.0, 1.0])).shape == (2,)
    assert f.bayes_error == (1 - f.total_variation) / 2
    assert f.delta(0.0) == pytest.approx(f.total_variation)
    assert f.inverse() == f
    with pytest.raises(dataclasses.FrozenInstanceError):
        f.mu = 3.0
    with pytest.raises(TypeError):
        f @ 3


def test_extremes():
    assert (Perfect().auc, Perfect().kl, Perfect().total_variation, Perfect()(0.25)) == (0.5, 0, 0, 0.75)
    assert (Blatant().auc, Blatant().kl, Blatant().power(0.0), Blatant()(0.0)) == (1, math.inf, 1, 0)
    assert Gaussian(0).delta(-1.0) == pytest.approx(1 - math.exp(-1))
    assert Gaussian(1e-200).delta(1.0) == 0.0
    assert Gaussian(30.0).delta(1e4) == 0.0


def test_words_of_the_errors():
    with pytest.raises(ConfigError, match=r"alpha between 0 and 1\n  got: 5\n.*percent"):
        Gaussian(1)(5)
    with pytest.raises(ConfigError, match=r"a finite mu\n  got: nan(.|\n)*Blatant\(\)"):
        Gaussian(math.nan)
