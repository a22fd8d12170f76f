"""Effects of inclusion by a policy: closed forms, bias where it must be, variance where it can be spared."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression

from finfluence.assess import policy_effect
from finfluence.errors import ConfigError, DataError

LINEAR = (LinearRegression(), LogisticRegression(C=1e6))


def subjects(seed: int, n: int = 400, effect: float = 0.5):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(n, 2))
    t = rng.random(n) < 1 / (1 + np.exp(-1.5 * w[:, 0]))
    return t, effect * t - w[:, 0] + 0.5 * w[:, 1] + rng.normal(size=n), w


def test_without_information_it_is_the_difference_of_arms_up_to_the_folds():
    rng = np.random.default_rng(0)
    t = np.tile([True, False], 200)
    y = rng.normal(size=400) + 2.0 * t
    found = policy_effect(
        t, y, np.zeros((400, 1)), models=(DummyRegressor(), DummyClassifier()), propensity="covariates"
    )
    np.testing.assert_allclose(found.effect, found.difference, atol=1e-3)
    np.testing.assert_allclose(found.se, np.sqrt(2 * (y - 2.0 * t).var() / 200), rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("propensity", ["outcome", "covariates"])
def test_intervals_cover_the_effect_that_the_plain_difference_misses(propensity):
    found = [policy_effect(*subjects(s), models=LINEAR, propensity=propensity) for s in range(60)]
    covered = np.mean([f.lower <= 0.5 <= f.upper for f in found])
    assert covered > 0.85
    np.testing.assert_allclose(np.mean([f.effect for f in found]), 0.5, atol=0.06)
    assert np.mean([f.difference for f in found]) < -0.2


@pytest.mark.slow
def test_one_right_model_of_two_is_enough_and_none_is_not():
    def mean(models):
        return np.mean(
            [
                policy_effect(*subjects(s, 800), models=models, propensity="covariates").effect
                for s in range(15)
            ]
        )

    assert mean((LinearRegression(), DummyClassifier())) == pytest.approx(0.5, abs=0.08)
    assert mean((DummyRegressor(), LogisticRegression(C=1e6))) == pytest.approx(0.5, abs=0.12)
    assert mean((DummyRegressor(), DummyClassifier())) < 0.1


def test_dropping_a_true_confounder_biases_the_estimate():
    t, y, w = subjects(3, 2000)
    assert policy_effect(t, y, w[:, 1:], models=LINEAR).upper < 0.3


@pytest.mark.slow
def test_what_drives_the_policy_alone_costs_no_variance_where_the_outcome_is_adjusted_for():
    def one(seed):
        rng = np.random.default_rng(seed)
        w = np.column_stack([rng.integers(2, size=1000), rng.normal(size=1000)])
        t = rng.random(1000) < np.where(w[:, 0] > 0, 0.97, 0.03)
        y = t + w[:, 1] + rng.normal(size=1000)
        models = (Lasso(0.05), LogisticRegression(C=1e6))
        return [policy_effect(t, y, w, models=models, propensity=p) for p in ("covariates", "outcome")]

    found = [one(s) for s in range(12)]
    everything, outcome_only = (np.var([f[k].effect for f in found]) for k in (0, 1))
    assert outcome_only < 0.4 * everything
    assert np.mean([f[1].se for f in found]) < 0.6 * np.mean([f[0].se for f in found])


def test_too_little_overlap_is_said():
    rng = np.random.default_rng(5)
    w = rng.normal(size=(600, 1))
    t = w[:, 0] + 0.05 * rng.normal(size=600) > 0
    found = policy_effect(t, t + w[:, 0], w, models=LINEAR, propensity="covariates")
    assert any("nothing to compare with" in f for f in found.findings)
    assert "all but certain" in str(found)


@pytest.mark.slow
def test_default_models_follow_a_curved_outcome():
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        w = rng.normal(size=(900, 1))
        curve = np.sin(2 * w[:, 0])
        t = rng.random(900) < 1 / (1 + np.exp(-1.5 * curve))
        found.append(policy_effect(t, 0.3 * t + curve + 0.3 * rng.normal(size=900), w))
    errors = np.array([f.effect - 0.3 for f in found])
    assert sum(f.lower <= 0.3 <= f.upper for f in found) >= 5 and np.abs(errors).mean() < 0.04
    assert min(f.difference for f in found) > 0.7
    assert "raises" in str(found[0])


def test_the_seed_is_of_the_folds():
    first, again, other = (policy_effect(*subjects(7), models=LINEAR, seed=s).effect for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t, y, w: ((t, y, w[:, 0]), {}), DataError, r"covariates\[:, None\]"),
        (lambda t, y, w: ((t, y, np.where(w > 2, np.nan, w)), {}), DataError, "impute covariates"),
        (lambda t, y, w: ((np.arange(len(t)) < 5, y, w), {}), DataError, "5 included, 395 not"),
        (lambda t, y, w: ((t, y, w), {"propensity": "all"}), ConfigError, "outcome, covariates"),
    ],
)
def test_bad_subjects_are_told(change, error, words):
    arguments, options = change(*subjects(8))
    with pytest.raises(error, match=words):
        policy_effect(*arguments, **options)


class Known(ClassifierMixin, BaseEstimator):
    """The true chance of inclusion: .99 or .01 by the first covariate; one half where it sees a predicted outcome."""

    def fit(self, x, t):
        self.classes_ = np.array([False, True])
        return self

    def predict_proba(self, x):
        p = np.where(x[:, 0] > 0, 0.99, 0.01) if x.shape[1] > 1 else np.full(len(x), 0.5)
        return np.column_stack([1 - p, p])


def test_the_inverse_weight_of_what_drives_the_policy_alone():
    w = np.column_stack([np.tile([0.0, 1.0], 500), np.random.default_rng(0).normal(size=1000)])
    t = np.arange(1000) % 20 < 10
    models = (DummyRegressor(), Known())
    full, outcome = (
        policy_effect(t, w[:, 1], w, models=models, propensity=p) for p in ("covariates", "outcome")
    )
    assert np.mean(1 / full.propensity) == pytest.approx(50.505, abs=5e-4)
    assert np.mean(1 / outcome.propensity) == pytest.approx(2.0)


def test_every_subject_is_predicted_by_models_of_the_other_folds():
    t, y, w = subjects(1)
    found = policy_effect(t, y, w, models=LINEAR, propensity="covariates")
    expected = np.empty(len(t))
    for k in range(5):
        fold = found.fold == k
        inverse, centre = np.empty((2, fold.sum())), np.empty((2, fold.sum()))
        p = LINEAR[1].fit(w[~fold], t[~fold]).predict_proba(w[fold])[:, 1]
        for arm, chance in ((0, 1 - p), (1, p)):
            g = LINEAR[0].fit(w[~fold & (t == arm)], y[~fold & (t == arm)]).predict(w[fold])
            centre[arm], inverse[arm] = g, (t[fold] == arm) / np.clip(chance, 0.01, 0.99) * (y[fold] - g)
        expected[fold] = (centre + inverse)[1] - (centre + inverse)[0]
    np.testing.assert_allclose(found.effect, expected.mean(), rtol=1e-9)
    np.testing.assert_allclose(found.se, expected.std(ddof=1) / 20, rtol=1e-9)
