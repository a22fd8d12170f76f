"""The backward passes of one replay: queries in chunks, as many together as memory allows; progress in a folder."""

import time
from collections.abc import Callable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from finfluence._files import atomic
from finfluence._progress import Progress
from finfluence.distributed import Processes
from finfluence.errors import StorageError
from finfluence.estimators.derivatives import DifferentGradientError
from finfluence.estimators.replay._backward import BackwardPass, PassRules
from finfluence.estimators.replay._context import Context, work_key
from finfluence.estimators.replay._tail import TailAverage
from finfluence.runs import Tape, read_tensors, seeded


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What the backward pass of some queries leaves.

    Parameters
    ----------
    columns : range
        Of the queries.
    effects, effect_variance : array [n, q]
        Of the rows, or of the candidates.
    steady_share : array [q]
        Of the effects' variance: what is left where epochs may differ by a common factor.
    variance, variance_error : array [q]
        Var(q) over batch orders, and the variance of that estimate.
    profile : array [E, q]
        What each epoch adds to it.
    horizon : array [q]
        Epochs covered.
    step_share, step_number : array [4, q]
        The largest shares that single steps hold of the slopes' variance, and which steps.
    finite_share : array [L, 3, q]
        Of the steps looked at, where finite changes were taken: their shares by tangents, and now, and whether these
        are doubtful.
    """

    columns: range
    effects: np.ndarray
    effect_variance: np.ndarray
    steady_share: np.ndarray
    variance: np.ndarray
    variance_error: np.ndarray
    profile: np.ndarray
    horizon: np.ndarray
    step_share: np.ndarray
    step_number: np.ndarray
    finite_share: np.ndarray

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors, for other processes."""
        arrays = {
            f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self) if f.name != "columns"
        }
        return {"columns": torch.tensor([self.columns.start, self.columns.stop]), **arrays}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "ChunkResult":
        """Return what `tensors()` was made of."""
        columns = range(*tensors["columns"].tolist())
        return cls(columns, **{k: v.numpy() for k, v in tensors.items() if k != "columns"})


def run_chunks(context: Context, progress: Progress) -> Iterator[ChunkResult]:
    """Run chunk after chunk of the queries, and yield the result of each; those of other processes, too."""
    sharing, epochs = context.sharing, len(context.tape.epochs)
    chunks = context.chunks()
    mine = chunks[0 if sharing.by_rows else sharing.processes.rank]
    with closing(context.states):
        for index in range(max(len(part) for part in chunks)):

            def tell(next_epoch: int, index: int = index) -> None:
                progress("replay", index * epochs + epochs - 1 - next_epoch, len(mine) * epochs)

            own = _run_chunk(context, mine[index], tell) if index < len(mine) else None
            yield from _exchange(
                own, [part[index] if index < len(part) else None for part in chunks], context
            )
    progress("replay", len(mine) * epochs, len(mine) * epochs)


def _exchange(
    own: ChunkResult | None, columns: list[range | None], context: Context
) -> Iterator[ChunkResult]:
    """Yield the results of all processes for the columns [processes] of one round; one's own where all share it."""
    processes = context.sharing.processes
    if context.sharing.by_rows or processes.size == 1:
        assert own is not None
        yield own
        return
    for owner, part in enumerate(columns):
        if part is not None:
            given = own.tensors() if own is not None and owner == processes.rank else None
            yield ChunkResult.of(processes.shared(given, owner))


def _run_chunk(context: Context, columns: range, tell: Callable[[int], None]) -> ChunkResult:
    """Follow some queries together; anew with exact derivatives, where cheaper ones turn out to differ on the way."""
    exact = context.derivative.exact
    try:
        return _follow(context, columns, tell)
    except DifferentGradientError as error:
        if exact is None:
            raise
        got = str(error).partition("got: ")[2].splitlines()[0]
        context.notes.append(f"queries {columns.start} to {columns.stop - 1} were replayed exactly: {got}")
    # Out here, where the error and the first pass that it holds are gone.
    return _follow(replace(context, derivative=exact()), columns, tell)


def _follow(context: Context, columns: range, tell: Callable[[int], None]) -> ChunkResult:
    tape, asked = context.tape, context.asked
    schedule = context.schedule
    tail = TailAverage(tape, asked.queries, columns, schedule.tail, asked.model, schedule.spread)
    rules = PassRules(
        schedule,
        context.truncation,
        tail,
        asked.losses,
        context.candidates,
        context.memory.rows_at_once,
        context.memory.whole,
    )
    start = _start(tape, asked.take(columns))
    key = (
        None
        if context.folder is None
        else work_key(tape, context.derivative, start, (rules.schedule, rules.truncation, rules.candidates))
    )
    backward = BackwardPass(tape, context.derivative.adjoint, start, rules, context.states)
    del start

    def checked(next_epoch: int) -> None:
        context.derivative.adjoint.settle()
        tell(next_epoch)

    with seeded(0):
        if context.folder is None:
            backward.run(checked)
        else:
            saved = SavedProgress(context.folder / f"replay-{key}.safetensors", context)
            saved.run(backward, checked)
    totals, (step_share, finite_share) = backward.totals, backward.steps.shares()
    return ChunkResult(
        columns,
        totals.effects.cpu().numpy(),
        totals.effect_variance().cpu().numpy(),
        totals.steady_share().cpu().numpy(),
        totals.variance().cpu().numpy(),
        totals.profile_error.sum(0).cpu().numpy(),
        totals.profile.cpu().numpy(),
        totals.accepted.cpu().numpy(),
        step_share,
        backward.steps.largest_step.cpu().numpy(),
        finite_share,
    )


def _start(tape: Tape, gradients: Tensor) -> Tensor:
    """Return λ_T [q, 1+S, P] from the gradients [q, P]: nothing in the optimiser's part."""
    start = gradients.new_zeros(len(gradients), 1 + len(tape.optimizer.slots), tape.layout.size)
    start[:, 0] = gradients
    return start


class SavedProgress:
    """A file that holds how far a backward pass has come.

    Attributes
    ----------
    seconds : float
        It is written at the end of an epoch, if the last time is longer ago than this, and at the end of the pass.
    """

    seconds: ClassVar[float] = 10.0

    def __init__(self, path: Path, context: Context) -> None:
        self._path = path
        self._notes = context.notes
        self._processes = context.sharing.processes if context.sharing.by_rows else Processes()

    def run(self, backward: BackwardPass, tell: Callable[[int], None]) -> None:
        """Run the pass, from where it was broken off, and save it now and then."""
        first = self._processes.rank == 0
        wanted = backward.tensors().keys() - {"moves"}
        kept = self._processes.shared(self._read(wanted) if first else None, 0)
        if kept:
            backward.restore(kept)
        saved_at = time.monotonic()

        def after(next_epoch: int) -> None:
            nonlocal saved_at
            tell(next_epoch)
            if first and (backward.done or time.monotonic() - saved_at > self.seconds):
                with atomic(self._path) as part:
                    save_file({k: v.contiguous().cpu() for k, v in backward.tensors().items()}, part)
                saved_at = time.monotonic()

        backward.run(after)

    def _read(self, wanted: Set[str]) -> dict[str, Tensor]:
        """Return the state of a pass that was broken off; nothing if there is none, or none that can be read."""
        if not self._path.exists():
            return {}
        try:
            found = read_tensors(self._path)
        except StorageError:
            found = {}
        if wanted <= found.keys():
            return found
        self._notes.append(f"saved progress could not be read and was made again: {self._path.name}")
        return {}
