"""Every family against its definition: curve, profile, inverse, areas, divergences."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import laplace, norm

from finfluence.tradeoff import (
    Blatant,
    EpsilonDelta,
    Gaussian,
    Laplace,
    Perfect,
    PiecewiseLinear,
    Subsampled,
    TradeOff,
    from_discrete,
    subsample,
)
from tradeoff.curves import LEVELS, close, curves, dual, families, few, finite, smooth

unit = st.floats(0, 1)


@few
@given(curves, unit, unit, unit)
def test_best_tests_are_convex_non_increasing_and_at_most_chance(f, a, b, t):
    f = f.optimal
    assert f(t * a + (1 - t) * b) <= t * f(a) + (1 - t) * f(b) + 1e-9
    assert f(max(a, b)) <= f(min(a, b)) + 1e-12
    assert 0 <= f(a) <= 1 - a + 1e-12
    assert f.power(a) == pytest.approx(1 - f(a), abs=1e-12)
    assert f.type_two(a) == f(a)


@few
@given(curves, st.floats(-3, 5))
def test_profile_is_the_dual_of_the_curve(f, eps):
    assert f.delta(eps) == pytest.approx(dual(f, eps), abs=1e-3)  # the grid misses atoms by a cell
    assert f.delta(eps) >= dual(f, eps) - 1e-9
    assert f.delta(0.0) == pytest.approx(f.total_variation, abs=1e-12)


@few
@given(curves)
def test_profile_of_the_inverse(f):
    eps = np.array([-2.0, -0.3, 0.0, 0.7, 1.5])
    other = 1 - np.exp(eps) + np.exp(eps) * np.asarray(f.inverse().delta(-eps))
    np.testing.assert_allclose(f.delta(eps), other, atol=1e-9)


@few
@given(curves)
def test_inverse_of_the_inverse_and_areas(f):
    f = f.optimal
    close(f.inverse().inverse(), f, 1e-12)
    area, _ = quad(f, 0, 1, limit=400, points=[1e-4, 1e-2, 0.5])
    assert f.auc == pytest.approx(1 - area, abs=2e-5)
    assert f.inverse().auc == pytest.approx(f.auc, abs=1e-9)
    assert f.bayes_error == (1 - f.total_variation) / 2


@few
@given(smooth, st.floats(1e-4, 1 - 1e-4))
def test_inverse_undoes_the_curve(f, alpha):
    beta = f(alpha)
    if 1e-5 < beta < 1 - 1e-5:
        assert f.inverse()(beta) == pytest.approx(alpha, rel=1e-5, abs=1e-7)


@few
@given(curves, st.floats(1e-6, 0.5))
def test_epsilon_is_the_smallest_that_meets_delta(f, delta):
    eps = f.epsilon(delta)
    if math.isinf(eps):
        assert f.delta(700.0) > delta
        return
    assert eps >= 0
    assert f.delta(eps) <= delta + 1e-9
    assert eps == 0 or f.delta(eps - 1e-6) >= delta - 1e-9


@few
@given(curves)
def test_divergences_fall_in_line(f):
    orders = [f.renyi(a) for a in (0.3, 0.5, 0.9, 1.0, 1.5, 3.0)]
    assert all(a <= b + 1e-9 or math.isinf(b) for a, b in itertools.pairwise(orders))
    assert orders[3] == pytest.approx(f.kl, rel=1e-9)
    m = f.loss_moments()
    assert m.kl == pytest.approx(f.kl, abs=1e-7)
    if math.isfinite(m.kl):
        assert m.kappa_2 >= m.kl**2 - 1e-12
        assert m.kappa_3 >= m.kappa_2**1.5 - 1e-9
    # Pinsker and Bretagnolle-Huber
    assert f.total_variation <= min(math.sqrt(f.kl / 2), math.sqrt(-math.expm1(-f.kl))) + 1e-9


@few
@given(smooth)
def test_masses_of_cells_are_those_of_the_curve(f):
    edges = f.edges(200)
    p, q = f.masses(edges)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert q.sum() == pytest.approx(1, abs=1e-12)
    assert p[0] + p[-1] < 1 and np.all(np.diff(edges) > 0)
    alpha = p[::-1].cumsum()[::-1][
        1:
    ]  # P(L >= edge): the curve touches its tangent of slope -exp(edge) there
    beta = q.cumsum()[:-1]
    inside = (alpha > 1e-9) & (alpha < 1 - 1e-9)
    np.testing.assert_allclose(f(alpha[inside]), beta[inside], atol=2e-9)


@few
@given(smooth)
def test_polygons_enclose_the_curve(f):
    low, middle, up = (PiecewiseLinear.of(f, bound, 2000) for bound in ("lower", "estimate", "upper"))
    grid = np.linspace(0, 1, 501)
    assert np.all(low(grid) <= np.asarray(f(grid)) + 1e-12)
    assert np.all(up(grid) >= np.asarray(f(grid)) - 1e-12)
    np.testing.assert_allclose(middle(grid), f(grid), atol=3e-5)
    np.testing.assert_allclose(low(grid), up(grid), atol=6e-5)
    assert (low.bound, middle.bound, up.bound) == ("lower", "estimate", "upper")


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
def test_laplace_against_scipy(mu):
    p, q = laplace(0), laplace(mu)
    f = Laplace(mu)
    alpha = np.array([0.001, 0.05, 0.2, 0.5, 0.7, 0.99])
    np.testing.assert_allclose(f(alpha), q.cdf(p.isf(alpha)), rtol=1e-12)

    def under_p(value):
        return sum(
            quad(lambda x: value(x) * p.pdf(x), a, b)[0]
            for a, b in [(-40, 0), (0, mu / 2), (mu / 2, mu), (mu, 40)]
        )

    def loss(x):
        return q.logpdf(x) - p.logpdf(x)

    m = f.loss_moments()
    kl = -under_p(loss)
    assert f.kl == m.kl == pytest.approx(kl, abs=1e-9)
    assert m.kappa_2 == pytest.approx(under_p(lambda x: loss(x) ** 2), abs=1e-9)
    assert m.kappa_3 == pytest.approx(under_p(lambda x: abs(loss(x)) ** 3), abs=1e-8)
    assert m.centred_3 == pytest.approx(under_p(lambda x: abs(loss(x) + kl) ** 3), abs=1e-8)
    for a in (0.3, 0.5, 0.8, 2.0, 4.0):
        integral = under_p(lambda x, a=a: math.exp((1 - a) * loss(x)))
        assert f.renyi(a) == pytest.approx(math.log(integral) / (a - 1), abs=1e-8)


@pytest.mark.parametrize("mu", [0.2, 1.0, 2.5])
def test_gaussian_moments_against_integrals(mu):
    def under_p(value):
        return quad(
            lambda x: value(mu * x - mu**2 / 2) * norm.pdf(x), -12, 12, points=[mu / 2, 0.0], limit=200
        )[0]

    m = Gaussian(-mu).loss_moments()
    assert m.kl == pytest.approx(mu**2 / 2)
    assert m.kappa_2 == pytest.approx(under_p(lambda loss: loss**2), rel=1e-9)
    assert m.kappa_3 == pytest.approx(under_p(lambda loss: abs(loss) ** 3), rel=1e-7)
    assert m.centred_3 == pytest.approx(under_p(lambda loss: abs(loss + mu**2 / 2) ** 3), rel=1e-7)
    assert Gaussian(mu).renyi(3.0) == pytest.approx(1.5 * mu**2)


@pytest.mark.parametrize("mixed", ["first", "second"])
def test_subsampled_gaussian_against_integrals(mixed):
    p, mu = 0.2, 1.5

    def mixture(x):
        return (1 - p) * norm.pdf(x) + p * norm.pdf(x - mu)

    def mirrored(x):  # "first" is T((1-p)Q + pP, Q); Q is centred here
        return norm.pdf(x)

    first, second = (mixture, mirrored) if mixed == "first" else (mirrored, mixture)
    f = subsample(Gaussian(mu), p, mixed)
    kl = quad(lambda x: first(x) * math.log(first(x) / second(x)), -10, 12)[0]
    assert f.kl == pytest.approx(kl, rel=1e-6)
    renyi = math.log(quad(lambda x: second(x) * (first(x) / second(x)) ** 2.5, -10, 14)[0]) / 1.5
    assert f.renyi(2.5) == pytest.approx(renyi, rel=1e-5)
    tv = quad(lambda x: abs(first(x) - second(x)), -10, 12, limit=200)[0] / 2
    assert f.total_variation == pytest.approx(tv, abs=1e-7)


def test_epsilon_delta_closed_forms():
    f = EpsilonDelta(1.2, 0.1)
    polygon = PiecewiseLinear.of(f)
    close(f, polygon, 1e-15)
    assert f.auc == pytest.approx(polygon.auc)
    assert f.total_variation == pytest.approx(polygon.total_variation)
    assert EpsilonDelta(1.2).kl == pytest.approx(1.2 * math.tanh(0.6))
    assert math.isinf(f.kl)
    assert f.epsilon(0.1) == pytest.approx(1.2)
    assert math.isinf(f.epsilon(0.05))
    assert EpsilonDelta(800.0)(0.5) == 0.0


@few
@given(families)
def test_mu_at_is_constant_for_gaussians_only_and_recovers_the_curve(f):
    level = np.array([0.01, 0.2, 0.7])
    mu = np.asarray(f.mu_at(level))
    inside = np.isfinite(mu)
    back = [Gaussian(m)(a) for m, a in zip(mu[inside], level[inside], strict=True)]
    np.testing.assert_allclose(back, np.asarray(f(level))[inside], atol=1e-9)
    if isinstance(f, Gaussian):
        np.testing.assert_allclose(mu, f.mu, atol=1e-7)


def test_mu_at_keeps_the_sign_of_the_one_sided_family():
    np.testing.assert_allclose(Gaussian(-0.7).mu_at([0.05, 0.5]), -0.7, atol=1e-12)
    assert Laplace(1.0).mu_at(0.05) != pytest.approx(Laplace(1.0).mu_at(0.5), abs=0.01)


def test_extremes_have_masses_and_powers():
    assert Perfect() ** 5 == Perfect() and Blatant() ** 2 == Blatant() and Blatant() ** 0 == Perfect()
    assert (Perfect().renyi(2.0), Blatant().renyi(2.0)) == (0.0, math.inf)
    assert Perfect().masses(Perfect().edges(4))[0].sum() == 1.0
    assert Blatant().masses(Blatant().edges(4))[0][0] == 1.0


@few
@given(finite())
def test_values_are_equal_hashable_frozen_and_short_to_read(f):
    same = from_discrete(*f.atoms)
    assert same == f and hash(same) == hash(f) and {f: 1}[same] == 1
    assert f != f.as_bound("estimate")
    assert f != Gaussian(1.0)
    assert len(repr(f)) < 80 and repr(f).startswith("PiecewiseLinear(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        f.alpha = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        f.beta[0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        f.atoms[0][0] = 0.0


@few
@given(curves)
def test_one_interface(f):
    assert isinstance(f, TradeOff) and f.bound == "exact"
    assert isinstance(f(0.3), float) and f(LEVELS).shape == LEVELS.shape
    assert f.power(np.array([[0.1, 0.2]])).shape == (1, 2)
    assert isinstance(f.delta(0.5), float) and f.delta(np.array([0.0, 1.0])).shape == (2,)
    with pytest.raises(TypeError):
        f @ 3


def test_far_tails_keep_their_digits():
    p, q = np.array([1e-30, 1 - 1e-30]), np.array([1e-20, 1 - 1e-20])
    f = from_discrete(p, q)
    assert f.delta(5.0) == pytest.approx(1e-20, rel=1e-6)
    assert f.epsilon(1e-25) == pytest.approx(math.log(1e10), rel=1e-4)


def test_subsampled_is_a_value():
    f = Subsampled(Gaussian(1.0), 0.2)
    assert f == subsample(Gaussian(-1.0), 0.2) and hash(f) == hash(subsample(Gaussian(1.0), 0.2))
