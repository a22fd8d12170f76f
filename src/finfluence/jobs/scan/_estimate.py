"""Train, replay and pool: the influence of every row, run by run, each run whole on disk before the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from finfluence._files import atomic
from finfluence._progress import Progress
from finfluence.errors import TrainingError, explain
from finfluence.estimators.replay import replay
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._folder import INFLUENCE, ScanFolder
from finfluence.jobs.scan._training import Training, predictions
from finfluence.result import Influence, load, pool
from finfluence.runs import AnyQuery, Tape, mean_loss, own_loss, read_tensors, train
from finfluence.runs.tape import final_losses

HELD_OUT, OWN = "held-out", "own"
OWN_ROWS = 32
_PREDICTIONS, _GROUPS = "predictions.safetensors", "groups.zarr"


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the trainings left.

    Attributes
    ----------
    influence
        Over all training rows and the asked queries; "own" is NaN but for the rows it was asked for.
    groups
        The same over groups of rows, or None.
    each
        Harmfulness of every row on the held-out loss, run by run [runs, n].
    predicted
        Class probabilities [n, K], or predictions [n, 1], averaged over the finished models.
    """

    influence: Influence
    groups: Influence | None
    each: np.ndarray
    predicted: np.ndarray


def main_queries(data: ScanData, per_class: bool, unit: str) -> list[AnyQuery]:
    """Return the queries that decide: the mean held-out loss, and perhaps that of each class."""
    asked = data.asked
    queries: list[AnyQuery] = [mean_loss(asked.x, asked.y, name=HELD_OUT, unit=unit)]
    classes = asked.target.classes if per_class else None
    for k, name in enumerate(classes or ()):
        rows = np.flatnonzero(asked.y == k)
        if len(rows):
            queries.append(mean_loss(asked.x[rows], asked.y[rows], name=f"class {name}", unit=unit))
    return queries


def estimate(
    training: Training,
    data: ScanData,
    queries: Sequence[AnyQuery],
    folder: ScanFolder,
    *,
    own: bool,
    keep_tapes: bool,
    progress: Progress,
    budget: float | Mapping[str, Any] | None = None,
) -> Estimate:
    """Return the pooled influence; runs that are whole in `folder` are not repeated.

    `budget` is what one replay may cost in training runs; the first run is measured, and all are replayed alike.
    """
    runs = len(training.seeds)
    for run in range(runs):
        place = folder.run_folder(run)
        if not (place / INFLUENCE).exists():
            _one_run(training, data, queries, folder, run, own, budget, progress)
        if budget is not None:
            budget = settings_of(folder)
        if not keep_tapes:
            for pattern in ("states-*.safetensors", "replay-*.safetensors"):
                for path in place.glob(pattern):
                    path.unlink()
    single = [load(folder.run_folder(run) / INFLUENCE) for run in range(runs)]
    pooled = pool(single)
    names = [name for query in queries for name in query.names]
    influence = _only_own(pooled, names) if own else pooled
    groups = None
    if data.train.groups is not None:
        groups = pool([load(folder.run_folder(run) / _GROUPS) for run in range(runs)])
    stacked = [read_tensors(folder.run_folder(run) / _PREDICTIONS)["train"] for run in range(runs)]
    return Estimate(
        influence,
        groups,
        np.stack([one.harm(HELD_OUT) for one in single]),
        torch.stack(stacked).mean(0).numpy(),
    )


def _one_run(
    training: Training,
    data: ScanData,
    queries: Sequence[AnyQuery],
    folder: ScanFolder,
    run: int,
    own: bool,
    budget: float | Mapping[str, Any] | None,
    progress: Progress,
) -> None:
    place, seed, of = folder.run_folder(run), training.seeds[run], len(training.seeds)

    def training_progress(stage: str, done: int, total: int) -> None:
        progress(f"train run {run + 1} of {of}", done, total)

    def replay_progress(stage: str, done: int, total: int) -> None:
        progress(f"replay run {run + 1} of {of}", done, total)

    training_progress("train", 0, training.recipe.steps)
    tape = train(
        training.recipe, out=place, init_seed=seed, order_seed=seed, resume=True, progress=training_progress
    )
    model = tape.model()
    losses = final_losses(tape, model)
    check_learned(losses, data, tape)
    asked = list(queries)
    if own:
        if run:
            losses = load(folder.run_folder(0) / INFLUENCE).data["own_loss"].values
        asked.append(own_loss(data.train.ids[hardest(losses)].tolist(), unit=training.unit))
    if data.train.groups is not None:
        names = data.train.groups
        members = {
            str(name): data.train.ids[names == name].tolist() for name in dict.fromkeys(names.tolist())
        }
        # First, so that a budget counts the groups' own runs; the rows then share its walk and its settings.
        by_group = replay(tape, asked, subsets=members, out=place, budget=budget, progress=replay_progress)
        by_group.save(place / _GROUPS)
    influence = replay(tape, asked, out=place, budget=budget, progress=replay_progress)
    seen = predictions(model, torch.from_numpy(data.train.x), data.train.target.classes is not None)
    _save(place / _PREDICTIONS, {"train": seen.contiguous()})
    influence.save(place / INFLUENCE)


def settings_of(folder: ScanFolder) -> Mapping[str, Any]:
    """Return what the first run made of its budget."""
    settings = load(folder.run_folder(0) / INFLUENCE).provenance.budget
    assert settings is not None  # it was replayed with a budget
    return settings


def hardest(losses: np.ndarray) -> list[int]:
    """Return the positions of the rows with the highest final loss, the highest first."""
    return np.argsort(-losses, kind="stable")[:OWN_ROWS].tolist()


def check_learned(losses: np.ndarray, data: ScanData, tape: Tape) -> None:
    """Raise if the finished model fits its training rows far worse than a constant would.

    Raises
    ------
    TrainingError
        Some final losses are not finite, or their mean is ten times that of the best constant.
    """
    y = data.train.y
    if data.train.target.classes is None:
        constant = 0.5
    else:
        share = np.bincount(y) / len(y)
        constant = float(-(share[share > 0] * np.log(share[share > 0])).sum())
    mean = float(losses.mean())
    if np.isfinite(losses).all() and mean <= 10 * constant:
        return
    raise TrainingError(
        explain(
            f"a training that ends with a mean loss of the order of {constant:.3g} (what a constant reaches) or less",
            f"{mean:.3g} after {tape.steps} steps",
            f"the learning rate ({tape.recipe.optimizer.lr:g}) is too high: the training diverged",
            "lower --lr tenfold, or leave it out",
        )
    )


def _only_own(pooled: Influence, names: Sequence[str]) -> Influence:
    """Return the result with the own-loss queries folded into one: each row's own, where it was asked."""
    data = pooled.data
    main = data.sel(query=list(names))
    asked = [str(q) for q in data["query"].values if str(q) not in names]
    place = {name: row for row, i in enumerate(pooled.subsets.tolist()) for name in own_loss([i]).names}
    rows = np.array([place[q] for q in asked])
    columns = [pooled.queries.index(q) for q in asked]
    values: dict[str, Any] = {}
    for variable in data.data_vars:
        if data[variable].ndim != 2:
            continue
        column = np.full((len(pooled.subsets), 1), np.nan)
        column[rows, 0] = data[variable].values[rows, columns]
        values[str(variable)] = np.concatenate([main[variable].values, column], axis=1)
    made, count = pooled.provenance, len(names)
    assert made.horizon is not None and made.query_values is not None  # of a replay
    made = replace(
        made,
        horizon=(*made.horizon[:count], min(made.horizon[count:])),
        query_values=tuple(run[:count] for run in made.query_values),
        spread_profile=None,
    )
    return Influence.build(
        **{k: values[k] for k in ("effect", "effect_se", "spread", "se", "p_value", "mu", "lower", "upper")},
        subsets=pooled.subsets,
        queries=[*names, OWN],
        provenance=made,
        units=[str(u) for u in main["unit"].values] + [str(data["unit"].values[columns[0]])],
        signs=[*main["sign"].values.tolist(), -1],
        sizes=data["size"].values,
        own_loss=data["own_loss"].values,
    )


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with atomic(path) as part:
        save_file(tensors, part)
