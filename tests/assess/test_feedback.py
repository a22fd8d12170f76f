"""Feedback covariate shift: exact numbers, invariances, coverage where the naive interval fails."""

import numpy as np
import pytest

from finfluence.assess import DesignLaw, feedback_interval, scores_and_weights, split_interval
from finfluence.errors import ConfigError, DataError

DOMAIN = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1.0]])
X, Y = DOMAIN[[0, 1, 2, 3, 0]], np.array([0, 1, 1, 3, 0.2])
GRID = np.arange(-1, 5.25, 0.5)


def kept(strength, feedback=True):
    law = DesignLaw(DOMAIN, strength, feedback=feedback)
    return feedback_interval(X, Y, DOMAIN[3], law, GRID, level=0.7)


def test_without_design_the_ordinary_full_conformal_set():
    assert kept(0.0).values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert (kept(0.0).lower, kept(0.0).upper) == (0.0, 3.0)


@pytest.mark.parametrize("feedback", [True, False])
def test_a_strong_design_keeps_the_whole_grid_and_says_unbounded(feedback):
    found = kept(1.0, feedback)
    assert found.values.tolist() == GRID.tolist()
    assert (found.lower, found.upper) == (-np.inf, np.inf)


def test_scores_and_weights_at_a_candidate():
    points = np.vstack([X, DOMAIN[3]])
    scores, weights = scores_and_weights(points, Y, DesignLaw(DOMAIN, 1.0), np.array([2.0]))
    np.testing.assert_allclose(scores[0], [0.218182, 0.461538, 0.461538, 1.2, 0.109091, 0.436364], atol=1e-6)
    told = [0.042798, 0.138322, 0.138322, 0.289297, 0.038421, 0.352841]
    np.testing.assert_allclose(weights[0], told, atol=1e-6)
    _, fixed = scores_and_weights(points, Y, DesignLaw(DOMAIN, 1.0, feedback=False), np.array([2.0]))
    told = [0.034598, 0.110769, 0.110769, 0.354633, 0.034598, 0.354633]
    np.testing.assert_allclose(fixed[0], told, atol=1e-6)


def test_a_level_in_per_cent_is_told():
    with pytest.raises(ConfigError, match=r"write level=0.9"):
        feedback_interval(X, Y, DOMAIN[3], DesignLaw(DOMAIN, 1.0), GRID, level=90)


def test_flat_features_are_told():
    with pytest.raises(DataError, match=r"next step: pass features\[:, None\]"):
        feedback_interval(X[:, 0], Y, DOMAIN[3], DesignLaw(DOMAIN, 1.0), GRID)


def test_a_grid_beside_the_outcomes_is_told():
    with pytest.raises(ConfigError, match="widen the grid"):
        feedback_interval(X, Y, DOMAIN[3], DesignLaw(DOMAIN, 0.0), [50.0, 60.0], level=0.5)


def noise(x):
    return 0.1 + 0.9 * (x > 0.65)


def coverage(strength, feedback, trials=150, n=16):
    """Share of chosen points whose outcome is kept, in a world that scatters most where predictions are largest."""
    rng = np.random.default_rng(5)
    domain = np.linspace(-1, 1, 21)[:, None]
    hits = []
    for _ in range(trials):
        x = domain[rng.integers(21, size=n)]
        y = x[:, 0] + noise(x[:, 0]) * rng.standard_normal(n)
        a = np.column_stack([np.ones(n), x])
        fit = np.linalg.solve(a.T @ a + np.diag([0, 1.0]), a.T @ y)
        chance = np.exp(strength * (fit[0] + fit[1] * domain[:, 0]))
        point = domain[rng.choice(21, p=chance / chance.sum())]
        truth = point[0] + noise(point[0]) * rng.standard_normal()
        law = DesignLaw(domain, strength if feedback else 0.0)
        found = feedback_interval(x, y, point, law, np.linspace(-4, 5, 91), level=0.8)
        hits.append(np.abs(found.values - truth).min() <= 0.051)
    return float(np.mean(hits))


def test_a_chosen_point_is_covered_and_blind_weights_fall_short():
    honest, blind = coverage(8.0, True), coverage(8.0, False)
    assert honest >= 0.8 - 2.5 * np.sqrt(0.16 / 150)
    assert blind < honest - 0.05


def test_a_gaussian_process_predicts_as_its_formula_says():
    rng = np.random.default_rng(0)
    x, at, y = rng.normal(size=(9, 2)), rng.normal(size=(4, 2)), rng.normal(size=9)
    law = DesignLaw(at, 1.0, ridge=0.3, length=0.7)

    def kernel(a, b):
        return np.array([[np.exp(-np.sum((p - q) ** 2) / (2 * 0.49)) for q in b] for p in a])

    inverse = np.linalg.inv(kernel(x, x) + 0.3 * np.eye(9))
    one = np.ones(9)
    constant = one @ inverse @ y / (one @ inverse @ one)  # of a free constant: generalised least squares
    expected = constant + kernel(at, x) @ inverse @ (y - constant)
    np.testing.assert_allclose(law.fit(x, at) @ y, expected, atol=2e-3)


def test_a_gaussian_process_far_wider_than_the_data_chooses_blindly():
    law = DesignLaw(DOMAIN, 0.0, length=1.0)
    blind = feedback_interval(X, Y, DOMAIN[3], law, GRID, level=0.7)
    assert (blind.lower, blind.upper) != (-np.inf, np.inf)
    strong = feedback_interval(X, Y, DOMAIN[3], DesignLaw(DOMAIN, 5.0, length=1.0), GRID, level=0.7)
    assert (strong.lower, strong.upper) == (-np.inf, np.inf)


def test_a_length_of_nothing_is_told():
    with pytest.raises(ConfigError, match=r"(?s)ridge and length above 0.*length 0.0"):
        feedback_interval(X, Y, DOMAIN[3], DesignLaw(DOMAIN, 1.0, length=0.0), GRID)


def test_the_split_form_is_a_weighted_quantile_with_an_atom_at_infinity():
    residuals, weights = [-3.0, 1.0, 2.0, 0.5], [1.0, 4.0, 2.0, 1.0]
    found = split_interval(residuals, weights, 10.0, 2.0, level=0.8)  # reached: .1, .5, .7, .8
    assert (found.lower, found.upper) == (7.0, 13.0)
    assert (split_interval(residuals, weights, 10.0, 2.0, level=0.7).upper) == 12.0
    scaled = split_interval(residuals, np.multiply(weights, 7.0), 10.0, 14.0, level=0.8)
    assert (scaled.lower, scaled.upper) == (found.lower, found.upper)
    assert split_interval(residuals, weights, 10.0, 3.0, level=0.8).lower == -np.inf


@pytest.mark.parametrize(
    ("residuals", "weights", "weight"), [([1.0], [1.0, 2.0], 1.0), ([1.0, 2.0], [1.0, np.inf], 1.0), ([], [], 1.0),
                                         ([1.0], [0.0], 0.0), ([1.0], [-1.0], 3.0)]
)  # fmt: skip
def test_weights_that_are_none_are_told(residuals, weights, weight):
    with pytest.raises(DataError, match="subtract the largest exponent"):
        split_interval(residuals, weights, 1.0, weight)
