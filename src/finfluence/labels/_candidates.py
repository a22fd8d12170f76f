"""Standard models of scikit-learn that out-of-fold predictions are taken from."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import false_discovery_control

from finfluence._extras import require

MOST_BOOSTED_FEATURES = 120
MOST_BOOSTED_CLASSES = 5
MOST_LINEAR_CELLS = 2e8
TREES, MOST_THREADS = 100, 4
FEW_ROWS = 500  # below, handing a tree to a thread takes longer than growing it
LEAF = 4
TELLING = 0.05
KERNELS, KERNEL_C = 200, 5.0
SHRUNK, ROWS_A_COLUMN = 0.2, 3
BOOSTED = "boosted trees"
JUDGES = "judges labels that its models have not seen"

Candidate = Callable[[], Any]


class Forest:
    """A forest whose trees grow on several cores, where rows are many, and are asked on one: the same numbers anywhere.

    Parameters
    ----------
    model
        An unfitted forest of scikit-learn.

    Examples
    --------
    >>> from sklearn.ensemble import ExtraTreesClassifier
    >>> x, y = np.arange(20.0)[:, None], np.arange(20) // 10
    >>> Forest(ExtraTreesClassifier(5, random_state=0)).fit(x, y).predict_proba(x)[0].tolist()
    [1.0, 0.0]
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Forest":
        """Grow the trees."""
        threads = 1 if len(x) < FEW_ROWS else min(MOST_THREADS, os.cpu_count() or 1)
        self.model.set_params(n_jobs=threads).fit(x, y)
        self.model.set_params(n_jobs=1)
        return self

    @property
    def classes_(self) -> Any:
        """Classes in the order of the columns of `predict_proba`."""
        return self.model.classes_

    def predict_proba(self, x: np.ndarray) -> Any:
        """Return probabilities [n, classes]."""
        return self.model.predict_proba(x)

    def predict(self, x: np.ndarray) -> Any:
        """Return numbers [n]."""
        return self.model.predict(x)


class OnTelling:
    """A classifier on the features whose means differ between the classes, by F-tests at a false discovery rate of 5 %.

    The features are picked from the rows that the classifier is fitted to, and from no other; the most telling one
    stays in any case.

    Parameters
    ----------
    model
        An unfitted classifier of scikit-learn.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> x, y = np.random.default_rng(0).normal(size=(200, 30)), np.arange(200) % 2
    >>> x[:, 7] += 2 * y
    >>> OnTelling(LogisticRegression()).fit(x, y).telling.tolist()
    [7]
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.telling = np.empty(0, dtype=np.int64)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "OnTelling":
        """Pick features and fit."""
        from sklearn.feature_selection import f_classif

        with np.errstate(all="ignore"):
            p = np.nan_to_num(f_classif(x, y)[1], nan=1.0)
        passed = np.flatnonzero(false_discovery_control(p) <= TELLING)
        self.telling = passed if len(passed) else np.array([int(p.argmin())])
        self.model.fit(x[:, self.telling], y)
        return self

    @property
    def classes_(self) -> Any:
        """Classes in the order of the columns of `predict_proba`."""
        return self.model.classes_

    def predict_proba(self, x: np.ndarray) -> Any:
        """Return probabilities [n, classes]."""
        return self.model.predict_proba(x[:, self.telling])


class NormalLaws:
    """A classifier by the normal law of each class, covariances drawn to the identity (quadratic discriminants).

    Columns are standardised; a covariance is 0.8 of its own and 0.2 of the identity, so that a class may have fewer
    rows than columns, which scikit-learn's class refuses. With fewer than three rows of some class a column it says no
    more than how large the classes are: such laws are so sure of themselves that a temperature makes one chance of all
    rows, which hides wrong labels.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(300, 2)), np.arange(300) % 2
    >>> x[y == 1] *= 5  # the same middle, another spread
    >>> bool((NormalLaws().fit(x, y).predict_proba(x).argmax(1) == y).mean() > 0.8)
    True
    """

    def fit(self, x: np.ndarray, y: np.ndarray) -> "NormalLaws":
        """Fit mean, spread and share of every class."""
        x = np.asarray(x, dtype=np.float64)
        self.middle, self.spread = x.mean(0), x.std(0)
        self.spread[self.spread == 0] = 1.0
        z, self.classes_ = (x - self.middle) / self.spread, np.unique(y)
        self.shares = np.array([np.mean(y == label) for label in self.classes_])
        self.laws = []
        if self.shares.min() * len(z) < ROWS_A_COLUMN * z.shape[1]:
            return self
        for label in self.classes_:
            own = z[y == label]
            centred = own - own.mean(0)
            covariance = centred.T @ centred / len(own)
            values, vectors = np.linalg.eigh((1 - SHRUNK) * covariance + SHRUNK * np.eye(z.shape[1]))
            law = -0.5 * np.log(values).sum() + np.log(len(own) / len(z))
            self.laws.append((own.mean(0), vectors / np.sqrt(values), law))
        return self

    def predict_proba(self, x: np.ndarray) -> Any:
        """Return probabilities [n, classes]."""
        z = (np.asarray(x, dtype=np.float64) - self.middle) / self.spread
        if not self.laws:
            return np.tile(self.shares, (len(z), 1))
        logs = np.stack([law - 0.5 * (((z - mean) @ root) ** 2).sum(1) for mean, root, law in self.laws], 1)
        return np.exp(logs - logsumexp(logs, axis=1, keepdims=True))


def candidates(task: str, rows: int, features: int, classes: int, seed: int) -> Mapping[str, Candidate]:
    """Return factories of unfitted models by name.

    Regularised linear models, extremely randomised trees and boosted trees. On the telling features alone, as
    `OnTelling` picks them: a linear model, trees with larger leaves, a logistic regression on Gaussian kernels, and
    normal laws of the classes; dozens of columns made of an empty note drown twelve good numbers. A model is left out
    where its cost grows out of proportion: boosting above 120 features or 5 classes, the linear ones, kernels and
    normal laws above 2e8 cells times classes.

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
    ensemble = require("sklearn.ensemble", JUDGES, "data")
    linear = require("sklearn.linear_model", JUDGES, "data")
    kernels = require("sklearn.kernel_approximation", JUDGES, "data")
    pipeline = require("sklearn.pipeline", JUDGES, "data").make_pipeline
    scaler = require("sklearn.preprocessing", JUDGES, "data").StandardScaler
    trees = {"n_estimators": TREES, "random_state": seed}
    boosting = {"max_iter": 60, "max_leaf_nodes": 15, "early_stopping": False, "random_state": seed}
    cheap = rows * features * max(1, classes) <= MOST_LINEAR_CELLS
    boosted = features <= MOST_BOOSTED_FEATURES and classes <= MOST_BOOSTED_CLASSES
    if task == "regression":
        found: dict[str, Candidate] = {
            "linear": lambda: linear.RidgeCV(np.geomspace(1e-2, 1e4, 13)),
            "extra trees": lambda: Forest(
                ensemble.ExtraTreesRegressor(max_features=0.5, min_samples_leaf=2, **trees)
            ),
        }
        if boosted:
            found[BOOSTED] = lambda: ensemble.HistGradientBoostingRegressor(loss="absolute_error", **boosting)
        return found
    found = {
        "extra trees": lambda: Forest(ensemble.ExtraTreesClassifier(**trees)),
        "extra trees, telling features": lambda: OnTelling(
            Forest(ensemble.ExtraTreesClassifier(min_samples_leaf=LEAF, **trees))
        ),
    }
    if cheap:
        found["logistic regression, telling features"] = lambda: OnTelling(
            linear.LogisticRegression(C=0.1, max_iter=300)
        )
        found["logistic regression"] = lambda: linear.LogisticRegression(max_iter=300)
        found["logistic regression, strongly regularised"] = lambda: linear.LogisticRegression(
            C=0.03, max_iter=300
        )
        found["kernels, telling features"] = lambda: OnTelling(
            pipeline(
                scaler(),
                kernels.Nystroem(n_components=KERNELS, random_state=seed),
                linear.LogisticRegression(C=KERNEL_C, max_iter=300),
            )
        )
        found["normal laws, telling features"] = lambda: OnTelling(NormalLaws())
    if boosted:
        found[BOOSTED] = lambda: ensemble.HistGradientBoostingClassifier(**boosting)
    return found
