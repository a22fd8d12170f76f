"""Tape: what one training run leaves behind, enough to walk it backwards."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from finfluence import _files
from finfluence.distributed import Processes, Together
from finfluence.errors import ConfigError, StorageError, explain
from finfluence.grads import Batch, RowLoss
from finfluence.runs.checkpoints import KeptStates, Snapshots
from finfluence.runs.describe import Recipe
from finfluence.runs.record import Recorder, finish, gather, reopen, start, underlying
from finfluence.runs.steps import Parameters, RecipeSteps, RecordedSteps, states_from
from finfluence.runs.tape._cache import Cache
from finfluence.runs.tape._read_view import TapeFace
from finfluence.runs.tape._tape_header import FORMAT, VERSION, differences, read_header


class Tape(TapeFace):
    """The states of one run: some are kept, the others are recomputed bit for bit.

    A state is the flat vector [θ | optimiser slots] before a step. Made by `train`, or by `record` around a loop of
    one's own; read by `replay`.

    Attributes
    ----------
    seed : int
        Where estimators take their own randomness from, unless told otherwise.
    """

    _apart: Processes | None = None

    def __init__(self, run: RecipeSteps, every: int, folder: Path | None) -> None:
        self._steps: RecipeSteps | RecordedSteps | None = run
        self._recorder: Recorder | None = None
        self._states: KeptStates | None = None
        self.every = every
        self.folder = folder
        self.memo: dict[str, Any] = {}
        self.cache = Cache()
        self.seed = run.order_seed
        self.snapshots = Snapshots(run.width, run.layout.dtype, folder)

    @classmethod
    def record(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: RowLoss,
        data: Any,
        out: str | os.PathLike[str] | None = None,
        parameters: Parameters = None,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scaler: object = None,
        sampling: Literal["detect", "reshuffle", "independent"] = "detect",
        steps_per_epoch: int | None = None,
        snapshot_bytes: int = 2**30,
        processes: Together = "one",
    ) -> "Tape":
        """Begin to record a training loop; call `tape.step(ids=…)` after each step of the optimiser.

        The model is not wrapped or written on, and the numbers of the training do not change: the tape watches the
        optimiser's steps, and the forward passes of a model that draws random numbers, through PyTorch's hooks, and
        takes them off when the recording ends (`finish`, or the first use of the tape).

        Parameters
        ----------
        model, optimizer
            As the loop trains them: torch.optim.SGD, Adam, AdamW or Muon, with any options, groups and schedulers.
        loss : callable
            `loss(model, batch) -> Tensor[B]`, one loss per row, whose mean the loop descends.
        data : Rows, dict of arrays, or map-style Dataset
            The training rows.
        out : path, optional
            Folder for the tape; in memory if None.
        parameters : names, or callable(name) -> bool, optional
            What is trained, such as adapters only (default: what the optimiser holds and requires a gradient).
        collate : callable, optional
            The loader's `collate_fn`, if it is not torch's.
        clip_norm, clip_value : float, optional
            At what the loop clips the gradient, before the optimiser's step.
        scaler : torch.amp.GradScaler, optional
            The loop's own, which may skip steps; gradients are to be unscaled as it does.
        sampling : {"detect", "reshuffle", "independent"}
            Whether rows come once an epoch or are drawn with replacement; read off the ids if "detect".
        steps_per_epoch : int, optional
            For loops that leave epochs early.
        snapshot_bytes : int
            Budget for kept states; replay recomputes the others.
        processes : {"one", "all"}
            *all*: the loop runs in every process of torch.distributed's group under DistributedDataParallel or
            fully_shard; each names its own ids, and `gather` ends the recording. Process 0 writes to `out`. The
            weights of a sharded model are exchanged once here, so that all processes must call this.

        Returns
        -------
        Tape

        Raises
        ------
        ConfigError, DataError, NotSupportedError, StorageError
            A loop that cannot be replayed is refused with the reason: here, at `step`, or by `finish`.

        Notes
        -----
        Cost: a copy of the state every k steps, without waiting for a GPU.

        Examples
        --------
        >>> from finfluence.runs import Rows
        >>> rows = Rows(x=torch.eye(4), y=torch.arange(4.0))
        >>> def row_loss(model, batch):
        ...     return (model(batch["x"])[:, 0] - batch["y"]) ** 2
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> tape = Tape.record(model, optimizer, loss=row_loss, data=rows)
        >>> for ids in torch.tensor([[0, 1], [2, 3], [3, 1], [0, 2]]):
        ...     row_loss(model, rows.batch(ids)).mean().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     tape.step(ids=ids)
        >>> tape.finish().epochs
        [range(0, 2), range(2, 4)]
        """
        tape, group = cls.__new__(cls), Processes.of(processes)
        tape.folder = Path(out) if out is not None and group.rank == 0 else None
        recorder = start(
            underlying(model), optimizer, loss, data, tape.folder, parameters, collate=collate, clip_norm=clip_norm,
            clip_value=clip_value, scaler=scaler, sampling=sampling, steps_per_epoch=steps_per_epoch,
            snapshot_bytes=snapshot_bytes, processes=group,
        )  # fmt: skip
        tape._steps, tape._recorder, tape._states = None, recorder, recorder.states
        tape.memo, tape.cache, tape.seed = {}, Cache(), 0
        if group.size > 1 or recorder.shards is not None:  # until `gather`, rows or states are not whole
            tape._apart, recorder.folder = group, None
        return tape

    def step(
        self,
        ids: Any,
        *,
        weights: Sequence[float] | None = None,
        batch: Batch | Sequence[Batch] | None = None,
    ) -> None:
        """Say which rows the optimiser's last step used; after `optimizer.step()`.

        Parameters
        ----------
        ids : sequence or Tensor, or a list of them
            Row ids of the batch; with gradient accumulation one entry for each backward pass.
        weights : sequence of float, optional
            What each micro-batch's mean loss is multiplied by (default: equal, with sum 1).
        batch : dict or list of dicts, optional
            The fields as the loop saw them, where the data set augments at random; they are stored.

        Raises
        ------
        DataError
            Unknown ids (looked up for up to 64 steps together), or a data set that changes.
        TrainingError
            The optimiser has taken no step, or more than one, since the last call.
        """
        if self._recorder is None or self._steps is not None:
            raise ConfigError(
                explain(
                    "a tape that is being recorded",
                    "one that is finished",
                    "it was made by fi.train or opened, or was read (replayed) before the training went on",
                    "record with fi.Tape.record, and replay after the last step",
                )
            )
        self._recorder.step(ids, weights, batch)

    def finish(self) -> "Tape":
        """End the recording and check that its steps can be taken again; a finished tape returns itself.

        Raises
        ------
        TrainingError, DataError, NotSupportedError, ConfigError
            The loop cannot be replayed: which step, by how much, and what usually causes it.
        """
        if self._steps is None:
            assert self._recorder is not None
            if self._apart is not None and self._apart.size == 1:
                return self.gather()
            if self._apart is not None:
                raise ConfigError(
                    explain(
                        "tape.gather() after the last step, in every process",
                        "a tape that holds the rows of this process only",
                        "it was recorded with processes='all', and used before processes told each other their rows",
                        "call tape.gather() in all processes, then use the tape in any of them",
                    )
                )
            try:
                self._steps = finish(self._recorder)
            finally:
                self._recorder.release()
        return self

    def gather(self) -> "Tape":
        """End a recording with processes="all": exchange ids and sharded states, `finish`. Every process calls it.

        Raises
        ------
        TrainingError, DataError, NotSupportedError, ConfigError
            As `finish`; or processes that took other steps than the others.
        """
        if self._apart is not None:
            assert self._recorder is not None
            self._recorder.folder = self.folder
            try:
                gather(self._recorder, self._apart)
            finally:
                self._recorder.release()
            self._apart, self._states = None, self._recorder.states
        return self.finish()

    @property
    def _run(self) -> RecipeSteps | RecordedSteps:
        if self._steps is None:
            self.finish()
        assert self._steps is not None
        return self._steps

    @property
    def steps(self) -> int:
        """Number of optimiser steps T."""
        if self._steps is None and self._recorder is not None:
            return self._recorder.steps
        return self._run.count

    @property
    def finished(self) -> bool:
        """Whether the run has reached its last step."""
        return self._steps is not None and (
            self._states is not None or len(self.snapshots) == self.kept_steps
        )

    @property
    def kept_steps(self) -> int:
        """Number of states a whole tape keeps: s_0, s_k, … and the final s_T."""
        return -(-self.steps // self.every) + 1

    @property
    def losses(self) -> np.ndarray:
        """Mean batch loss before each step [T] of a tape of `train`."""
        _ = self._trained
        return torch.stack(self.snapshots.losses).double().cpu().numpy()

    @property
    def spacing(self) -> int:
        """The most steps from one kept state to the next."""
        run = self._run
        return self.every if self._states is None else self._states.spacing(run.count)

    def final_state(self) -> Tensor:
        """Return s_T."""
        run = self._run
        return self._states[run.count] if self._states is not None else self.snapshots[self.kept_steps - 1]

    def kept_before(self, t: int) -> tuple[int, int, Tensor]:
        """Return the last kept state at or before step t: its step, the step of the next one kept, the state."""
        run = self._run
        if self._states is not None:
            first, following = self._states.before(t)
            return first, run.count if following is None else min(following, run.count), self._states[first]
        first = t - t % self.every
        return first, min(first + self.every, run.count), self.snapshots[t // self.every]

    def states_from(self, first: int, start: Tensor, stop: int, every: int = 1) -> Tensor:
        """Recompute from `start`, the state before step `first`: those before every `every`-th step up to `stop`."""
        return states_from(self._run, first, start, stop, every)

    def model(self, step: int | None = None) -> nn.Module:
        """Return a fresh copy of the model as it was before `step` (default: after the last)."""
        model = self._run.initial_model()
        self.layout.assign(model, self.state(step)[: self.layout.size])
        return model

    def state(self, step: int | None = None) -> Tensor:
        """Return the state before `step` (default: the final one)."""
        if step is None or step == self._run.count:
            return self.final_state()
        first, _, start = self.kept_before(step)
        return self.states_from(first, start, step + 1, max(1, step - first))[-1]

    def header(self) -> dict[str, Any]:
        """Return what identifies the run."""
        initial = self.layout.theta(self._run.initial_model()).cpu()
        return {
            "format": FORMAT,
            "version": VERSION,
            "recipe": self.recipe.describe(),
            "initial_weights": _files.digest(initial.view(torch.uint8).numpy().tobytes()),
            "init_seed": self.init_seed,
            "order_seed": self.order_seed,
            "every": self.every,
            "steps": self.steps,
        }

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        recipe: Recipe | None = None,
        *,
        model: nn.Module | None = None,
        loss: RowLoss | None = None,
        data: Any = None,
        collate: Callable[[list[Any]], Any] | None = None,
        partial: bool = False,
    ) -> "Tape":
        """Open the tape in `folder`: of `train` with its recipe, of a recorded loop with its model, loss and data.

        Parameters
        ----------
        model : nn.Module
            As given to `record`; the values of trained parameters come from the tape.
        loss, data, collate : as given to `record`.
        partial : bool
            Read a recorded loop that was interrupted, up to its last whole step.

        Raises
        ------
        StorageError
            No tape there, a tape of something else, or an unfinished one.
        ConfigError
            Arguments of the other kind of tape.
        """
        place = Path(folder)
        if recipe is None:
            if model is None or loss is None or data is None:
                raise ConfigError(
                    explain(
                        "a recipe, or model=, loss= and data=",
                        "not all of them",
                        "a tape holds states and row ids, but neither code nor rows",
                        "pass what fi.train or fi.Tape.record was given",
                    )
                )
            tape = cls.__new__(cls)
            tape._steps, tape._states = reopen(place, model, loss, data, collate, partial)
            tape._recorder, tape.folder, tape.memo, tape.cache, tape.seed = None, place, {}, Cache(), 0
            return tape
        tape = resume(place, recipe)
        if not tape.finished:
            done = max(0, len(tape.snapshots) - 1) * tape.every
            raise StorageError(
                explain(
                    f"a finished tape in {folder}",
                    f"one that ends after {done} of {tape.steps} steps",
                    "the training was interrupted, or files of the tape were removed",
                    "finish it: fi.train(recipe, out=…, resume=True) goes on where it stopped",
                )
            )
        return tape


def resume(folder: Path, recipe: Recipe) -> Tape:
    """Return the tape in `folder` as far as it got."""
    header = read_header(folder)
    run = RecipeSteps(recipe, header["init_seed"], header["order_seed"])
    tape = Tape(run, header["every"], folder)
    differing = differences(header, tape.header())
    if differing:
        raise StorageError(
            explain(
                f"the recipe that made the tape in {folder}",
                f"another one: {'; '.join(differing)}",
                "data, model or options changed since the tape was made",
                "use the original recipe, or train into a new folder",
            )
        )
    tape.snapshots.reopen()
    return tape
