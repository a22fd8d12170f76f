"""The effect of a policy beside DoubleML: the same data, learners and folds give the same numbers."""

import warnings

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from finfluence.assess import policy_effect

doubleml = pytest.importorskip(
    "doubleml", reason="DoubleML is an oracle, not a dependency: pip install doubleml"
)

LINEAR = (LinearRegression(), LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000))
FORESTS = (
    RandomForestRegressor(20, min_samples_leaf=10, random_state=0),
    RandomForestClassifier(20, min_samples_leaf=10, random_state=0),
)


def subjects(columns, n=300):
    rng = np.random.default_rng(4)
    w = rng.normal(size=(n, columns))
    t = rng.random(n) < 1 / (1 + np.exp(-1.5 * w[:, 0]))
    return t, 0.5 * t - w.sum(1) + np.sin(2 * w[:, 0]) + rng.normal(size=n), w


def theirs(t, y, w, models, fold):
    data = doubleml.DoubleMLData.from_arrays(w, y, t.astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = doubleml.DoubleMLIRM(data, *models, n_folds=int(fold.max()) + 1)
        made.set_sample_splitting(
            [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(int(fold.max()) + 1)]
        )
        made.fit()
    return float(made.coef[0]), float(made.se[0])


@pytest.mark.parametrize(
    ("columns", "models", "propensity"),
    [
        (3, LINEAR, "covariates"),
        (3, FORESTS, "covariates"),
        (1, LINEAR, "covariates"),
        (1, LINEAR, "outcome"),
    ],
)
def test_the_same_learners_and_folds_give_the_same_effect_and_error(columns, models, propensity):
    """With one covariate and a linear regression, adjusting for the predicted outcome is adjusting for the covariate."""
    t, y, w = subjects(columns)
    found = policy_effect(t, y, w, models=models, propensity=propensity)
    effect, se = theirs(t, y, w, models, found.fold)
    np.testing.assert_allclose(found.effect, effect, atol=1e-6)
    np.testing.assert_allclose(found.se, se * np.sqrt(len(t) / (len(t) - 1)), atol=1e-6)
