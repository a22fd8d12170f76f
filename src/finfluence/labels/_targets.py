"""Which numbers are wrong: targets far from what models predict that have not seen the row."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import norm, t

from finfluence._indices import same_rows
from finfluence.errors import DataError, explain
from finfluence.labels._out_of_fold import FOLDS, OutOfFold
from finfluence.labels._verdict import share_right

EXACT, BINS = 300, 200
MISFITS = 0.05
LEVEL = 0.1
_RATES = np.r_[0.0, np.geomspace(0.001, 0.3, 20)]
_DEGREES = (2.0, 3.0, 5.0, 10.0, 40.0)
_SCALES = np.geomspace(0.5, 2.0, 13)
_FIRST, _LAST, _LEAST_REACH = (3.0, 6.0), (1.2, 10.0), (1.5, 10.0)
DIFFERENCE, RATIO = "difference", "ratio"
ASSUMPTION = (
    "assumes that {what} of right numbers follow one Student law, heavy tails allowed, once divided by the spread "
    "usual for rows like them, and that no group of right numbers lies apart from it"
)
_WHAT = {DIFFERENCE: "residuals", RATIO: "logarithms of the ratio to the prediction"}


@dataclass(frozen=True, eq=False)
class TargetVerdict:
    """What models that have not seen a row say of its number.

    Attributes
    ----------
    p_wrong
        Chance that the target is wrong [n].
    residual
        Target minus out-of-fold prediction [n], in the target's unit.
    predicted
        The out-of-fold prediction [n].
    size
        How far the target is from the prediction, in distances usual for rows like it [n].
    noise_rate
        Share of wrong targets, posterior mean.
    measure
        What a distance is: "difference" of target and prediction, or "ratio" (its logarithm): the one that names more.
    measures
        How many were tried; q-values are multiplied by it.
    """

    p_wrong: np.ndarray
    residual: np.ndarray
    predicted: np.ndarray
    size: np.ndarray
    noise_rate: float
    measure: str
    measures: int
    told: bool
    findings: tuple[str, ...] = ()

    @property
    def order(self) -> np.ndarray:
        """Positions from the most to the least doubtful target: by `size`."""
        return np.argsort(-self.size, kind="stable")

    @property
    def q_values(self) -> np.ndarray:
        """Expected share of right targets among the rows at least as likely wrong as this one [n]."""
        if not self.told:
            return np.ones(len(self.p_wrong))
        found: np.ndarray = np.minimum(1.0, self.measures * share_right(self.p_wrong))
        return found

    def named(self, level: float = 0.1) -> np.ndarray:
        """Return which targets are named wrong [n], an expected share of `level` of them falsely."""
        return self.q_values <= level


def judge_targets(found: OutOfFold, x: np.ndarray, y: ArrayLike, seed: int = 0) -> TargetVerdict:
    r"""Return the chance that each number is wrong, from predictions of models that have not seen the row.

    With r the residual over its usual spread, of right targets a share 1 − ε follows a Student law with ν degrees of
    freedom and scale τ (a twentieth of them, which the models predict badly, t_2 twice as wide), of wrong ones a share
    ε a law w that is uniform in log |r| between κτ and λ times the largest |r|:

    .. math:: P(\text{wrong} \mid r) = \frac{\varepsilon\, w(r)}
              {\varepsilon\, w(r) + (1 - \varepsilon) t_\nu(r / \tau) / \tau}

    averaged over the posterior of (ε, ν, τ, κ, λ) on a grid. λ of 10 is for errors of all sizes, λ of 1.2 for errors
    that are alike. Where targets and predictions are all above 0, r is also taken as the logarithm of target over
    prediction (over its own usual spread); the measure that names more at 10 % is kept, and q-values are doubled.

    Parameters
    ----------
    found : OutOfFold
        Of a regression.
    x : array [n, …]
        Features: the usual spread is predicted from them, out of fold.
    y : array [n]
        Targets.
    seed
        Of the model of the spread.

    Returns
    -------
    TargetVerdict

    Raises
    ------
    DataError
        The predictions are of a classification, or of other rows.

    Examples
    --------
    >>> from finfluence.labels import out_of_fold
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 3))
    >>> y = 5 + x[:, 0] + 0.1 * rng.normal(size=400)
    >>> y[:12] *= 10
    >>> verdict = judge_targets(out_of_fold(x, y, task="regression", repeats=1), x, y)
    >>> named = verdict.named(0.1)
    >>> bool(named[:12].all()), bool(named[12:].sum() <= 2)
    (True, True)
    """
    same_rows(x=x, y=y)
    y = np.asarray(y, dtype=np.float64)
    if found.task != "regression" or len(found.predicted) != len(y):
        raise DataError(
            explain(
                f"out-of-fold predictions of {len(y)} numbers",
                f"a {found.task} of {len(found.predicted)} rows",
                "predictions of another table, or of classes",
                "pass what out_of_fold(…, task='regression') returned; for classes use judge_labels",
            )
        )
    features = np.asarray(x, dtype=np.float32).reshape(len(y), -1)
    fits = [_fitted(DIFFERENCE, y - found.predicted, features, seed)]
    if (y > 0).all() and (found.predicted > 0).all():
        fits.append(_fitted(RATIO, np.log(y / found.predicted), features, seed))
    best = max(fits, key=lambda fit: int((len(fits) * share_right(fit.p_wrong) <= LEVEL).sum()))
    verdict = TargetVerdict(
        best.p_wrong,
        y - found.predicted,
        found.predicted,
        best.size,
        best.rate,
        best.measure,
        len(fits),
        found.informative,
    )
    wrong = int(verdict.named(0.1).sum())
    called = f"calling {wrong:,} of {len(y):,} numbers wrong" if wrong else "calling no number wrong"
    finding = (
        f"{called} at a level of 10 % " + ASSUMPTION.format(what=_WHAT[best.measure])
        if verdict.told
        else "no model predicts rows that it has not seen better than a constant does: no number can be judged, and "
        "none is named"
    )
    return replace(verdict, findings=(finding,))


@dataclass(frozen=True, eq=False)
class _Fit:
    """Distances under one measure, and what they say of each target."""

    measure: str
    size: np.ndarray
    p_wrong: np.ndarray
    rate: float


def _fitted(measure: str, distance: np.ndarray, x: np.ndarray, seed: int) -> _Fit:
    size = np.abs(distance) / _usual_spread(x, distance, seed)
    return _Fit(measure, size, *_p_wrong(size))


def _usual_spread(x: np.ndarray, residual: np.ndarray, seed: int) -> np.ndarray:
    """Return the usual size of the residual [n], as trees that have not seen the row predict its logarithm."""
    from sklearn.ensemble import ExtraTreesRegressor

    size = np.abs(residual)
    typical = float(np.median(size))
    if typical == 0:
        typical = float(size.mean()) or 1.0
    target = np.log(np.clip(size, 0.1 * typical, 10 * typical))
    order = np.random.default_rng(seed).permutation(len(size))
    logs = np.empty(len(size))
    for k in range(FOLDS):
        held = order[k::FOLDS]
        train = np.setdiff1d(order, held)
        trees = ExtraTreesRegressor(100, min_samples_leaf=10, random_state=seed % 2**32, n_jobs=1)
        logs[held] = trees.fit(x[train], target[train]).predict(x[held])
    spread = np.exp(logs)
    return spread * float(np.median(size / spread)) / norm.ppf(0.75)


def _p_wrong(size: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the chance of being wrong for sizes |r| [n], and the share of wrong ones."""
    order = np.argsort(size, kind="stable")
    bulk, tail = order[:-EXACT], order[-EXACT:]
    parts = [
        *np.array_split(bulk, min(BINS, max(1, len(bulk)))),
        *[tail[i : i + 1] for i in range(len(tail))],
    ]
    parts = [part for part in parts if len(part)]
    at = np.array([size[part].mean() for part in parts])
    count = np.array([len(part) for part in parts])
    rates = _RATES[:, None]
    prior = np.log(np.r_[0.5, np.full(len(_RATES) - 1, 0.5 / (len(_RATES) - 1))])
    weights, posteriors = [], []
    for degrees, scale in product(_DEGREES, _SCALES):
        usual = 2 * t.pdf(at / scale, degrees) / scale
        badly = t.pdf(at / (2 * scale), 2) / scale
        right = (1 - MISFITS) * usual + MISFITS * badly
        for first, (last, reach) in product(_FIRST, zip(_LAST, _LEAST_REACH, strict=True)):
            least = first * scale
            most = max(last * at[-1], reach * least)
            within = (at >= least) & (at <= most)
            wrong = np.where(within, 1 / np.where(within, at * np.log(most / least), 1.0), 0.0)
            density = np.clip(rates * wrong + (1 - rates) * right, 1e-300, None)
            weights.append(np.log(density) @ count + prior)
            posteriors.append(rates * wrong / density)
    together = np.concatenate(weights)
    weight = np.exp(together - logsumexp(together))
    mean = np.maximum.accumulate(weight @ np.concatenate(posteriors))
    rate = float(weight @ np.tile(_RATES, len(weights)))
    result = np.empty(len(size))
    for part, value in zip(parts, mean, strict=True):
        result[part] = value
    return result, rate
