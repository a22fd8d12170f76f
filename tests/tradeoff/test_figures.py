"""Figures worked out independently: subsampled steps, unequal spreads, limits."""

import math

import numpy as np
import pytest
from scipy.stats import expon, norm, uniform

from finfluence.errors import ConfigError, DataError
from finfluence.tradeoff import (
    Blatant,
    EpsilonDelta,
    Gaussian,
    Laplace,
    Perfect,
    PiecewiseLinear,
    Subsampled,
    central_limit,
    compose,
    compose_counts,
    counts_on_grid,
    from_discrete,
    from_distributions,
    from_profile,
    from_samples,
    group,
    hull,
    mixture,
    subsample,
    subsample_fixed,
    subsampled_limit,
)

LEVEL = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.9])


@pytest.mark.parametrize("mixed", ["first", "second"])
def test_a_thousand_subsampled_gaussian_steps(mixed):
    step = subsample(Gaussian(1.0), 0.01, mixed)
    low, estimate, up = (compose([step], [1000], bound) for bound in ("lower", "estimate", "upper"))
    assert estimate.total_variation == pytest.approx(0.16102, abs=5e-6)
    assert up.total_variation < estimate.total_variation <= low.total_variation
    assert low.total_variation - up.total_variation < 5e-5
    if mixed == "second":  # the larger of the two directions
        assert estimate.epsilon(1e-5) == pytest.approx(1.828, abs=5e-4)
        assert up.epsilon(1e-5) <= estimate.epsilon(1e-5) <= low.epsilon(1e-5)


def test_the_central_limit_says_otherwise():
    limit = Gaussian(subsampled_limit(0.01, 1000, 1.0))
    assert limit.total_variation == pytest.approx(0.16419, abs=5e-6)
    assert limit.epsilon(1e-5) == pytest.approx(1.618, abs=5e-4)
    assert subsampled_limit(0.1, 100, 0.5) == pytest.approx(0.532940, abs=5e-7)


def test_unequal_spreads_in_one_direction():
    truth = [0.9543, 0.8682, 0.7918, 0.6178, 0.3895, 0.0753]
    p, q = norm(), norm(0.3, 1.2)
    low, up = (from_distributions(p, q, bound, 2**14) for bound in ("lower", "upper"))
    assert np.all(low(LEVEL) <= np.asarray(up(LEVEL)))
    np.testing.assert_allclose(up(LEVEL), low(LEVEL), atol=1e-6)
    np.testing.assert_allclose(low(LEVEL), truth, atol=1.01e-4)  # printed to four places
    kl = math.log(1.2) + (1 + 0.3**2) / (2 * 1.2**2) - 0.5
    assert up.kl == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize(
    ("p", "q", "curve"),
    [
        (norm(), norm(1.0), Gaussian(1.0)),
        (norm(2, 3), norm(0.5, 3), Gaussian(0.5)),
        (uniform(0, 1), uniform(0.25, 1), PiecewiseLinear([0, 0.75, 1], [0.75, 0, 0])),
        (uniform(0, 1), uniform(5, 1), Blatant()),
    ],
)
def test_distributions_with_known_curves(p, q, curve):
    low, up = (from_distributions(p, q, bound) for bound in ("lower", "upper"))
    assert np.all(low(LEVEL) <= np.asarray(curve(LEVEL)) + 1e-9)
    assert np.all(up(LEVEL) >= np.asarray(curve(LEVEL)) - 1e-9)
    np.testing.assert_allclose(low(LEVEL), up(LEVEL), atol=2e-3)


def test_exponential_laws_are_directional():
    f = from_distributions(expon(scale=1.0), expon(scale=2.0))
    np.testing.assert_allclose(
        f(LEVEL), 1 - LEVEL**0.5, atol=1e-5
    )  # reject x > t: alpha = e^-t, beta = 1 - e^(-t/2)
    np.testing.assert_allclose(f.inverse()(LEVEL), (1 - LEVEL) ** 2, atol=1e-5)


def test_two_samples_against_counting():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=60), rng.normal(1.0, size=50)
    for tail, sign in (("upper", 1.0), ("lower", -1.0)):
        f = from_samples(x, y, tail)
        for tau in np.linspace(-3, 3, 61):
            assert f(np.mean(sign * x > tau)) <= np.mean(sign * y <= tau) + 1e-12
    assert from_samples(x, y).auc >= from_samples(x, y, "upper").auc
    assert from_samples(x, x, "upper").total_variation < 1e-12
    assert from_samples([0.0, 1.0], [2.0, 3.0]).total_variation == 1.0


def test_two_samples_find_the_curve_of_their_laws():
    rng = np.random.default_rng(7)
    n = 40_000
    f = from_samples(rng.normal(size=n), rng.normal(1.0, size=n), "upper")
    # two empirical distribution functions, each within 4.3/(2 sqrt n) with probability 1 - 2e-8 (Dvoretzky-Kiefer-Wolfowitz)
    np.testing.assert_allclose(f(LEVEL), Gaussian(1.0)(LEVEL), atol=4.3 / n**0.5 * 2)


def test_profiles_there_and_back():
    eps = np.linspace(-4, 4, 400)
    f = from_profile(eps, Gaussian(1.0).delta(eps))
    assert f.bound == "lower"
    assert np.all(f(LEVEL) <= Gaussian(1.0)(LEVEL) + 1e-12)
    np.testing.assert_allclose(f(LEVEL), Gaussian(1.0)(LEVEL), atol=1e-4)
    half = from_profile(eps[200:], Gaussian(1.0).delta(eps[200:]), symmetric=True)
    np.testing.assert_allclose(half(LEVEL), f(LEVEL), atol=1e-4)
    several = from_profile([0.5, 2.0, 1.0], [0.2, 0.01, 0.9])
    a = np.linspace(0, 1, 101)
    lines = np.maximum.reduce(
        [1 - d - np.exp(e) * a for e, d in [(0.5, 0.2), (2.0, 0.01), (1.0, 0.9)]] + [0 * a]
    )
    np.testing.assert_allclose(several(a), lines, atol=1e-12)


@pytest.mark.parametrize("curves", [[Gaussian(0.1)], [Laplace(0.1)], [subsample(Gaussian(1.0), 0.2)]])
def test_the_composed_curve_lies_in_the_band_of_the_central_limit(curves):
    limit = central_limit(curves, [400])
    low, up = (compose(curves, [400], bound) for bound in ("lower", "upper"))
    band = limit.band(LEVEL)
    assert limit.error < 0.5
    assert np.all(band[0] <= np.asarray(up(LEVEL))) and np.all(np.asarray(low(LEVEL)) <= band[2])
    assert np.all(band[0] <= band[1]) and np.all(band[1] <= band[2] + 1e-12)
    assert np.max(np.abs(np.asarray(up(LEVEL)) - band[1])) < limit.error


def test_central_limit_of_gaussians_is_their_composition():
    limit = central_limit([Gaussian(0.3), Gaussian(-0.4)], [1, 1])
    assert limit.mu == pytest.approx(0.5)
    assert limit.curve.mu == limit.mu
    assert limit.error == pytest.approx(0.56 * 2 * math.sqrt(2 / math.pi) * (0.027 + 0.064) / 0.125)


@pytest.mark.parametrize("bound", ["lower", "estimate", "upper"])
def test_batches_agree_with_single_compositions_and_closed_forms(bound):
    grid = np.geomspace(0.02, 0.1, 24)
    rng = np.random.default_rng(1)
    mus = rng.uniform(0.02, 0.1, (7, 200))
    many = compose_counts([Gaussian(mu) for mu in grid], counts_on_grid(mus, grid, bound), bound, 2**13)
    truth = [Gaussian(float(np.linalg.norm(row))) for row in mus]
    sign = {"lower": 1, "upper": -1, "estimate": 0}[bound]
    exact = {
        "tv": [f.total_variation for f in truth],
        "delta": [f.delta(0.5) for f in truth],
        "power": [f.power(0.05) for f in truth],
    }
    ours = {"tv": many.total_variation, "delta": many.delta(0.5), "power": many.power(0.05)}
    for name, value in ours.items():
        gap = value - exact[name]
        assert np.all(sign * gap >= -1e-12)
        np.testing.assert_allclose(value, exact[name], rtol=0.1, err_msg=name)
    assert len(many) == 7 and many.bound == many[3].bound == bound
    np.testing.assert_allclose([many[i].total_variation for i in range(7)], many.total_variation, atol=1e-9)
    np.testing.assert_allclose([many[i].delta(0.5) for i in range(7)], many.delta(0.5), atol=1e-9)
    np.testing.assert_allclose([many[i].power(0.05) for i in range(7)], many.power(0.05), atol=1e-6)


def test_a_batch_of_different_steps_encloses_the_finer_single_composition():
    steps = [subsample(Gaussian(1.0), 0.02), Laplace(0.02), EpsilonDelta(0.01, 1e-5), Perfect()]
    counts = np.array([[50, 0, 10, 1], [0, 90, 3, 0], [20, 20, 20, 20]])
    low, up = (compose_counts(steps, counts, bound) for bound in ("lower", "upper"))
    for row in range(3):
        fine = compose(steps, counts[row].tolist(), "lower")
        assert np.all(low[row](LEVEL) <= np.asarray(fine(LEVEL)) + 1e-5)
        assert np.all(up[row](LEVEL) >= np.asarray(fine(LEVEL)) - 1e-9)
        assert up.total_variation[row] <= fine.total_variation <= low.total_variation[row] + 1e-5
    with pytest.raises(IndexError, match="row 3 of 3"):
        low[3]


def test_counts_on_a_grid_round_the_way_they_say():
    grid, values = np.array([0.0, 1.0, 2.0]), np.array([[0.0, 0.4, 0.6, 2.0]])
    assert counts_on_grid(values, grid, "lower").tolist() == [[1, 2, 1]]
    assert counts_on_grid(values, grid, "upper").tolist() == [[3, 0, 1]]
    assert counts_on_grid(values, grid).tolist() == [[2, 1, 1]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: EpsilonDelta(-1.0), ConfigError, ["finite eps", "-1.0", "wrong sign", "Blatant"]),
        (lambda: EpsilonDelta(1.0, 2.0), ConfigError, ["slack between 0 and 1", "2.0", "percent", "divide"]),
        (lambda: Laplace(-1.0), ConfigError, ["mu, 0 or more", "-1.0", "signed effect", "abs"]),
        (
            lambda: Subsampled(Gaussian(1), 1.0),
            ConfigError,
            ["strictly between", "rate=1.0", "percent", "subsample"],
        ),
        (
            lambda: PiecewiseLinear([0, 0.5, 1], [1, 0.9, 0]),
            ConfigError,
            ["convex, falling", "above 1 - alpha", "power", "hull"],
        ),
        (
            lambda: PiecewiseLinear([0, 0.2, 0.4, 1], [1, 0.7, 0.05, 0]),
            ConfigError,
            ["convex", "not convex", "empirical", "hull"],
        ),
        (
            lambda: PiecewiseLinear([0, 0.2, 1], [0.5, 0.6, 0]),
            ConfigError,
            ["convex", "rises", "another order", "sorted"],
        ),
        (
            lambda: PiecewiseLinear([0.1, 1], [0.5, 0]),
            ConfigError,
            ["corners", "from 0.1 to 1", "order", "sorted"],
        ),
        (lambda: PiecewiseLinear([0, 1], [math.nan, 0]), ConfigError, ["corners", "NaN", "order", "sorted"]),
        (
            lambda: PiecewiseLinear([0, 1], [1]),
            ConfigError,
            ["corners", "2 values of alpha and 1", "order", "sorted"],
        ),
        (
            lambda: PiecewiseLinear([0, 1], [1, 0], "low"),
            ConfigError,
            ["bound one of exact", "'low'", "misspelt", "estimate"],
        ),
        (
            lambda: compose([Laplace(1), Gaussian(1)], bound="exact"),
            ConfigError,
            ["lower, estimate", "'exact'", "numerical", "compare"],
        ),
        (
            lambda: compose([hull([0.2], [0.3]), Laplace(1)], bound="lower"),
            ConfigError,
            ["allow a lower", "estimate", "plug-in", "exact or bounds"],
        ),
        (lambda: Gaussian(1) ** 0.5, ConfigError, ["whole number", "0.5", "fraction", "Perfect()"]),
        (lambda: group(Gaussian(1), -1), ConfigError, ["whole number", "-1", "negative", "Perfect()"]),
        (lambda: Gaussian(1).renyi(0.0), ConfigError, ["order above 0", "0.0", "supports", "Kullback"]),
        (lambda: mixture([Gaussian(1)], [0.5]), ConfigError, ["1 weights", "0.5", "counts", "their sum"]),
        (
            lambda: subsample_fixed(Gaussian(1), 9, 3),
            ConfigError,
            ["taken at most rows", "taken=9", "wrong order", "batch size first"],
        ),
        (
            lambda: from_samples([], [1.0]),
            DataError,
            ["finite value in with_rows", "0 values", "diverged", "leave them out"],
        ),
        (
            lambda: from_samples([1.0], [math.nan]),
            DataError,
            ["without_rows", "1 of them NaN", "empty arm", "those runs"],
        ),
        (
            lambda: from_samples([1.0], [1.0], "both"),
            ConfigError,
            ["two-sided", "'both'", "misspelt", "before looking"],
        ),
        (
            lambda: from_discrete([1, 2], [1, 2]),
            DataError,
            ["probabilities", "summing to 3", "counts", "totals"],
        ),
        (
            lambda: from_distributions(norm(), norm(1), "exact"),
            ConfigError,
            ["lower, estimate", "'exact'", "integrated", "compare"],
        ),
        (
            lambda: from_profile([math.inf], [0.1]),
            ConfigError,
            ["-300 to 300", "1 of epsilon", "infinite", "nothing"],
        ),
        (
            lambda: central_limit([EpsilonDelta(1, 0.1)]),
            ConfigError,
            ["third moment", "infinite under P", "only one", "compose numerically"],
        ),
        (
            lambda: central_limit([Perfect()]),
            ConfigError,
            ["that vary", "constant", "only perfect", "Perfect()"],
        ),
        (
            lambda: compose_counts([Gaussian(1)], [[0.5]]),
            ConfigError,
            ["table of whole numbers", "fractions", "exchanged", "count how often"],
        ),
        (
            lambda: counts_on_grid([0.5], [1.0, 2.0]),
            ConfigError,
            ["rising grid", "2 points", "signed or missing", "geomspace"],
        ),
    ],
)
def test_words_of_the_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    lines = str(caught.value).split("\n")
    assert len(lines) == 4
    for line, word in zip(lines, words, strict=True):
        assert word in line
