"""The walks of one replay: queries in chunks, as many together as memory allows; progress saved in a folder."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from finfluence._clock import clock
from finfluence._files import atomic, digest
from finfluence._progress import Progress
from finfluence.distributed import Processes
from finfluence.errors import StorageError
from finfluence.estimators.derivatives import (
    Choice,
    Differentiation,
    by_rows,
    choose_adjoint,
    query_gradients,
    shares,
)
from finfluence.estimators.replay._backward import Plan, Walk
from finfluence.estimators.replay._recomputed_states import WalkedStates, remove_left_over
from finfluence.estimators.replay._tail import Late, late_steps
from finfluence.estimators.replay._truncation import Horizon
from finfluence.estimators.replay.cost import (
    Costs,
    Memory,
    Settings,
    measure,
    remembered,
    settings_for,
    settings_from,
    share_memory,
)
from finfluence.runs import AnyQuery, Tape, read_tensors, seeded

SAVE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Sums:
    """What the walk of some queries leaves: effects and their variances [n, q], the rest [q] or [E, q]."""

    columns: range
    effects: np.ndarray
    effect_variance: np.ndarray
    variance: np.ndarray
    variance_error: np.ndarray
    profile: np.ndarray
    horizon: np.ndarray

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors, for other processes."""
        arrays = {
            f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self) if f.name != "columns"
        }
        return {"columns": torch.tensor([self.columns.start, self.columns.stop]), **arrays}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Sums":
        """Return what `tensors()` was made of."""
        columns = range(*tensors["columns"].tolist())
        return cls(columns, **{k: v.numpy() for k, v in tensors.items() if k != "columns"})


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is settled before the first walk.

    values, slopes : of the queries at the end of training, [Q] and [Q, P].
    memory : queries of one walk, and room for states; states : those of all walks.
    processes : who works on it; `rows_shared` whether on the same walks.
    notes : filled by the walks: what a reader should know.
    """

    tape: Tape
    queries: list[AnyQuery]
    model: nn.Module
    values: np.ndarray
    slopes: Tensor
    choice: Choice
    plan: Plan
    horizon: Horizon
    settings: Settings | None
    memory: Memory
    states: WalkedStates
    processes: Processes
    rows_shared: bool
    notes: list[str] = field(default_factory=list)

    def chunks(self) -> list[list[range]]:
        """Return the columns of the queries that are walked together, of each process that walks by itself."""
        parts = (
            [range(len(self.slopes))] if self.rows_shared else shares(len(self.slopes), self.processes.size)
        )
        size = self.memory.together
        return [[p[k : k + size] for k in range(0, len(p), size)] for p in parts]


def prepare(
    tape: Tape,
    queries: list[AnyQuery],
    model: nn.Module,
    plan: Plan,
    horizon: Horizon,
    late: float,
    memory_bytes: int,
    snapshot_bytes: int,
    differentiation: Differentiation,
    budget: float | Mapping[str, Any] | None,
    out: str | os.PathLike[str] | None,
    processes: Processes,
    beside: Callable[[], float],
) -> Prepared:
    """Differentiate the queries, choose the pass, and turn a budget into settings.

    `beside()` tells the seconds that the replay spends on anything but this and the walk.
    """
    began = clock(tape.layout.device)
    with seeded(0):
        values, slopes = query_gradients(queries, model, tape)
    asking = clock(tape.layout.device) - began
    choice = choose_adjoint(tape, slopes, differentiation, memory_bytes)
    rows_shared = processes.size > 1 and by_rows(tape, len(slopes), processes) and not choice.agreement.coupled
    alone = len(slopes) if rows_shared else -(-len(slopes) // processes.size)
    folder = Path(out) if out is not None else None
    disk = snapshot_bytes if folder is not None else 0
    if folder is not None and processes.rank == 0:
        remove_left_over(folder)
    settings: Settings | None = None
    if budget is not None:
        memory = share_memory(tape, alone, late > 0, memory_bytes, disk)

        def measured() -> Costs:
            costs = measure(tape, choice.adjoint, slopes, memory, late, asking, asking)
            return replace(costs, fixed=costs.fixed + beside())

        choose = (
            partial(settings_from, budget)
            if isinstance(budget, Mapping)
            else partial(settings_for, budget, tape, plan, horizon.limit, memory, measured, late)
        )
        key = _key(tape, choice, plan, horizon, slopes, f"{budget}")
        processes.agree("tape, queries and options of replay", key)
        first = remembered(folder, key, choose) if processes.rank == 0 else None
        told = processes.text_of_first(json.dumps(asdict(first)) if first is not None else "")
        settings = Settings(**json.loads(told))
        plan, horizon = settings.plan(plan), horizon.at_most(settings.horizon)
    walked = sum(len(epoch) for epoch in tape.epochs[-horizon.limit :])
    plan = replace(plan, late=late_steps(tape.steps, walked, late))
    memory = share_memory(tape, alone, len(plan.late) > 1, memory_bytes, disk)
    processes.agree(
        "tape, queries and options of replay", _key(tape, choice, plan, horizon, slopes, f"{memory.together}")
    )
    if rows_shared:
        choice = choice.over_rows(processes)
    return Prepared(
        tape,
        queries,
        model,
        values,
        slopes,
        choice,
        plan,
        horizon,
        settings,
        memory,
        WalkedStates(tape, memory.room, memory.walks, folder, disk),
        processes,
        rows_shared,
    )


def walk_all(prepared: Prepared, out: str | os.PathLike[str] | None, progress: Progress) -> Iterator[Sums]:
    """Walk chunk after chunk of the queries, and yield the sums of each; those of other processes, too."""
    epochs, chunks = len(prepared.tape.epochs), prepared.chunks()
    mine = chunks[0 if prepared.rows_shared else prepared.processes.rank]
    folder = Path(out) if out is not None else None
    with closing(prepared.states):
        yield from _walked(prepared, chunks, mine, folder, progress)
    progress("replay", len(mine) * epochs, len(mine) * epochs)


def _walked(
    prepared: Prepared,
    chunks: list[list[range]],
    mine: list[range],
    folder: Path | None,
    progress: Progress,
) -> Iterator[Sums]:
    epochs, processes = len(prepared.tape.epochs), prepared.processes
    for index in range(max(len(part) for part in chunks)):

        def tell(next_epoch: int, index: int = index) -> None:
            progress("replay", index * epochs + epochs - 1 - next_epoch, len(mine) * epochs)

        own = walk_chunk(prepared, mine[index], folder, tell) if index < len(mine) else None
        if prepared.rows_shared or processes.size == 1:
            assert own is not None
            yield own
            continue
        for owner, part in enumerate(chunks):
            if index < len(part):
                given = own.tensors() if own is not None and owner == processes.rank else None
                yield Sums.of(processes.shared(given, owner))


def walk_chunk(prepared: Prepared, columns: range, folder: Path | None, tell: Callable[[int], None]) -> Sums:
    """Walk some queries together."""
    tape, plan, chunk = prepared.tape, prepared.plan, prepared.slopes[columns.start : columns.stop]
    shape = len(chunk), 1 + len(tape.optimizer.slots), tape.layout.size
    start = torch.zeros(shape, dtype=chunk.dtype, device=chunk.device)
    start[:, 0] = chunk
    averaged = Late(tape, prepared.queries, columns, plan.late, prepared.model)
    walk = Walk(tape, prepared.choice.adjoint, start, plan, prepared.horizon, averaged, prepared.states)
    with seeded(0):
        _run_resumable(prepared, walk, chunk, folder, tell)
    totals = walk.totals
    return Sums(
        columns,
        totals.effects.cpu().numpy(),
        totals.effect_variance().cpu().numpy(),
        totals.variance().cpu().numpy(),
        totals.profile_error.sum(0).cpu().numpy(),
        totals.profile.cpu().numpy(),
        totals.accepted.cpu().numpy(),
    )


def _run_resumable(
    prepared: Prepared, walk: Walk, chunk: Tensor, folder: Path | None, tell: Callable[[int], None]
) -> None:
    """Run the walk; with a folder, save its state now and then, and go on from a saved one."""
    if folder is None:
        walk.run(tell)
        return
    processes = prepared.processes if prepared.rows_shared else Processes()
    key = _key(prepared.tape, prepared.choice, walk.plan, walk.horizon, chunk)
    path = folder / f"replay-{key}.safetensors"
    kept = (
        processes.shared(_saved(path, prepared.notes), 0)
        if processes.rank == 0
        else processes.shared(None, 0)
    )
    if kept:
        walk.restore(kept)
    saved_at = time.monotonic()

    def after(next_epoch: int) -> None:
        nonlocal saved_at
        tell(next_epoch)
        if processes.rank == 0 and (walk.done or time.monotonic() - saved_at > SAVE_SECONDS):
            with atomic(path) as part:
                save_file({k: v.contiguous().cpu() for k, v in walk.tensors().items()}, part)
            saved_at = time.monotonic()

    walk.run(after)


def _saved(path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Return the state of a walk that was broken off; nothing if there is none, or none that can be read."""
    if not path.exists():
        return {}
    try:
        return read_tensors(path)
    except StorageError:
        notes.append(f"saved progress could not be read and was made again: {path.name}")
        return {}


def _key(tape: Tape, choice: Choice, plan: Plan, horizon: Horizon, start: Tensor, more: str = "") -> str:
    """Return a hash of all that a walk's numbers depend on."""
    header = repr((tape.describe(), *tape.identity().values(), plan, horizon, choice.name, more))
    return digest(header.encode(), start.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
