"""Out-of-fold predictions: every row is predicted by models that were trained without it."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from finfluence._extras import require
from finfluence._indices import same_rows
from finfluence._progress import Progress, silent
from finfluence._seeds import stream, torch_seed
from finfluence.errors import DataError, explain
from finfluence.labels._candidates import BOOSTED, JUDGES, Candidate, candidates

FEWEST_ROWS = 30
FOLDS, REPEATS = 5, 3
MOST_ROUNDS_OF_NUMBERS = 2
LEAST_CHANCE = 1e-3
NEAR, FURTHER, SLACK = 0.1, 0.25, 0.02
SURELY = 3.0
MOST_SPREADS = 10.0
CLEARLY = float(np.e)


@dataclass(frozen=True)
class Score:
    """How well one model predicts rows that it has not seen.

    loss : mean log loss (nats) or mean absolute error. se : its standard error over rows.
    accuracy : NaN for regression.
    """

    name: str
    loss: float
    se: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of every row by models that have not seen it.

    Attributes
    ----------
    task
        "classification" or "regression".
    predicted
        Probabilities [n, classes], the normalised geometric mean over the models used and the rounds, each and all at
        the temperature of the least log loss; or predictions [n], the mean over models and rounds.
    scores
        Every model tried, the constant one included, best first.
    used
        Names of the models whose predictions are averaged: the best, and those nearly as good.
    gain
        By how many standard errors the models used together predict better than the constant model, in the first round.
    each
        What every model tried says in the first round, the constant one left out; empty where it was not kept.
    """

    task: str
    predicted: np.ndarray
    scores: tuple[Score, ...]
    used: tuple[str, ...]
    gain: float
    each: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def informative(self) -> bool:
        """Whether anything predicts better than a constant, by three standard errors."""
        return self.gain > SURELY

    def take(self, rows: np.ndarray) -> "OutOfFold":
        """Return the predictions of some rows, scores and gain those of all."""
        each = {name: p[rows] for name, p in self.each.items()}
        return replace(self, predicted=self.predicted[rows], each=each)

    def sentence(self) -> str:
        """Say which models were tried and what they reached on rows that they had not seen."""
        tried = ", ".join(
            f"{s.name} {s.loss:.3f} ± {s.se:.3f}"
            + (f" (accuracy {100 * s.accuracy:.1f} %)" if np.isfinite(s.accuracy) else "")
            for s in self.scores
        )
        what = "log loss" if self.task == "classification" else "absolute error"
        return f"{what} on rows that the model had not seen: {tried}"


def out_of_fold(
    x: np.ndarray,
    y: np.ndarray,
    *,
    task: str = "classification",
    groups: np.ndarray | None = None,
    seed: int = 0,
    repeats: int = REPEATS,
    progress: Progress = silent,
) -> OutOfFold:
    """Predict every row by models trained on the other folds, and again without the rows that these surely contradict.

    A wrong label that is trained on makes the models less sure of the rows around it, until a row that looks wrong and
    one that is hard can no longer be told apart. So from the second round on, rows whose label the round before
    contradicts, its first class being e times as likely as its second, are not trained on (they are predicted like all
    others); what all rounds say is averaged.

    Parameters
    ----------
    x : array [n, …]
        Features; images are flattened.
    y : array [n]
        Class indices 0 … C−1, or numbers.
    groups : array [n], optional
        Rows of one group share a fold.
    seed : int
        Of the folds and of the models.
    repeats : int
        Rounds, each with folds drawn anew; from the second on only of the models that are used. For numbers two at
        most.
    progress : callable
        Called as `progress("out of fold", done, total)`.

    Returns
    -------
    OutOfFold

    Raises
    ------
    DataError
        Fewer than 30 rows, lengths that differ, or one class only.
    ConfigError
        scikit-learn is not installed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> found = out_of_fold(rng.normal(size=(200, 3)) + 3 * y[:, None], y, repeats=1)
    >>> found.informative, bool((found.predicted.argmax(1) == y).mean() > 0.95)
    (True, True)
    """
    same_rows(x=x, y=y, groups=groups)
    x = np.asarray(x, dtype=np.float32).reshape(len(x), -1)
    y = np.asarray(y)
    _check(x, y, task)
    classes = int(y.max()) + 1 if task == "classification" else 0
    models = candidates(task, len(x), x.shape[1], classes, torch_seed(seed, "out-of-fold models") % 2**32)
    n_rounds = repeats if classes else min(repeats, MOST_ROUNDS_OF_NUMBERS)
    folds = [partition(y, classes, groups, stream(seed, "out-of-fold folds", r)) for r in range(n_rounds)]
    found = {
        name: _predictions(make, x, y, classes, folds[0], _told(progress, name))
        for name, make in models.items()
    }
    constant = _constant(y, classes)
    with_constant = {**found, "constant": constant}
    losses = {name: _losses(p, y, classes) for name, p in with_constant.items()}
    scores = sorted(
        (_score(name, loss, with_constant[name], y, classes) for name, loss in losses.items()),
        key=lambda s: s.loss,
    )
    used = _nearly_best(scores, classes)
    together = _average([found[name] for name in used], classes) if used else constant
    gained = losses["constant"] - _losses(together, y, classes)
    spread = gained.std(ddof=1) / np.sqrt(len(y))
    gain = float(gained.mean() / spread) if spread > 0 else 0.0
    rounds = [[found[name] for name in used]]
    for place, fold in enumerate(folds[1:] if used else (), 2):
        left_out = _surely_contradicted(_average(rounds[-1], classes), y) if classes else None
        rounds.append(
            [
                _predictions(models[name], x, y, classes, fold, _told(progress, name, place), left_out)
                for name in used
            ]
        )
    said = constant
    if used:
        said = _average([p for of_round in rounds for p in of_round], classes)
    if used and classes and len(rounds) > 1:
        said = _tempered(said, y)
    return OutOfFold(task, said, tuple(scores), used or ("constant",), gain, found)


def _told(progress: Progress, name: str, place: int = 1) -> Callable[[int, int], None]:
    stage = f"out of fold, {name}" + (f", round {place}" if place > 1 else "")
    return lambda done, total: progress(stage, done, total)


def _surely_contradicted(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the positions of labels that the models contradict, surely rather than narrowly.

    Rows of a class that would lose more than half of itself stay: then it is the class that the models do not know.

    Returns
    -------
    array
    """
    ranked = np.sort(p, axis=1)
    chosen = (p.argmax(1) != y) & (ranked[:, -1] > CLEARLY * ranked[:, -2])
    for label in np.unique(y):
        if chosen[y == label].mean() > 0.5:
            chosen = chosen & (y != label)
    return np.flatnonzero(chosen)


def partition(
    y: np.ndarray, classes: int, groups: np.ndarray | None, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return positions of 5 folds: classes (numbers by rank, if `classes` is 0) spread evenly, groups kept together."""
    if groups is not None and len(np.unique(groups)) >= FOLDS:
        names, member = np.unique(groups.astype(str), return_inverse=True)
        sizes = np.bincount(member)
        order = rng.permutation(len(names))
        order = order[np.argsort(-sizes[order], kind="stable")]
        load, place = np.zeros(FOLDS), np.zeros(len(names), dtype=np.int64)
        for g in order:
            place[g] = int(load.argmin())
            load[place[g]] += sizes[g]
        fold = place[member]
    else:
        order = rng.permutation(len(y))
        strata = y[order] if classes else y[order].argsort(kind="stable").argsort() // FOLDS
        order = order[np.argsort(strata, kind="stable")]
        fold = np.empty(len(y), dtype=np.int64)
        fold[order] = np.arange(len(y)) % FOLDS
    return [np.flatnonzero(fold == k) for k in range(FOLDS)]


def _predictions(
    make: Candidate,
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    folds: list[np.ndarray],
    tell: Callable[[int, int], None],
    left_out: np.ndarray | None = None,
) -> np.ndarray:
    """Return what a model says of each fold [n, …] that is trained on the others, but for the rows left out."""
    found = np.zeros((len(y), classes) if classes else len(y))
    threads = require("threadpoolctl", JUDGES, "data")
    with threads.threadpool_limits(1):  # sums in one order, whatever the machine
        for k, held in enumerate(folds):
            tell(k, FOLDS)
            train = np.setdiff1d(np.arange(len(y)), held if left_out is None else np.r_[held, left_out])
            found[held] = _fit_predict(make, x, y, train, held, classes)
    tell(FOLDS, FOLDS)
    return _tempered(found, y) if classes else found


def _tempered(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return p^t, normalised, at the exponent t of the least log loss: neither too sure nor too unsure as a whole."""
    logs, rows = np.log(np.clip(p, LEAST_CHANCE, 1)), np.arange(len(y))

    def loss(log_t: float) -> float:
        scaled = np.exp(log_t) * logs
        return float((logsumexp(scaled, axis=1) - scaled[rows, y]).mean())

    best = np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x) * logs
    result: np.ndarray = np.exp(best - logsumexp(best, axis=1, keepdims=True))
    return result


def _fit_predict(
    make: Candidate, x: np.ndarray, y: np.ndarray, train: np.ndarray, held: np.ndarray, classes: int
) -> np.ndarray:
    if classes and len(np.unique(y[train])) < 2:
        result = np.zeros((len(held), classes))
        result[:, int(y[train][0])] = 1.0
        return result
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a solver that stops early still predicts; its score tells
        model.fit(x[train], y[train] if classes else _winsorised(y[train]))
        if not classes:
            return np.asarray(model.predict(x[held]), dtype=np.float64)
        known = np.asarray(model.classes_, dtype=np.int64)
        result = np.zeros((len(held), classes))
        result[:, known] = model.predict_proba(x[held])
    return result


def _winsorised(y: np.ndarray) -> np.ndarray:
    """Return targets cut at ten median deviations from their median: a few wrong ones cannot bend a model."""
    middle = float(np.median(y))
    size = np.abs(y - middle)
    reach = MOST_SPREADS * (float(np.median(size)) or float(size.mean()))
    return np.clip(y, middle - reach, middle + reach)


def _constant(y: np.ndarray, classes: int) -> np.ndarray:
    if not classes:
        return np.full(len(y), float(np.median(y)))
    share = (np.bincount(y, minlength=classes) + 1) / (len(y) + classes)
    return np.broadcast_to(share, (len(y), classes))


def _losses(predicted: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    if not classes:
        size = np.abs(y - np.median(y))
        return np.minimum(np.abs(predicted - y), MOST_SPREADS * (np.median(size) or size.mean() or 1.0))
    return -np.log(np.clip(predicted[np.arange(len(y)), y], LEAST_CHANCE, 1))


def _score(name: str, loss: np.ndarray, predicted: np.ndarray, y: np.ndarray, classes: int) -> Score:
    accuracy = float((predicted.argmax(1) == y).mean()) if classes else float("nan")
    return Score(name, float(loss.mean()), float(loss.std(ddof=1) / np.sqrt(len(y))), accuracy)


def _nearly_best(scores: list[Score], classes: int) -> tuple[str, ...]:
    """Return the best model and those whose loss is a tenth larger at most; () if the constant is best.

    Boosted trees alone are tempered by classifiers within a quarter: having learned the noise, they can lead in log
    loss and be too sure for wrong labels to be told.

    Returns
    -------
    tuple[str, ...]
    """
    if scores[0].name == "constant":
        return ()
    used = _within(scores, NEAR, classes)
    return _within(scores, FURTHER, classes) if classes and used == (BOOSTED,) else used


def _within(scores: list[Score], near: float, classes: int) -> tuple[str, ...]:
    bound = scores[0].loss * (1 + near) + (SLACK if classes else 0.0)
    return tuple(s.name for s in scores if s.name != "constant" and s.loss <= bound)


def _average(predicted: list[np.ndarray], classes: int) -> np.ndarray:
    if not classes:
        return np.mean(predicted, axis=0)
    logs = np.mean([np.log(np.clip(p, LEAST_CHANCE, 1)) for p in predicted], axis=0)
    odds = np.exp(logs - logs.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def _check(x: np.ndarray, y: np.ndarray, task: str) -> None:
    if len(x) != len(y) or len(y) < FEWEST_ROWS:
        raise DataError(
            explain(
                f"at least {FEWEST_ROWS} rows, each with a label",
                f"{len(x)} rows and {len(y)} labels",
                "too small a table to hold parts of it out",
                "judge labels on more rows",
            )
        )
    if task == "classification" and len(np.unique(y)) < 2:
        raise DataError(
            explain(
                "labels of at least two classes",
                "one class",
                "a filtered table, or the wrong target column",
                "name the column that holds the labels",
            )
        )
