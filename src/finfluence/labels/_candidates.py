"""Standard models of scikit-learn that out-of-fold predictions are taken from."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from finfluence.errors import ConfigError, explain

MOST_BOOSTED_FEATURES = 120
MOST_BOOSTED_CLASSES = 5
MOST_LINEAR_CELLS = 2e8
TREES = 100
BOOSTED = "boosted trees"

Candidate = Callable[[], Any]


def candidates(task: str, rows: int, features: int, classes: int, seed: int) -> Mapping[str, Candidate]:
    """Return factories of unfitted models by name.

    A regularised linear model, extremely randomised trees and boosted trees; a model is left out where its cost grows
    out of proportion: boosting above 120 features or 5 classes, the linear one above 2e8 cells times classes.

    Parameters
    ----------
    task
        "classification" or "regression".

    Returns
    -------
    mapping
        Name to a function without arguments.

    Raises
    ------
    ConfigError
        scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import (
            ExtraTreesClassifier,
            ExtraTreesRegressor,
            HistGradientBoostingClassifier,
            HistGradientBoostingRegressor,
        )
        from sklearn.linear_model import LogisticRegression, RidgeCV
    except ImportError as error:
        raise ConfigError(
            explain(
                "scikit-learn, whose models judge labels that they have not seen",
                "no such package",
                "finfluence was installed without its extra 'data'",
                "install finfluence with the extra 'data', or scikit-learn itself",
            )
        ) from error
    trees = {"n_estimators": TREES, "random_state": seed, "n_jobs": 1}
    boosting = {"max_iter": 60, "max_leaf_nodes": 15, "early_stopping": False, "random_state": seed}
    cheap = rows * features * max(1, classes) <= MOST_LINEAR_CELLS
    boosted = features <= MOST_BOOSTED_FEATURES and classes <= MOST_BOOSTED_CLASSES
    if task == "regression":
        found: dict[str, Candidate] = {
            "linear": lambda: RidgeCV(np.geomspace(1e-2, 1e4, 13)),
            "extra trees": lambda: ExtraTreesRegressor(max_features=0.5, min_samples_leaf=2, **trees),
        }
        if boosted:
            found[BOOSTED] = lambda: HistGradientBoostingRegressor(loss="absolute_error", **boosting)
        return found
    found = {"extra trees": lambda: ExtraTreesClassifier(**trees)}
    if cheap:
        found["logistic regression"] = lambda: LogisticRegression(max_iter=300)
        found["logistic regression, strongly regularised"] = lambda: LogisticRegression(C=0.03, max_iter=300)
    if boosted:
        found[BOOSTED] = lambda: HistGradientBoostingClassifier(**boosting)
    return found
