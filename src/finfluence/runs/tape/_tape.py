"""Tape: what one training run leaves behind, enough to follow it backwards."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.distributed import Processes, Together
from finfluence.errors import ConfigError, StorageError, explain
from finfluence.grads import Batch, RowLoss, without_graph
from finfluence.runs.checkpoints import CheckpointStore, RegularCheckpoints
from finfluence.runs.describe import AnyQuery, Recipe, check_queries
from finfluence.runs.record import RecordOptions, check_alone, finish, gather, reopen, save, start, underlying
from finfluence.runs.steps import Clipping, Parameters, RecipeSteps, Sampling, Steps, find_epochs, states_from
from finfluence.runs.tape._read_view import ReadView
from finfluence.runs.tape._tape_header import differences, header_of, read_header


class Tape(ReadView):
    """The states of one run: some are kept, the others are recomputed bit for bit.

    A state is the flat vector [θ | optimiser slots] before a step. A tape is only read. It is made by `train`, by
    `open`, or by `TapeRecorder.finish`; `record` begins a recording around a loop of one's own.

    Attributes
    ----------
    checkpoints : CheckpointStore
        The states that are kept.
    folder : path or None
        Where it lies on disk.
    seed : int
        Where estimators take their own randomness from, unless told otherwise.
    """

    def __init__(
        self,
        run: Steps,
        checkpoints: CheckpointStore,
        folder: Path | None = None,
        seed: int = 0,
        row_losses: dict[int, Tensor] | None = None,
    ) -> None:
        super().__init__(run)
        self.checkpoints, self.folder, self.seed = checkpoints, folder, seed
        self._row_losses = {} if row_losses is None else row_losses

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
        resume_at: int | None = None,
    ) -> "TapeRecorder":
        """Begin to record a training loop; call `tape.step(ids=…)` after each step of the optimiser.

        The model is not wrapped or written on, and the numbers of the training do not change: the tape watches the
        optimiser's steps, and the forward passes of a model that draws random numbers, through PyTorch's hooks, and
        takes them off when the recording ends: with `tape.finish()`, or when it is handed to `replay`.

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
        resume_at : int, optional
            Go on with the tape in `out` at this step, at which `TapeRecorder.save` was called, with model and
            optimiser as they were then; what the folder holds of later steps is removed.

        Returns
        -------
        TapeRecorder
            Told the rows of every step; its `finish()` is the tape.

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
        options = RecordOptions(
            parameters, collate, Clipping(clip_norm, clip_value), scaler, Sampling(sampling, steps_per_epoch),
            snapshot_bytes, Processes.of(processes), resume_at,
        )  # fmt: skip
        return TapeRecorder(model, optimizer, loss, data, Path(out) if out is not None else None, options)

    @property
    def steps(self) -> int:
        """Number of optimiser steps T."""
        return self.run.count

    @property
    def losses(self) -> np.ndarray:
        """Mean batch loss before each step [T] of a tape of `train`."""
        _ = self._trained
        assert isinstance(self.checkpoints, RegularCheckpoints)
        return torch.stack(self.checkpoints.losses).double().cpu().numpy()

    @property
    def interval(self) -> int:
        """The most steps from one kept state to the next."""
        return self.checkpoints.interval

    def final_state(self) -> Tensor:
        """Return s_T."""
        return self.checkpoints[self.steps]

    def checkpoint_before(self, t: int) -> tuple[int, int, Tensor]:
        """Return the last kept state at or before step t: its step, the step of the next one kept, the state."""
        first, following = self.checkpoints.before(t)
        return first, self.steps if following is None else following, self.checkpoints[first]

    def states_from(self, first: int, start: Tensor, stop: int, every: int = 1) -> Tensor:
        """Recompute from `start`, the state before step `first`: those before every `every`-th step up to `stop`."""
        return states_from(self.run, first, start, stop, every, self._row_losses)

    def row_losses(self, t: int) -> Tensor | None:
        """Return the row losses [B] of step t, as of `step_loss`, if they are known since it was taken."""
        return self._row_losses.get(t)

    def model(self, step: int | None = None) -> nn.Module:
        """Return a fresh copy of the model as it was before `step` (default: after the last)."""
        model = self.run.initial_model()
        self.layout.assign(model, self.state(step)[: self.layout.size])
        return model

    def state(self, step: int | None = None) -> Tensor:
        """Return the state before `step` (default: the final one)."""
        if step is None or step == self.steps:
            return self.final_state()
        first, _, start = self.checkpoint_before(step)
        return self.states_from(first, start, step + 1, max(1, step - first))[-1]

    def models(self, steps: Sequence[int]) -> Iterator[nn.Module]:
        """Yield fresh copies of the model, in evaluation mode, as it was before each of these ascending steps.

        Training is followed once: no step is taken twice.

        Yields
        ------
        torch.nn.Module
        """
        at, state = -1, torch.empty(0)
        for step in steps:
            kept = self.steps if step == self.steps else self.checkpoint_before(step)[0]
            if kept > at:
                at, state = kept, self.checkpoints[kept]
            if step > at:
                state = self.states_from(at, state, step + 1, step - at)[-1]
                at = step
            model = self.run.initial_model()
            self.layout.assign(model, state[: self.layout.size])
            yield model.eval()

    def values(self, queries: Sequence[AnyQuery] | AnyQuery, model: nn.Module) -> np.ndarray:
        """Return the values [Q] of queries for a model in evaluation mode, one of `models` for instance."""
        parts = [
            without_graph(lambda q=q: q.values(model, self))  # type: ignore[misc]
            for q in check_queries(queries)
        ]
        return torch.cat(parts).double().cpu().numpy()

    def losses_of(self, model: nn.Module, positions: np.ndarray) -> np.ndarray:
        """Return the losses of training rows at these positions for a model, one of `models` for instance."""
        batch = self.batch(torch.as_tensor(positions, dtype=torch.int64))
        return without_graph(lambda: self.loss(model, batch)).double().cpu().numpy()

    def check_unchanged(self) -> None:
        """Check that model and data are still those of the run.

        Weights that training moved are the tape's own; frozen ones, and rows in memory, are shared with the user's.

        Raises
        ------
        ConfigError
            A parameter has other values now; it is named.
        DataError
            A field of the rows has.
        """
        self.run.check_unchanged(self.checkpoints[0])

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
        folder : path
            As given to `train` or `record`.
        recipe : Recipe, optional
            As given to `train`.
        model : nn.Module
            As given to `record`; the values of trained parameters come from the tape.
        loss, data, collate : as given to `record`.
        partial : bool
            Read a recorded loop that was interrupted, up to its last whole step.

        Returns
        -------
        Tape

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
            return cls(*reopen(place, model, loss, data, collate, partial), place)
        run, checkpoints = resume(place, recipe)
        if not checkpoints.complete:
            done = max(0, len(checkpoints) - 1) * checkpoints.interval
            raise StorageError(
                explain(
                    f"a finished tape in {folder}",
                    f"one that ends after {done} of {run.count} steps",
                    "the training was interrupted, or files of the tape were removed",
                    "finish it: fi.train(recipe, out=…, resume=True) goes on where it stopped",
                )
            )
        return cls(run, checkpoints, place, run.order_seed)


class _NotFinishedError(ConfigError, AttributeError):
    """A recorder was read as if it were a tape."""


class TapeRecorder:
    """Records a training loop; made by `Tape.record`.

    The loop calls `step` after each step of its optimiser. `finish` ends the recording and returns the tape;
    estimators that are handed a recorder call it themselves.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: RowLoss,
        data: Any,
        folder: Path | None,
        options: RecordOptions,
    ) -> None:
        processes = options.processes
        self.folder = folder if processes.rank == 0 else None
        self._recorder = start(underlying(model), optimizer, loss, data, self.folder, options)
        self._tape: Tape | None = None
        self._apart = None
        if (
            processes.size > 1 or self._recorder.shards is not None
        ):  # until `gather`, rows or states are not whole
            self._apart, self._recorder.folder = processes, None

    def step(
        self,
        ids: Any,
        *,
        weights: Sequence[Any] | None = None,
        batch: Batch | Sequence[Batch] | None = None,
    ) -> None:
        """Say which rows the optimiser's last step used; after `optimizer.step()`.

        Parameters
        ----------
        ids : sequence or Tensor, or a list of them
            Row ids of the batch; with gradient accumulation one entry for each backward pass.
        weights : sequence of float or of arrays, optional
            What each micro-batch's mean loss is multiplied by (default: equal, with sum 1). Where the loop divides
            by a sum of class weights w, `[len(ids) / w[y].sum()]`. Instead of a number, an array of one for each row:
            what its loss is multiplied by, so that removing a row takes its own share away.
        batch : dict or list of dicts, optional
            The fields as the loop saw them, where the data set augments at random; they are stored.

        Raises
        ------
        DataError
            Unknown ids (looked up for up to 64 steps together), or a data set that changes.
        TrainingError
            The optimiser has taken no step, or more than one, since the last call.
        NotSupportedError
            A step that could not be read, such as one with a sparse gradient.
        ConfigError
            The recording is finished.
        """
        self._check_going_on()
        self._recorder.step(ids, weights, batch)

    def _check_going_on(self) -> None:
        if self._tape is not None:
            raise ConfigError(
                explain(
                    "a tape that is being recorded",
                    "one that is finished",
                    "tape.finish() was called, or it was replayed, before the training went on",
                    "finish or replay after the last step; record a second training with fi.Tape.record",
                )
            )

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Tape, name) and name not in ("run", "checkpoints", "cache", "seed"):
            raise AttributeError(f"'TapeRecorder' object has no attribute '{name}'")
        raise _NotFinishedError(
            explain(
                f"a finished tape, to read {name} of it",
                "the recorder of a loop",
                "tape.finish() ends a recording and returns the tape; until then the loop may take further steps",
                f"write tape = tape.finish() after the last step, then tape.{name}",
            )
        )

    @property
    def steps(self) -> int:
        """Number of steps recorded so far."""
        return self._recorder.steps

    @property
    def epochs(self) -> Sequence[range]:
        """The steps of each pass over the rows so far."""
        if self._tape is not None:
            return self._tape.epochs
        self._recorder.look_up()
        recording = self._recorder.recording
        order, sampling = [np.concatenate(e.rows) for e in recording.entries], recording.sampling
        return find_epochs(order, recording.rows.ids, sampling.kind, sampling.steps_per_epoch)[0]

    @property
    def drawn(self) -> np.ndarray:
        """Positions of the rows of all steps so far, in the order in which the loop used them."""
        self._recorder.look_up()
        rows = [part for entry in self._recorder.recording.entries for part in entry.rows]
        return np.concatenate(rows) if rows else np.zeros(0, np.int64)

    def save(self) -> None:
        """Write the tape as far as it is, so that `Tape.record(…, resume_at=…)` can go on from here.

        To be called where the loop saves its own checkpoint of model and optimiser, after `step`.

        Raises
        ------
        ConfigError
            A recording without `out`, before its first step, or finished.
        TrainingError
            The rows of the last step were not named.
        NotSupportedError
            Several processes, or a sharded model.
        """
        self._check_going_on()
        check_alone(1 if self._apart is None else self._apart.size, self._recorder.shards is not None)
        save(self._recorder)

    def finish(self) -> Tape:
        """End the recording, check that its steps can be taken again, and return the tape; the same one each time.

        Returns
        -------
        Tape

        Raises
        ------
        TrainingError, DataError, NotSupportedError
            The loop cannot be replayed: which step, by how much, and what usually causes it.
        ConfigError
            Nothing was recorded, frozen weights were written on, or `gather` is to be called first.
        """
        if self._tape is not None:
            return self._tape
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
            run = finish(self._recorder)
        finally:
            self._recorder.release()
        self._tape = Tape(run, self._recorder.states, self.folder)
        return self._tape

    def gather(self) -> Tape:
        """End a recording with processes="all": exchange ids and sharded states, `finish`. Every process calls it.

        Returns
        -------
        Tape

        Raises
        ------
        TrainingError, DataError, NotSupportedError, ConfigError
            As `finish`; or processes that took other steps than the others.
        """
        if self._apart is not None:
            self._recorder.folder = self.folder
            try:
                gather(self._recorder, self._apart)
            finally:
                self._recorder.release()
            self._apart = None
        return self.finish()


def resume(folder: Path, recipe: Recipe) -> tuple[RecipeSteps, RegularCheckpoints]:
    """Return the run of the tape in `folder`, and its states as far as it got.

    Returns
    -------
    tuple[RecipeSteps, RegularCheckpoints]

    Raises
    ------
    StorageError
        The tape of another recipe, or none.
    """
    header = read_header(folder)
    run = RecipeSteps(recipe, header["init_seed"], header["order_seed"])
    differing = differences(header, header_of(run, header["every"]))
    if differing:
        raise StorageError(
            explain(
                f"the recipe that made the tape in {folder}",
                f"another one: {'; '.join(differing)}",
                "data, model or options changed since the tape was made",
                "use the original recipe, or train into a new folder",
            )
        )
    checkpoints = RegularCheckpoints(run.width, run.layout.dtype, run.count, header["every"], folder)
    checkpoints.reopen()
    return run, checkpoints
