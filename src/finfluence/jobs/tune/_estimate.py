"""Train, replay, rank: each run whole on disk before the next."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from finfluence._files import atomic
from finfluence._progress import Progress
from finfluence.estimators.replay import replay
from finfluence.jobs.tune._folder import ADAPTER, GROUPS_RESULT, INFLUENCE, RANKING, TuneFolder
from finfluence.jobs.tune._options import TuneOptions
from finfluence.jobs.tune._prepared import Prepared
from finfluence.language import joint_ranking, ranking_scores
from finfluence.result import Influence, pool
from finfluence.runs import Tape, initial_model, read_tensors, seeded, train

_STATES = ("states-*.safetensors", "replay-*.safetensors")


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the trainings left.

    Attributes
    ----------
    influence : Influence
        Over all rows and behaviours, pooled.
    groups : Influence or None
    each : list of Influence
        Over all rows, run by run.
    ranking : array [n, Q]
        The ranking score: larger is worse for the user; no unit.
    loss_before : array [n]
        Of every row, before tuning.
    """

    influence: Influence
    groups: Influence | None
    each: list[Influence]
    ranking: np.ndarray
    loss_before: np.ndarray


def make_estimate(
    prepared: Prepared, options: TuneOptions, folder: TuneFolder, progress: Progress
) -> Estimate:
    """Return the pooled influence and the ranking; runs that are whole in the folder are not repeated."""
    budget: float | Mapping[str, Any] | None = options.replay_budget
    for run in range(options.runs):
        place = folder.run_folder(run)
        if not (place / INFLUENCE).exists():
            _make_run(prepared, options, folder, run, budget, progress)
        if budget is not None:
            budget = folder.read_result("runs/000/" + INFLUENCE).provenance.budget
        if run and not options.keep_tapes:
            remove_states(place)
    return load_estimate(folder, options.runs, prepared.texts.groups is not None)


def load_estimate(folder: TuneFolder, runs: int, groups: bool) -> Estimate:
    """Return what the runs in the folder left; nothing is trained.

    Returns
    -------
    Estimate

    Raises
    ------
    StorageError
        A file is missing or damaged.
    """
    places = [f"runs/{run:03d}" for run in range(runs)]
    each = [folder.read_result(f"{place}/{INFLUENCE}") for place in places]
    found = [folder.read_result(f"{p}/{GROUPS_RESULT}", f"{p}/{INFLUENCE}") for p in places] if groups else []
    with folder.reading(f"runs/000/{RANKING}", f"runs/000/{INFLUENCE}"):
        kept = {k: v.numpy() for k, v in read_tensors(folder / "runs/000" / RANKING).items()}
    influence = pool(each)
    ranking = joint_ranking(kept["score"], _harmful_effects(influence))
    return Estimate(influence, pool(found) if found else None, each, ranking, kept["loss_before"])


def _harmful_effects(influence: Influence) -> np.ndarray:
    """Return effects [n, Q] with the sign of their query: larger is worse for the user."""
    side = influence.provenance.harmful_side
    effects: np.ndarray = influence.data["effect"].values * influence.data["sign"].values * side
    return effects


def remove_states(place: Path) -> None:
    """Delete the states of a run, which nothing asks for any more."""
    for pattern in _STATES:
        for path in place.glob(pattern):
            path.unlink()


def members(prepared: Prepared) -> dict[str, list[Any]]:
    """Return the ids of each group's rows."""
    groups, ids = prepared.texts.groups, prepared.rows.ids
    assert groups is not None
    return {str(name): ids[groups == name].tolist() for name in dict.fromkeys(groups.tolist())}


def _make_run(
    prepared: Prepared, options: TuneOptions, folder: TuneFolder, run: int, budget: Any, progress: Progress
) -> None:
    place, of = folder.run_folder(run), options.runs

    def told(what: str) -> Progress:
        return lambda stage, done, total: progress(f"{what} run {run + 1} of {of}", done, total)

    tape = train(
        prepared.recipe, out=place, init_seed=0, order_seed=prepared.order_seed(options.seed, run), resume=True,
        progress=told("tune"),
    )  # fmt: skip
    how: dict[str, Any] = {
        "out": place,
        "budget": budget,
        "groups": "linear",
        "late": 0.0,  # the rate falls to nothing: the last states are one
    }
    if prepared.texts.groups is not None:
        by_group = replay(
            tape, prepared.queries, subsets=_removable(members(prepared), len(prepared.rows)),
            progress=told("replay groups of"), **how,
        )  # fmt: skip
        by_group.save(place / GROUPS_RESULT)
    influence = replay(tape, prepared.queries, progress=told("replay"), **how)
    if run == 0:
        score = ranking_scores(
            tape, prepared.queries, options.checkpoints, seed=options.seed, progress=told("rank rows of")
        )
        kept = {"score": np.ascontiguousarray(score), "loss_before": _losses_before(prepared)}
        _save(place / RANKING, {name: torch.from_numpy(array) for name, array in kept.items()})
        _save_adapter(prepared, tape, folder)
    influence.save(place / INFLUENCE)


def _losses_before(prepared: Prepared) -> np.ndarray:
    """Return every row's loss under the model that tuning starts from [n]."""
    recipe, model = prepared.recipe, initial_model(prepared.recipe, 0).eval()
    device = next(model.parameters()).device
    with torch.no_grad(), seeded(0):
        parts = [
            recipe.loss(model, {k: v.to(device) for k, v in prepared.rows.batch(positions).items()})
            for positions in torch.arange(len(prepared.rows)).split(recipe.batch_size)
        ]
    found: np.ndarray = torch.cat(parts).double().cpu().numpy()
    return found


def _removable(groups: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
    return {name: ids for name, ids in groups.items() if len(ids) < rows}


def _save_adapter(prepared: Prepared, tape: Tape, folder: TuneFolder) -> None:
    """Write the adapters of a run as peft reads them."""
    with tuned(prepared, tape):
        target = folder / ADAPTER
        prepared.model.save_pretrained(target, safe_serialization=True)
    card = target / "README.md"
    if card.exists():
        os.unlink(card)


class tuned:
    """Inside the block, the whole model has the adapters of a run; behind it, those that it had."""

    def __init__(self, prepared: Prepared, tape: Tape) -> None:
        self._model = prepared.model
        of_run = dict(tape.model().named_parameters())
        self._new = {whole: of_run[name].detach() for name, whole in prepared.trained.names.items()}
        self._old: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        self._old = {n: self._model.get_parameter(n).detach().clone() for n in self._new}
        self._write(self._new)

    def __exit__(self, *_: object) -> None:
        self._write(self._old)

    def _write(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self._model.get_parameter(name).copy_(value)


def _save(path: Any, tensors: dict[str, torch.Tensor]) -> None:
    with atomic(path) as part:
        save_file(tensors, part)
