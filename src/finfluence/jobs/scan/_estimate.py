"""Train, replay and pool: the influence of every row, run by run, each run whole on disk before the next."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from finfluence._files import atomic
from finfluence._progress import Progress
from finfluence.errors import TrainingError, explain
from finfluence.estimators.replay import replay
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._folder import INFLUENCE, ScanFolder
from finfluence.jobs.scan._group_questions import (
    GroupQuestions,
    by_own_question,
    first_queries,
    group_questions,
    loss_queries,
)
from finfluence.jobs.scan._options import HELD_OUT, OWN
from finfluence.jobs.scan._training import Training, predictions
from finfluence.result import TWIN, Influence, load, pool
from finfluence.runs import AnyQuery, Tape, own_loss, read_tensors, train
from finfluence.runs.tape import final_losses

OWN_ROWS = 32
_STATES = ("states-*.safetensors", "replay-*.safetensors")
_PREDICTIONS, _GROUPS = "predictions.safetensors", "groups.zarr"


@dataclass(frozen=True, eq=False)
class Context:
    """What every stage of a scan works with: a training, its data, the folder, and whom to tell how far it is."""

    training: Training
    data: ScanData
    folder: ScanFolder
    progress: Progress


@dataclass(frozen=True, eq=False)
class Asked:
    """What every run is asked.

    Attributes
    ----------
    queries
        Those that decide.
    own
        Whether the worst-fitted rows are asked for their own loss, too.
    budget
        What one replay may cost in training runs, or the settings that the first run made of it; None: no budget.
    of_groups
        Queries that groups alone are asked, beside those: on held-out rows of other groups.
    """

    queries: Sequence[AnyQuery]
    own: bool = False
    budget: float | Mapping[str, Any] | None = None
    of_groups: Sequence[AnyQuery] = ()


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the trainings left.

    Attributes
    ----------
    influence
        Over all training rows and the queries; "own" is NaN but for the rows it was asked for.
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


def main_queries(data: ScanData, asked: Collection[str], unit: str) -> list[AnyQuery]:
    """Return the queries that decide: the mean held-out loss, and perhaps the bounded one and that of each class."""
    return loss_queries(data.query, asked, unit)


def make_estimate(context: Context, asked: Asked, *, keep_tapes: bool = False) -> Estimate:
    """Return the pooled influence; runs that are whole in the folder are not repeated.

    Where there is a budget the first run is measured, and all are replayed alike.

    Returns
    -------
    Estimate
    """
    folder, runs = context.folder, len(context.training.seeds)
    budget = asked.budget
    for run in range(runs):
        if not (folder.run_folder(run) / INFLUENCE).exists():
            _make_run(context, replace(asked, budget=budget), run)
        if budget is not None:
            budget = settings_of(folder)
        if not keep_tapes:
            _remove_states(folder.run_folder(run))
    names = [name for query in asked.queries for name in query.names]
    return load_estimate(folder, runs, names, own=asked.own, groups=group_questions(context.data))


def load_estimate(
    folder: ScanFolder, runs: int, names: Sequence[str], *, own: bool, groups: GroupQuestions | None
) -> Estimate:
    """Return the pooled influence of the runs that are in the folder; nothing is trained.

    Parameters
    ----------
    names
        Of the queries that decide.
    own
        Whether rows were asked for their own loss, too.
    groups
        On which rows groups were asked; None where there are no groups.

    Returns
    -------
    Estimate

    Raises
    ------
    StorageError
        A file of a run is missing or damaged; how to make it again is said.
    """
    places = [f"runs/{run:03d}" for run in range(runs)]
    single = [folder.read_result(f"{place}/{INFLUENCE}") for place in places]
    pooled, of_groups = pool(single), None
    if groups is not None:
        each = [folder.read_result(f"{p}/{_GROUPS}", f"{p}/{INFLUENCE}") for p in places]
        of_groups = by_own_question(pool(each), names, groups)
        asked = len(names) + (min(OWN_ROWS, len(pooled.subsets)) if own else 0)
        pooled = first_queries(pooled, pooled.queries[:asked])
    stacked = []
    for place in places:
        with folder.reading(f"{place}/{_PREDICTIONS}", f"{place}/{INFLUENCE}"):
            stacked.append(read_tensors(folder / place / _PREDICTIONS)["train"])
    return Estimate(
        _only_own(pooled, hardest(_losses(single[0]))) if own else pooled,
        of_groups,
        np.stack([one.harm(HELD_OUT) for one in single]),
        torch.stack(stacked).mean(0).numpy(),
    )


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


def _make_run(context: Context, asked: Asked, run: int) -> None:
    training, data = context.training, context.data
    place, seed, of = context.folder.run_folder(run), training.seeds[run], len(training.seeds)

    def training_progress(stage: str, done: int, total: int) -> None:
        context.progress(f"train run {run + 1} of {of}", done, total)

    def replay_progress(stage: str, done: int, total: int) -> None:
        context.progress(f"replay run {run + 1} of {of}", done, total)

    training_progress("train", 0, training.recipe.steps)
    _check_left(context.folder, run)
    tape = train(
        training.recipe, out=place, init_seed=seed, order_seed=seed, resume=True, progress=training_progress
    )
    model = tape.model()
    losses = final_losses(tape, model)
    check_learned(losses, data, tape)
    queries = list(asked.queries)
    if asked.own:
        if run:
            losses = _losses(load(context.folder.run_folder(0) / INFLUENCE))
        queries.append(own_loss(data.train.ids[hardest(losses)].tolist(), unit=training.unit))
    queries += asked.of_groups
    if data.train.groups is not None:
        names = data.train.groups
        members = {
            str(name): data.train.ids[names == name].tolist() for name in dict.fromkeys(names.tolist())
        }
        # First, so that a budget counts the groups' own runs; the rows then share its pass and its settings.
        by_group = replay(
            tape, queries, subsets=members, out=place, budget=asked.budget, progress=replay_progress
        )
        by_group.save(place / _GROUPS)
    influence = replay(tape, queries, out=place, budget=asked.budget, progress=replay_progress)
    predicted = predictions(model, torch.from_numpy(data.train.x), data.train.target.classes is not None)
    _save(place / _PREDICTIONS, {"train": predicted.contiguous()})
    influence.save(place / INFLUENCE)


def _check_left(folder: ScanFolder, run: int) -> None:
    """Raise if what an interrupted run left is damaged: once deleted, it is made again."""
    place = folder.run_folder(run)
    if (place / "tape.json").exists():
        folder.read_json(f"runs/{run:03d}/tape.json")
    for path in sorted(path for pattern in _STATES for path in place.glob(pattern)):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise folder.damaged(f"runs/{run:03d}/{path.name}", str(error)) from error


def _losses(influence: Influence) -> np.ndarray:
    losses: np.ndarray = influence.data["own_loss"].values
    return losses


def _remove_states(place: Path) -> None:
    for pattern in _STATES:
        for path in place.glob(pattern):
            path.unlink()


def _only_own(pooled: Influence, rows: Sequence[int]) -> Influence:
    """Return the result with its last queries, the own losses of `rows`, folded into one: each row's own."""
    data, count = pooled.data, len(pooled.queries) - len(rows)
    names = pooled.queries[:count]
    main = data.sel(query=names)
    columns = np.arange(count, count + len(rows))
    values: dict[str, Any] = {}
    for variable in data.data_vars:
        if data[variable].ndim != 2:
            continue
        column = np.full((len(pooled.subsets), 1), np.nan)
        column[rows, 0] = data[variable].values[rows, columns]
        values[str(variable)] = np.concatenate([main[variable].values, column], axis=1)
    made = pooled.provenance
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
        units=[str(u) for u in main["unit"].values] + [str(data["unit"].values[count])],
        signs=[*main["sign"].values.tolist(), -1],
        sizes=data["size"].values,
        own_loss=data["own_loss"].values,
        twin={name: values[name] for name in TWIN},
    )


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with atomic(path) as part:
        save_file(tensors, part)
