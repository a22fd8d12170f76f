"""Which network is trained, and for how long: the usual ones, cross-validated on the training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from finfluence._progress import Progress, silent
from finfluence._seeds import stream, torch_seed
from finfluence.ensemble import RunSpec, StackedRuns, final_models, not_stackable
from finfluence.ingest import Table
from finfluence.jobs.scan._models import SMALL
from finfluence.jobs.scan._options import AUTO, ScanOptions
from finfluence.jobs.scan._training import Training, plan_training, predictions
from finfluence.labels import partition
from finfluence.runs import Recipe, initial_model

CONSTANT = "constant"
FEWEST_ROWS, LEAST_EPOCHS = 20, 2
SURELY = 2.0
DECAY = 0.3
LEAST_CHANCE, MOST_SPREADS = 1e-3, 5.0
_STAGE = "choose a network"


@dataclass(frozen=True)
class Tried:
    """How well one network predicts training rows that it has not seen.

    Attributes
    ----------
    epochs
        Passes over the rows at which its loss is least; 0 for the constant.
    loss, se
        Mean over rows: log loss (nats), or half the squared error in standard deviations, each error cut at five usual
        ones; and its standard error.
    folds
        The loss fold by fold.
    accuracy
        None for regression.
    gain, gain_se
        By how much its loss is smaller than the constant's, row by row, and the standard error of that.
    """

    model: str
    epochs: int
    lr: float
    weight_decay: float
    loss: float
    se: float
    folds: tuple[float, ...]
    accuracy: float | None
    gain: float
    gain_se: float


@dataclass(frozen=True)
class Choice:
    """The network that is trained, and what it was chosen among.

    Attributes
    ----------
    model
        Its name.
    asked
        Whether the user named it.
    told
        Whether it predicts rows that it has not seen better than a constant does, by two standard errors.
    task
        "classification" or "regression".
    rows
        How many rows were predicted out of fold; 0 where there are too few rows to try anything.
    tried
        Every network tried and the constant, the best first.
    """

    model: str
    asked: bool
    told: bool
    task: str
    rows: int
    tried: tuple[Tried, ...]

    def described(self) -> dict[str, Any]:
        """Return plain values, for run.yaml and scan.json."""
        tried = [{**asdict(one), "folds": list(one.folds)} for one in self.tried]
        return {**asdict(self), "tried": tried}

    @classmethod
    def of_run(cls, described: Mapping[str, Any]) -> "Choice":
        """Return what `described` described."""
        tried = tuple(Tried(**{**one, "folds": tuple(one["folds"])}) for one in described["tried"])
        return cls(**{**described, "tried": tried})


def choose(options: ScanOptions, train: Table, progress: Progress = silent) -> tuple[ScanOptions, Choice]:
    """Cross-validate the networks that options leave open, and settle on one of them.

    A linear model, one hidden layer of 16 and of 64 (or 128) units and, for images, two convolutions are trained on the
    same folds, the folds side by side, with weight decay; each is scored after every epoch, and at its best. The
    simplest one whose loss is within a standard error of the least is chosen. A network that the user names is scored
    alone, and chosen.

    Parameters
    ----------
    options
        What is given stays: a model, its epochs, batch size, learning rate or weight decay.
    train
        The training rows; rows of one group share a fold.
    progress
        Called as `progress("choose a network", done, total)`.

    Returns
    -------
    tuple
        The options with nothing left open, and what was tried.

    Raises
    ------
    DataError
        Fewer rows than a batch.
    ConfigError
        A model does not fit the data.

    Notes
    -----
    Cost: about one or two trainings for each network tried.
    """
    plans = [plan_training(alternative, train) for alternative in _alternatives(options, train)]
    asked = options.model != AUTO
    if len(train) < FEWEST_ROWS:
        plan = plans[-1] if asked or len(train.x.shape) == 4 else plans[1]
        return _settled(options, plan, plan.recipe.epochs), Choice(
            plan.model.name, asked, False, train.task, 0, ()
        )
    folds = _folds(train, options.seed, expensive=any(_expensive(plan) for plan in plans))
    scored = np.sort(np.concatenate(folds))
    losses, hits, epochs = [], [], []
    for place, plan in enumerate(plans):
        progress(_STAGE, place, len(plans))
        loss, hit = _curves(plan, train, folds, options.seed, fixed=options.epochs is not None)
        best = _best_epoch(loss[:, scored])
        losses.append(loss[best])
        hits.append(hit[best])
        epochs.append(plan.recipe.epochs - len(loss) + 1 + best)
    progress(_STAGE, len(plans), len(plans))
    base, base_hit = _constant(train)
    each = [
        _tried(plan, epoch, loss, base, hit, folds)
        for plan, epoch, loss, hit in zip(plans, epochs, losses, hits, strict=True)
    ]
    at = _simplest([loss[scored] for loss in losses])
    none = _tried(None, 0, base, base, base_hit, folds)
    ranked = tuple(sorted([*each, none], key=lambda one: one.loss))
    told = each[at].gain > SURELY * each[at].gain_se
    choice = Choice(plans[at].model.name, asked, bool(told), train.task, len(scored), ranked)
    return _settled(options, plans[at], epochs[at]), choice


def _alternatives(options: ScanOptions, train: Table) -> list[ScanOptions]:
    """Return options for each network to try, the simplest first."""
    names: tuple[str, ...] = (options.model,)
    if options.model == AUTO:
        names = ("linear", "mlp-small", "mlp") if train.x.ndim < 4 else ("linear", "mlp", "cnn")
    decay = DECAY if options.optimizer == "adamw" else 0.0
    if options.weight_decay is not None:
        decay = options.weight_decay
    return [replace(options, model=name, weight_decay=decay) for name in names]


def _settled(options: ScanOptions, plan: Training, epochs: int) -> ScanOptions:
    recipe = plan.recipe
    described = recipe.optimizer.describe()
    return replace(
        options,
        model=plan.model.name,
        epochs=epochs,
        batch_size=recipe.batch_size,
        lr=described["lr"],
        weight_decay=described["weight_decay"],
    )


def _expensive(plan: Training) -> bool:
    """Return whether stacking saves little: convolutions, and models of the user's."""
    return plan.model.name not in SMALL


def _folds(train: Table, seed: int, *, expensive: bool) -> list[np.ndarray]:
    """Return the folds that are predicted: all five, or fewer where that costs too much."""
    n = len(train)
    classes = len(train.target.classes) if train.target.classes is not None else 0
    folds = partition(train.y, classes, train.groups, stream(seed, "folds of the network"))
    most = 5 if n <= 5_000 else 3 if n <= 20_000 else 2
    return [fold for fold in folds if len(fold)][: min(most, 3) if expensive else most]


def _curves(
    plan: Training, train: Table, folds: Sequence[np.ndarray], seed: int, *, fixed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return loss of each row [epochs, n], out of fold, after every epoch (the last one only, if it is fixed)."""
    recipe: Recipe = replace(plan.recipe, model=plan.model)
    x, rows = torch.from_numpy(train.x), np.arange(len(train))
    seeds = [torch_seed(seed, "network", k) % 2**31 for k in range(len(folds))]
    runs = [RunSpec(s, s, np.setdiff1d(rows, fold)) for s, fold in zip(seeds, folds, strict=True)]
    usual = not _expensive(plan)
    if len(runs) < 2 or not (usual or not_stackable(recipe, seeds[:2]) is None):
        loss, hit = np.full((1, len(train)), np.nan), np.zeros((1, len(train)))
        for fold, model in zip(folds, final_models(recipe, runs), strict=True):
            if model is not None:
                loss[0, fold], hit[0, fold] = _row_losses(
                    predictions(model, x[fold], _classes(train)), train, fold
                )
        return np.nan_to_num(loss, nan=_worst(train)), hit
    stack, model = StackedRuns(recipe, initial_model(recipe, seeds[0])), initial_model(recipe, seeds[0])
    first = recipe.epochs if fixed else min(LEAST_EPOCHS, recipe.epochs)
    shape = (recipe.epochs - first + 1, len(train))
    loss, hit = np.full(shape, np.nan), np.zeros(shape)
    at_once = len(runs) if usual or stack.replicas(2**30) >= len(runs) else 1
    for start in range(0, len(runs), at_once):

        def score(epoch: int, theta: torch.Tensor, start: int = start) -> None:
            if epoch < first:
                return
            for fold, one in zip(folds[start : start + at_once], theta, strict=True):
                stack.layout.assign(model, one)
                found = _row_losses(predictions(model, x[fold], _classes(train)), train, fold)
                loss[epoch - first, fold], hit[epoch - first, fold] = found

        stack.train(runs[start : start + at_once], padded=False, after_epoch=score)
    return np.nan_to_num(loss, nan=_worst(train)), hit


def _classes(train: Table) -> bool:
    return train.target.classes is not None


def _row_losses(predicted: torch.Tensor, train: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of each row, and whether its class is predicted (NaN for numbers)."""
    p, y = predicted.numpy(), train.y[rows]
    if _classes(train):
        chance = np.clip(p[np.arange(len(y)), y], LEAST_CHANCE, 1)
        return -np.log(chance), p.argmax(1) == y
    return 0.5 * np.minimum(np.abs(p[:, 0] - y), _reach(train)) ** 2, np.full(len(y), np.nan)


def _worst(train: Table) -> float:
    return float(-np.log(LEAST_CHANCE)) if _classes(train) else 0.5 * _reach(train) ** 2


def _reach(train: Table) -> float:
    """Return where an error is cut: a few wrong targets must not decide which network is better."""
    y = np.asarray(train.y, dtype=np.float64)
    size = np.abs(y - np.median(y))
    return MOST_SPREADS * float(1.4826 * np.median(size) or size.mean() or 1.0)


def _constant(train: Table) -> tuple[np.ndarray, np.ndarray]:
    y = train.y
    if _classes(train):
        counts = np.bincount(y, minlength=len(train.target.classes or ()))
        share = (counts + 1) / (len(y) + len(counts))
        return -np.log(share[y]), y == counts.argmax()
    middle, reach = float(np.median(y)), _reach(train)
    mean = float(np.clip(y, middle - reach, middle + reach).mean())
    return 0.5 * np.minimum(np.abs(y - mean), reach) ** 2, np.full(len(y), np.nan)


def _best_epoch(loss: np.ndarray) -> int:
    return int(loss.mean(1).argmin())


def _simplest(losses: Sequence[np.ndarray]) -> int:
    """Return the first whose loss is within a standard error of the least, row by row."""
    best = min(range(len(losses)), key=lambda k: float(losses[k].mean()))
    for k, loss in enumerate(losses[:best]):
        if (more := loss - losses[best]).mean() <= _error(more):
            return k
    return best


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _tried(
    plan: Training | None,
    epochs: int,
    loss: np.ndarray,
    base: np.ndarray,
    hit: np.ndarray,
    folds: Sequence[np.ndarray],
) -> Tried:
    rows = np.concatenate(folds)
    gain = (base - loss)[rows]
    accuracy = float(hit[rows].mean())
    optimizer = {"lr": 0.0, "weight_decay": 0.0} if plan is None else plan.recipe.optimizer.describe()
    return Tried(
        model=CONSTANT if plan is None else plan.model.name,
        epochs=epochs,
        lr=float(optimizer["lr"]),
        weight_decay=float(optimizer["weight_decay"]),
        loss=float(loss[rows].mean()),
        se=_error(loss[rows]),
        folds=tuple(float(loss[fold].mean()) for fold in folds),
        accuracy=accuracy if np.isfinite(accuracy) else None,
        gain=float(gain.mean()),
        gain_se=_error(gain),
    )
