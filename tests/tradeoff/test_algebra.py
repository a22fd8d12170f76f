"""Axioms of the algebra, and its operations against slow definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from finfluence.tradeoff import (
    Blatant,
    EpsilonDelta,
    Gaussian,
    Laplace,
    Perfect,
    PiecewiseLinear,
    compose,
    from_discrete,
    from_distributions,
    group,
    minimum,
    mixture,
    subsample,
    subsample_fixed,
    symmetrise,
)
from tradeoff.curves import LEVELS, close, curves, few, finite, smooth

rates = st.floats(0, 1)
EPS = np.array([-1.5, -0.4, 0.0, 0.3, 1.0, 2.5])


@few
@given(finite(4), finite(4), finite(3))
def test_finite_composition_is_exact_commutative_and_associative(f, g, h):
    close(f @ g, g @ f, 1e-12)
    close((f @ g) @ h, f @ (g @ h), 1e-12)
    assert (f @ g).bound == "exact"
    joint = [np.outer(a, b).ravel() for a, b in zip(f.atoms, g.atoms, strict=True)]
    close(f @ g, from_discrete(*joint), 1e-12)


@few
@given(curves)
def test_perfect_is_the_unit_and_blatant_absorbs(f):
    assert f @ Perfect() == Perfect() @ f == f.optimal
    assert f @ Blatant() == Blatant() @ f == Blatant()
    assert f**1 == f.optimal
    assert f**0 == Perfect()


@few
@given(st.lists(st.one_of(smooth, finite(3)), min_size=2, max_size=3), st.randoms(use_true_random=False))
def test_numerical_composition_is_ordered_commutative_and_below_its_parts(pairs, random):
    low, middle, up = (compose(pairs, bound=b, cells=2**13) for b in ("lower", "estimate", "upper"))
    assert np.all(low(LEVELS) <= np.asarray(middle(LEVELS)) + 1e-9)
    assert np.all(middle(LEVELS) <= np.asarray(up(LEVELS)) + 1e-9)
    for f in pairs:
        assert np.all(low(LEVELS) <= np.asarray(f.type_two(LEVELS)) + 1e-9)
    random.shuffle(pairs)
    close(compose(pairs, bound="lower", cells=2**13), low, 1e-9)


@few
@given(smooth, smooth, finite(3))
def test_numerical_composition_is_associative_within_its_bounds(f, g, h):
    low, up = (compose([f, g, h], bound=b, cells=2**13) for b in ("lower", "upper"))
    for nested in ((f @ g) @ h, f @ (g @ h)):
        assert nested.bound in ("exact", "estimate")
        assert np.all(nested(LEVELS) >= np.asarray(low(LEVELS)) - 1e-4)
        assert np.all(nested(LEVELS) <= np.asarray(up(LEVELS)) + 1e-4)


@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_powers_of_epsilon_delta_are_binomial(eps):
    k, slack = 12, 0.01
    share = np.exp(eps) / (1 + np.exp(eps))
    high = binom.pmf(np.arange(k + 1), k, share) * (1 - slack) ** k
    low = binom.pmf(np.arange(k + 1), k, 1 - share) * (1 - slack) ** k
    none = 1 - (1 - slack) ** k
    truth = from_discrete(np.append(low, [none, 0.0]), np.append(high, [0.0, none]))
    composed = EpsilonDelta(eps, slack) ** k
    assert composed.bound == "exact" and composed.alpha.size <= k + 4
    close(composed, truth, 1e-12)
    np.testing.assert_allclose(composed.delta(EPS), truth.delta(EPS), atol=1e-13)


@pytest.mark.parametrize(("mu", "count"), [(0.05, 400), (0.3, 20), (1.0, 30), (2.0, 2)])
@pytest.mark.parametrize("bound", ["lower", "upper"])
def test_fft_composition_against_the_gaussian_closed_form(mu, count, bound):
    # the grid knows nothing of closed forms: Subsampled at a rate of 1 - 1e-12 is a Gaussian to 1e-12 a step
    f = compose([subsample(Gaussian(mu), 1 - 1e-12)], [count], bound)
    truth = Gaussian(mu * count**0.5)
    level = LEVELS[1:]  # at 0 the curve jumps by whatever mass the window may have cut off
    gap = (np.asarray(f(level)) - truth(level)) * (1 if bound == "upper" else -1)
    assert f.bound == bound
    assert np.all(gap >= -count * 1e-12)
    assert np.all(gap <= 5e-6)
    off = (np.asarray(f.delta(EPS)) - truth.delta(EPS)) * (1 if bound == "lower" else -1)
    assert np.all(off >= -count * 1e-11)
    assert np.all(off <= 2e-6)


def test_bounds_close_in_with_the_square_of_the_cells():
    f = subsample(Gaussian(1.0), 0.05)
    gaps = []
    for cells in (2**12, 2**14):
        low, up = (compose([f], [100], b, cells) for b in ("lower", "upper"))
        gaps.append(float(np.max(np.asarray(up(LEVELS)) - low(LEVELS))))
    assert gaps[1] < gaps[0] / 8
    assert gaps[1] < 1e-4


def test_composition_of_finite_pairs_by_fft_encloses_the_exact_one():
    f, g = from_discrete([0.5, 0.3, 0.2], [0.3, 0.3, 0.4]), EpsilonDelta(0.2, 1e-4)
    exact = compose([f, g], [5, 7])
    assert exact.bound == "exact"
    almost = subsample(Laplace(1e-9), 0.5)  # no atoms: forces the FFT, changes nothing above 1e-9
    low, up = (compose([f, g, almost], [5, 7, 1], b) for b in ("lower", "upper"))
    assert np.all(low(LEVELS) <= np.asarray(exact(LEVELS)) + 1e-9)
    assert np.all(up(LEVELS) >= np.asarray(exact(LEVELS)) - 1e-9)
    np.testing.assert_allclose(low(LEVELS), up(LEVELS), atol=2e-3)
    # the delta of the steps is kept as such, not rounded to some large finite ratio
    assert up.delta(10.0) == pytest.approx(1 - (1 - 1e-4) ** 7, rel=1e-3)


def test_direction_follows_the_operands():
    low, up = (PiecewiseLinear.of(Gaussian(0.5), b) for b in ("lower", "upper"))
    small = [PiecewiseLinear([0, 0.3, 1], [1, 0.4, 0], b) for b in ("lower", "upper", "estimate")]
    assert (low @ Gaussian(1.0)).bound == "lower" and (Gaussian(1.0) @ up).bound == "upper"
    assert (small[0] @ small[0]).bound == "lower" and (small[0] @ small[1]).bound == "estimate"
    assert (small[1] @ small[2]).bound == "estimate"
    assert mixture([low, Gaussian(1.0)], [0.5, 0.5]).bound == "lower"
    assert minimum(up, Laplace(1.0)).bound == "upper"
    assert (
        low.inverse().bound
        == group(low, 2).bound
        == subsample(low, 0.5).bound
        == symmetrise(low).bound
        == "lower"
    )
    assert (Laplace(0.3) @ Gaussian(0.3)).bound == "estimate"
    truth = PiecewiseLinear.of(Gaussian(1.0) @ Gaussian(0.5))
    assert np.all((low @ Gaussian(1.0))(LEVELS) <= np.asarray(truth(LEVELS)) + 1e-9)


@few
@given(curves, curves, rates)
def test_mixture_lies_between_and_mixes_the_profile(f, g, w):
    mixed, least = mixture([f, g], [w, 1 - w]), minimum(f, g)
    top = np.maximum(f.type_two(LEVELS), g.type_two(LEVELS))
    assert np.all(mixed(LEVELS) <= top + 2e-5)  # polygons stand for smooth curves
    assert np.all(mixed(LEVELS) >= np.asarray(least(LEVELS)) - 2e-5)
    expected = w * np.asarray(f.delta(EPS)) + (1 - w) * np.asarray(g.delta(EPS))
    np.testing.assert_allclose(mixed.delta(EPS), expected, atol=1e-5)


@few
@given(curves, curves)
def test_minimum_is_below_both_and_has_the_larger_profile(f, g):
    least = minimum(f, g)
    assert np.all(least(LEVELS) <= np.minimum(f.type_two(LEVELS), g.type_two(LEVELS)) + 1e-5)
    np.testing.assert_allclose(least.delta(EPS), np.maximum(f.delta(EPS), g.delta(EPS)), atol=1e-5)
    close(minimum(g, f), least, 1e-9)


@few
@given(curves)
def test_symmetrisation_is_symmetric_and_below(f):
    s = symmetrise(f)
    close(s, s.inverse(), 1e-5)
    assert np.all(s(LEVELS) <= np.asarray(f.type_two(LEVELS)) + 1e-5)
    assert np.all(s(LEVELS) <= np.asarray(f.optimal.inverse()(LEVELS)) + 1e-5)


@few
@given(curves, rates, rates, st.sampled_from(["first", "second"]))
def test_subsampling_is_monotone_with_the_right_ends(f, a, b, mixed):
    assert subsample(f, 0.0, mixed) == Perfect()
    assert subsample(f, 1.0, mixed) == f.optimal
    less, more = (subsample(f, rate, mixed) for rate in sorted((a, b)))
    assert np.all(less(LEVELS) >= np.asarray(more(LEVELS)) - 1e-9)
    assert less.total_variation == pytest.approx(min(a, b) * f.total_variation, abs=1e-9)


@few
@given(curves, rates)
def test_subsampled_curve_is_the_mixture_of_laws(f, p):
    second = subsample(f, p)
    np.testing.assert_allclose(
        second(LEVELS), p * np.asarray(f.type_two(LEVELS)) + (1 - p) * (1 - LEVELS), atol=1e-9
    )
    close(second.inverse(), subsample(f.optimal.inverse(), p, "first"), 1e-9)


@few
@given(curves, finite(3), rates)
def test_operations_keep_the_order_of_curves(f, g, p):
    least = minimum(f, g)
    for change in (
        lambda c: subsample(c, p),
        symmetrise,
        lambda c: group(c, 2),
        lambda c: mixture([c, g], [0.5, 0.5]),
    ):
        assert np.all(np.asarray(change(least)(LEVELS)) <= np.asarray(change(f)(LEVELS)) + 1e-5)


def test_post_processing_only_raises_the_curve():
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(6), 2)
    channel = rng.dirichlet(np.ones(4), 6)  # any random relabelling of the outcomes
    assert np.all(
        from_discrete(p @ channel, q @ channel)(LEVELS) >= np.asarray(from_discrete(p, q)(LEVELS)) - 1e-12
    )


def test_subsample_fixed_follows_dong_roth_su():
    p, mu = 0.35, 1.8
    f = subsample_fixed(Gaussian(mu), 35, 100, "lower")
    star = norm.cdf(-mu / 2)  # the fixed point of G_mu
    f_p = subsample(Gaussian(mu), p)
    left = np.array([0.01, 0.05, star])
    np.testing.assert_allclose(f(left), f_p(left), atol=1e-5)
    right = f_p(star)
    np.testing.assert_allclose(f(right), star, atol=1e-5)
    middle = (star + right) / 2
    assert f(middle) == pytest.approx(middle, abs=1e-5)  # the linear piece of slope -1
    assert subsample_fixed(Gaussian(mu), 5, 5) == Gaussian(mu)
    assert subsample_fixed(Gaussian(mu), 0, 5) == Perfect()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_group_of_families_and_of_polygons(count):
    assert group(Gaussian(0.3), count).mu == pytest.approx(0.3 * count)
    assert group(Laplace(0.3), count).mu == pytest.approx(0.3 * count)
    for bound, sign in (("lower", 1), ("upper", -1)):
        numeric = group(PiecewiseLinear.of(Gaussian(0.3), bound), count)
        gap = sign * (Gaussian(0.3 * count)(LEVELS) - np.asarray(numeric(LEVELS)))
        assert np.all(gap >= -1e-8) and np.all(gap < 1e-4)


@few
@given(finite(4), st.integers(0, 4))
def test_group_is_the_iterate(f, count):
    value = LEVELS
    for _ in range(count):
        value = 1 - np.asarray(f(value))
    np.testing.assert_allclose(group(f, count)(LEVELS), 1 - value, atol=1e-9)


def test_partial_order_of_two_rare_and_common_changes():
    # a shift of one deviation always, against ten deviations with probability 0.1
    common, rare = Gaussian(1.0), subsample(Gaussian(10.0), 0.1)
    assert (common(0.05), rare(0.05)) == pytest.approx((0.74049, 0.85500), abs=5e-6)
    assert (common(0.001), rare(0.001)) == pytest.approx((0.98170, 0.89910), abs=5e-6)
    assert common(0.0133498) == pytest.approx(rare(0.0133498), abs=1e-6)
    assert common(0.0133498) == pytest.approx(0.8879852, abs=1e-6)


def test_directions_differ():
    f = from_distributions(norm(), norm(0.3, 1.2))
    assert abs(f(0.05) - f.inverse()(0.05)) > 0.01
    close(f.inverse(), from_distributions(norm(0.3, 1.2), norm()), 2e-5)
