"""What inclusion does where a policy, not chance, decided about it: doubly robust, cross-fitted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence._indices import same_rows
from finfluence.assess._learners import folds, sklearn
from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats import check_level, numbers

CLIP = 0.01
FOLDS = 5
PROPENSITIES = ("outcome", "covariates")
_FEWEST_IN_AN_ARM = 20
_MUCH_CLIPPED = 0.05
_LITTLE_INFORMATION = 0.1
_TREES_FROM = 500


@dataclass(frozen=True, eq=False)
class PolicyEffect:
    """Mean effect of inclusion by a policy.

    Attributes
    ----------
    effect, se, lower, upper, level
        Mean outcome if all subjects were included minus if none were, standard error, normal interval.
    difference : float
        Plain difference of the two arms' means: what the policy's preference and the effect do together.
    propensity : array [n]
        Estimated chance of inclusion, clipped to [0.01, 0.99].
    fold : array of int [n]
        Fold that each subject was predicted in, by models of the others.
    effective_share : float
        Kish's effective sample size of the inverse chances over the number of subjects, the smaller arm.
    findings : tuple of str
        What it assumes, and what on these subjects speaks against it.
    """

    effect: float
    se: float
    lower: float
    upper: float
    level: float
    difference: float
    propensity: np.ndarray
    fold: np.ndarray
    effective_share: float
    findings: tuple[str, ...]

    def __str__(self) -> str:
        told = "raises" if self.lower > 0 else "lowers" if self.upper < 0 else "cannot be told to change"
        first = (
            f"inclusion {told} the outcome: {self.effect:+.4g} [{self.lower:+.4g}, {self.upper:+.4g}] "
            f"({self.level:.0%}, adjusted for what the policy looked at), {self.difference:+.4g} unadjusted"
        )
        return "\n".join([first, *(f"  {f}" for f in self.findings)])


def policy_effect(
    included: ArrayLike,
    outcome: ArrayLike,
    covariates: ArrayLike,
    *,
    propensity: str = "outcome",
    models: tuple[Any, Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> PolicyEffect:
    r"""Estimate the mean effect of inclusion from subjects that a policy included or not.

    Subjects are shards, documents or runs; with an outcome regression :math:`\hat g(t, w)` and a chance of inclusion
    :math:`\hat\pi`, both fitted on the other four of five folds,

    .. math:: \psi_t = \hat g(t, W) + \frac{1[T = t]}{\hat\pi_t}\,(Y - \hat g(t, W)), \qquad
              \hat\tau = \overline{\psi_1 - \psi_0}, \qquad \text{se} = \text{sd}(\psi_1 - \psi_0)/\sqrt n

    Right if either of the two models is. With `propensity="outcome"` (DOPE) the chance of inclusion is modelled given
    the *predicted outcome* :math:`\hat g(t, W)` of the arm instead of all covariates: what drives the policy but not
    the outcome then no longer inflates the variance, as far as the regression leaves it out (a lasso does, least
    squares only in part).

    Parameters
    ----------
    included : array of bool [n]
    outcome : array [n]
    covariates : array [n, k]
        Everything that the policy looked at and that bears on the outcome; numbers, none missing.
    propensity : {"outcome", "covariates"}
        "covariates" is plain AIPW.
    models : (regressor, classifier), optional
        scikit-learn estimators, cloned for each fold; or, in place of the regressor, an object whose
        `regression(included, outcome, covariates)` returns g(arm, covariates), as
        `finfluence.integrations.causalpfn.CausalPFN`. Default: ridge and logistic regression; from 500 subjects
        boosted trees and additive curves (splines), stacked and averaged.
    level : float
        Of the interval.
    seed : int
        Of the folds.

    Returns
    -------
    PolicyEffect

    Raises
    ------
    DataError
        Shapes disagree, values missing or not finite, fewer than 20 subjects in an arm.
    ConfigError
        An option that cannot be used.
    ConfigError
        scikit-learn is not installed.

    References
    ----------
    Robins, Rotnitzky and Zhao (1994); Chernozhukov et al., "Double/debiased machine learning" (2018), with DOPE:
    Christgau and Hansen, "Efficient adjustment for complex covariates" (arXiv 2402.12980).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> quality = rng.normal(size=(600, 2))
    >>> included = rng.random(600) < 1 / (1 + np.exp(-quality[:, 0]))
    >>> outcome = 0.5 * included - 1.0 * quality[:, 0] + rng.normal(size=600)
    >>> found = policy_effect(included, outcome, quality)
    >>> bool(found.lower < 0.5 < found.upper), bool(found.difference < 0)
    (True, True)
    """
    check_level(level)
    same_rows(included=included, outcome=outcome, covariates=covariates)
    t, y, w = _checked(included, outcome, covariates, propensity)
    regressor, classifier = models if models is not None else _default_models(len(t))
    predictions, chance = np.empty((2, len(t))), np.empty((2, len(t)))
    member = np.empty(len(t), dtype=np.int64)
    for k, (others, fold) in enumerate(folds(t, FOLDS, seed, "policy folds")):
        member[fold] = k
        g = _outcome_regression(regressor, t[others], y[others], w[others])
        for arm in (0, 1):
            predictions[arm, fold] = g(arm, w[fold])
            if propensity == "outcome":
                seen, asked = g(arm, w[others])[:, None], predictions[arm, fold][:, None]
            else:
                seen, asked = w[others], w[fold]
            fitted = sklearn("base").clone(classifier).fit(seen, t[others])
            p = fitted.predict_proba(asked)[:, list(fitted.classes_).index(True)]
            chance[arm, fold] = p if arm else 1 - p
    clipped = np.clip(chance, CLIP, 1 - CLIP)
    is_arm = np.array([~t, t])
    scores = predictions + is_arm / clipped * (y - predictions)
    contrast = scores[1] - scores[0]
    effect, se = float(contrast.mean()), float(contrast.std(ddof=1) / np.sqrt(len(t)))
    wide = float(stats.norm.isf((1 - level) / 2)) * se
    effective = min(_effective(1 / clipped[arm][is_arm[arm]]) / is_arm[arm].sum() for arm in (0, 1))
    return PolicyEffect(
        effect,
        se,
        effect - wide,
        effect + wide,
        level,
        float(y[t].mean() - y[~t].mean()),
        clipped[1],
        member,
        float(effective),
        tuple(_findings(float((chance != clipped).mean()), float(effective), (y == y[0]).all())),
    )


def _effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def _findings(clipped: float, effective: float, constant: bool) -> list[str]:
    found = ["assumes that everything which drove both the inclusion and the outcome is among the covariates"]
    if constant:
        found.append("every subject had the same outcome: nothing varies that inclusion could explain")
    if clipped > _MUCH_CLIPPED:
        found.append(
            f"for {clipped:.0%} of the subjects inclusion was all but certain (chance beyond {CLIP:.0%} or "
            f"{1 - CLIP:.0%}): for them there is nothing to compare with, and the effect rests on the outcome "
            "regression alone"
        )
    if effective < _LITTLE_INFORMATION:
        found.append(
            f"a few subjects carry the estimate: the inverse chances leave {effective:.0%} of an arm's size; the "
            "normal interval may be too narrow"
        )
    return found


def _outcome_regression(
    model: Any, t: np.ndarray, y: np.ndarray, w: np.ndarray
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return g(arm, covariates), one regression for each arm unless the model has one for both."""
    if hasattr(model, "regression"):
        joint: Callable[[int, np.ndarray], np.ndarray] = model.regression(t, y, w)
        return joint
    fitted = [sklearn("base").clone(model).fit(w[t == bool(arm)], y[t == bool(arm)]) for arm in (0, 1)]
    return lambda arm, covariates: np.asarray(fitted[arm].predict(covariates), dtype=np.float64)


def _default_models(n: int) -> tuple[Any, Any]:
    linear, pipeline, scaling = sklearn("linear_model"), sklearn("pipeline"), sklearn("preprocessing")
    penalties = np.geomspace(1e-3, 1e3, 13)
    ridge = pipeline.make_pipeline(scaling.StandardScaler(), linear.RidgeCV(penalties))
    logistic = pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(max_iter=1000))
    if n < _TREES_FROM:
        return ridge, logistic
    ensemble = sklearn("ensemble")
    curves = scaling.StandardScaler(), scaling.SplineTransformer(n_knots=6, extrapolation="linear")
    trees = {"max_iter": 100, "max_depth": 3, "min_samples_leaf": 5, "random_state": 0}
    regressors = [
        ("curves", pipeline.make_pipeline(*curves, linear.RidgeCV(penalties))),
        ("trees", ensemble.HistGradientBoostingRegressor(**trees)),
    ]
    classifiers = [
        ("curves", pipeline.make_pipeline(*curves, linear.LogisticRegression(max_iter=1000))),
        ("trees", ensemble.HistGradientBoostingClassifier(**trees)),
    ]
    return (
        ensemble.StackingRegressor(regressors, linear.LinearRegression(positive=True), cv=3),
        ensemble.VotingClassifier(classifiers, voting="soft"),
    )


def _checked(
    included: ArrayLike, outcome: ArrayLike, covariates: ArrayLike, propensity: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if propensity not in PROPENSITIES:
        raise ConfigError(
            explain(
                f"propensity as one of {', '.join(PROPENSITIES)}",
                f"{propensity!r}",
                "a mistyped option",
                'write propensity="outcome"',
            )
        )
    t, y, w = (
        numbers(included, "included"),
        numbers(outcome, "outcome"),
        numbers(covariates, "covariates"),
    )
    if (
        t.ndim != 1
        or not np.isin(t, (0, 1)).all()
        or y.shape != t.shape
        or w.ndim != 2
        or len(w) != len(t)
        or not w.size
    ):
        raise DataError(
            explain(
                "included and outcome as one value a subject, covariates as subjects × numbers, at least one",
                f"shapes {t.shape}, {y.shape} and {w.shape}",
                "one covariate without its axis, or another order of arguments",
                "pass covariates[:, None] for a single one",
            )
        )
    if not (np.isfinite(y).all() and np.isfinite(w).all()):
        raise DataError(
            explain(
                "finite outcomes and covariates",
                f"{int((~np.isfinite(y)).sum())} outcomes and {int((~np.isfinite(w)).sum())} covariates that are not",
                "missing cells, or runs that diverged",
                "impute covariates and add a column that says so; leave out subjects without an outcome",
            )
        )
    t = t.astype(bool)
    if min(t.sum(), (~t).sum()) < _FEWEST_IN_AN_ARM:
        raise DataError(
            explain(
                f"at least {_FEWEST_IN_AN_ARM} subjects with and without",
                f"{int(t.sum())} included, {int((~t).sum())} not",
                "a policy that took nearly everything, or nearly nothing",
                "log more subjects on the rare side",
            )
        )
    return t, y, w
