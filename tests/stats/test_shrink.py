"""Shrinkage against closed form, a slow reference, and selection from simulated effects."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from finfluence.stats import ScaleMixture, fit_mixture, posterior, shrink


def test_normal_effects_of_equal_errors_are_shrunken_as_the_closed_form_says() -> None:
    """θ ~ N(m, τ²), θ̂ ~ N(θ, s²): the posterior mean is m + (θ̂ − m)·τ²/(τ² + s²)."""
    rng = np.random.default_rng(0)
    true = 1.0 + 2.0 * rng.normal(size=4000)
    seen = true + 1.5 * rng.normal(size=4000)
    found = shrink(seen, np.full(4000, 1.5))
    kept = 4 / (4 + 2.25)
    bulk = np.abs(seen - 1.0) < 5
    np.testing.assert_allclose(found.mean[bulk], 1.0 + kept * (seen[bulk] - 1.0), atol=0.35)
    assert found.sd[bulk].mean() == pytest.approx(1.5 * kept**0.5, rel=0.05)
    assert found.fitted and np.corrcoef(found.mean, seen)[0, 1] > 0.99


@pytest.mark.parametrize("estimate", [-4.0, 0.3, 2.5])
def test_the_posterior_is_that_of_numerical_integration(estimate: float) -> None:
    prior = ScaleMixture(0.2, np.array([0.0, 0.5, 3.0]), np.array([0.6, 0.3, 0.1]))
    s = 0.8
    mean, sd, sign_error = (float(v[0]) for v in posterior(np.array([estimate]), np.array([s]), prior))

    def slab(power: int, low: float = -np.inf, high: float = np.inf) -> float:
        def density(x: float) -> float:
            parts = [w * norm.pdf(x, 0.2, s * t) for w, t in zip((0.3, 0.1), (0.5, 3.0), strict=True)]
            return x**power * sum(parts) * norm.pdf(estimate, x, s)

        low, high = max(low, -20.0), min(high, 20.0)
        return quad(density, low, high, points=[p for p in (0.2, estimate) if low < p < high], limit=300)[0]

    spike = 0.6 * norm.pdf(estimate, 0.2, s)
    total = spike + slab(0)
    expected = (spike * 0.2 + slab(1)) / total
    assert mean == pytest.approx(expected, rel=1e-6)
    assert sd == pytest.approx(((spike * 0.04 + slab(2)) / total - expected**2) ** 0.5, rel=1e-6)
    agreed = (
        slab(0, low=0.0) if expected > 0 else slab(0, high=0.0)
    ) / total  # the spike has no effect of its own
    assert sign_error == pytest.approx(1 - agreed, rel=1e-6)


def laws(rng: np.random.Generator, n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """True effects and their errors."""
    varied = np.exp(rng.normal(size=n))
    return {
        "normal": (rng.normal(size=n), np.ones(n)),
        "a tenth": (np.where(rng.random(n) < 0.1, 3 * rng.normal(size=n), 0.0), np.ones(n)),
        "heavy tails": (rng.standard_t(3, size=n), 1.5 * np.ones(n)),
        "errors that vary": (varied * rng.normal(size=n), varied),
        "effects that outgrow their errors": (varied**1.5 * rng.normal(size=n), varied),
    }


@pytest.mark.parametrize(
    "law", ["normal", "a tenth", "heavy tails", "errors that vary", "effects that outgrow their errors"]
)
def test_the_top_is_exaggerated_as_estimated_and_not_as_shrunken(law: str) -> None:
    """Means of the 50 largest of 2,000 over 10 worlds; their standard errors are below 4 %."""
    rng = np.random.default_rng(1)
    sums = []
    for _ in range(10):
        true, s = laws(rng, 2000)[law]
        seen = true + s * rng.normal(size=2000)
        found = shrink(seen, s)
        by_seen, by_mean = np.argsort(-seen)[:50], np.argsort(-found.mean)[:50]
        sums.append(
            [v[by_seen].sum() for v in (seen, found.mean, true)]
            + [v[by_mean].sum() for v in (found.mean, true)]
        )
    raw, shrunken, true_sum, own, own_true = np.mean(sums, 0)
    assert raw > 1.1 * true_sum
    assert shrunken == pytest.approx(true_sum, rel=0.15) and own == pytest.approx(own_true, rel=0.15)
    assert own_true >= 0.98 * true_sum  # nor is the list worse


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0])
def test_how_effects_grow_with_their_errors_is_read_off_them_and_never_taken_for_less(
    exponent: float,
) -> None:
    rng = np.random.default_rng(8)
    s = np.exp(0.8 * rng.normal(size=2000))
    seen = s**exponent * rng.normal(size=2000) + s * rng.normal(size=2000)
    assert fit_mixture(seen, s).exponent == pytest.approx(max(1.0, exponent), abs=0.25)
    few = fit_mixture(seen[:12], np.ones(12))
    assert few.exponent == 1.0  # equal errors say nothing of it


def test_the_posterior_of_effects_that_outgrow_their_errors_is_that_of_the_closed_form() -> None:
    """u ~ N(0, 1) alone: what is kept is τ²/(τ² + s²) with τ = s^α s̃^(1−α)."""
    prior = ScaleMixture(0.5, np.array([0.0, 1.0]), np.array([0.0, 1.0]), exponent=1.5, typical=2.0)
    s, seen = np.array([0.5, 2.0, 8.0]), np.array([3.0, -1.0, 9.0])
    variance = (s**1.5 * 2.0**-0.5) ** 2
    kept = variance / (variance + s**2)
    mean, sd, _ = posterior(seen, s, prior)
    np.testing.assert_allclose(mean, 0.5 + kept * (seen - 0.5), rtol=1e-12)
    np.testing.assert_allclose(sd, np.sqrt(kept) * s, rtol=1e-12)


def test_errors_of_any_size_are_no_trouble() -> None:
    rng = np.random.default_rng(9)
    s = 10.0 ** rng.uniform(-60, 30, 400)
    found = shrink(s * rng.standard_t(2, 400), s)
    assert (
        np.isfinite(found.mean).all() and np.isfinite(found.sd).all() and np.isfinite(found.sign_error).all()
    )


def test_where_there_is_nothing_next_to_nothing_is_left_and_the_signs_are_open() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        seen = rng.normal(size=1000)
        found, top = shrink(seen, np.ones(1000)), np.argsort(-seen)[:20]
        assert np.abs(found.mean[top]).sum() < 0.1 * seen[top].sum() and found.sign_error[top].mean() > 0.5


def test_effects_that_stand_out_stay() -> None:
    rng = np.random.default_rng(3)
    seen = rng.normal(size=1000)
    seen[:5] = 30.0
    found = shrink(seen, np.ones(1000))
    assert (np.abs(found.mean[:5] - 30) < 1).all() and (found.sign_error[:5] < 0.01).all()


def test_false_signs_are_as_frequent_as_told() -> None:
    rng, told, made = np.random.default_rng(4), [], []
    for _ in range(20):
        true = np.where(rng.random(1000) < 0.3, 2 * rng.normal(size=1000), 0.0)
        found = shrink(true + rng.normal(size=1000), np.ones(1000))
        top = np.argsort(found.sign_error)[:100]
        told.append(found.sign_error[top].mean())
        made.append((np.sign(true[top]) != np.sign(found.mean[top])).mean())
    assert np.mean(told) == pytest.approx(np.mean(made), abs=0.03)


def test_what_is_certain_unknown_or_alone() -> None:
    found = shrink(np.array([2.0, np.nan, 1.0, 0.0]), np.array([0.0, 1.0, np.nan, 0.0]))
    np.testing.assert_array_equal(found.mean, [2.0, np.nan, np.nan, 0.0])
    np.testing.assert_array_equal(found.sd, [0.0, np.nan, np.nan, 0.0])
    np.testing.assert_array_equal(found.sign_error, [0.0, np.nan, np.nan, 1.0])
    assert not found.fitted
    for count in (0, 1, 9):
        few = shrink(np.arange(1.0, count + 1), np.ones(count))
        np.testing.assert_array_equal(few.mean, np.arange(1.0, count + 1))
        np.testing.assert_allclose(few.sign_error, norm.sf(np.arange(1.0, count + 1)))
        assert not few.fitted
    certain = shrink(np.append(np.random.default_rng(5).normal(size=50), 9.0), np.append(np.ones(50), 0.0))
    assert certain.mean[-1] == 9.0 and certain.sd[-1] == 0.0 and np.isfinite(certain.mean).all()


def test_units_signs_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    seen, s = rng.standard_t(3, size=300), np.exp(0.3 * rng.normal(size=300))
    found, other = shrink(seen, s), shrink(-1e-6 * seen[::-1], 1e-6 * s[::-1])
    np.testing.assert_allclose(other.mean[::-1], -1e-6 * found.mean, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(shrink(seen, s).mean, found.mean)
    constant = shrink(np.full(20, 3.0), np.ones(20))
    np.testing.assert_allclose(constant.mean, 3.0)


def test_the_prior_is_fitted_to_a_part_of_many() -> None:
    rng = np.random.default_rng(7)
    seen = 2 * rng.normal(size=20_000)
    whole, part = fit_mixture(seen, np.ones(20_000)), fit_mixture(seen[:2000], np.ones(2000))
    spread = [float((p.weights * p.scales**2).sum()) for p in (whole, part)]
    assert spread[0] == pytest.approx(3.0, rel=0.1) and spread[0] == pytest.approx(spread[1], rel=0.1)
