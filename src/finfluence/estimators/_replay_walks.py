"""The walks of one replay: queries in chunks, as many together as memory allows; progress saved in a folder."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from finfluence._files import atomic, digest
from finfluence._progress import Progress
from finfluence.estimators._budget import Settings, remembered, settings_for
from finfluence.estimators._choose_pass import Choice, Differentiation, choose_pass
from finfluence.estimators._costs import bytes_per_query, measure
from finfluence.estimators._horizon import Horizon
from finfluence.estimators._late import Late, late_steps
from finfluence.estimators._walk import Plan, Walk
from finfluence.runs import AnyQuery, Tape, gradients, read_tensors, seeded

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


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is settled before the first walk.

    values, slopes : of the queries at the end of training, [Q] and [Q, P].
    together : queries of one walk.
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
    together: int

    def chunks(self) -> list[range]:
        """Return the columns of the queries that are walked together."""
        count = len(self.slopes)
        return [range(k, min(k + self.together, count)) for k in range(0, count, self.together)]


def prepare(
    tape: Tape,
    queries: list[AnyQuery],
    model: nn.Module,
    plan: Plan,
    horizon: Horizon,
    late: float,
    memory_bytes: int,
    differentiation: Differentiation,
    budget: float | None,
    out: str | os.PathLike[str] | None,
) -> Prepared:
    """Differentiate the queries, choose the pass, and turn a budget into settings."""
    with seeded(0):
        values, slopes = gradients(queries, model, tape, tape.layout.parameters(model))
    choice = choose_pass(tape, slopes, differentiation, memory_bytes)
    settings: Settings | None = None
    if budget is not None:
        costs = partial(measure, tape, choice.adjoint, slopes, memory_bytes)
        choose = partial(settings_for, budget, tape, plan, horizon.limit, len(slopes), costs, late)
        key = _key(tape, choice, plan, horizon, slopes, f"{budget}")
        settings = remembered(Path(out) if out is not None else None, key, choose)
        plan, horizon = settings.plan(plan), horizon.at_most(settings.horizon)
    walked = sum(len(epoch) for epoch in tape.epochs[-horizon.limit :])
    plan = replace(plan, late=late_steps(tape.steps, walked, late))
    together = max(1, int(memory_bytes // bytes_per_query(tape)))
    if len(plan.late) > 1:
        together = max(1, together // 2)
    return Prepared(tape, queries, model, values, slopes, choice, plan, horizon, settings, together)


def walk_all(prepared: Prepared, out: str | os.PathLike[str] | None, progress: Progress) -> Iterator[Sums]:
    """Walk chunk after chunk of the queries, and yield the sums of each."""
    epochs, chunks = len(prepared.tape.epochs), prepared.chunks()
    for index, columns in enumerate(chunks):

        def tell(next_epoch: int, index: int = index) -> None:
            progress("replay", index * epochs + epochs - 1 - next_epoch, len(chunks) * epochs)

        yield walk_chunk(prepared, columns, Path(out) if out is not None else None, tell)
    progress("replay", len(chunks) * epochs, len(chunks) * epochs)


def walk_chunk(prepared: Prepared, columns: range, folder: Path | None, tell: Callable[[int], None]) -> Sums:
    """Walk some queries together."""
    tape, plan, chunk = prepared.tape, prepared.plan, prepared.slopes[columns.start : columns.stop]
    shape = len(chunk), 1 + len(tape.optimizer.slots), tape.layout.size
    start = torch.zeros(shape, dtype=chunk.dtype, device=chunk.device)
    start[:, 0] = chunk
    averaged = Late(tape, prepared.queries, columns, plan.late, prepared.model)
    walk = Walk(tape, prepared.choice.adjoint, start, plan, prepared.horizon, averaged)
    with seeded(0):
        _run_resumable(walk, tape, prepared.choice, chunk, folder, tell)
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
    walk: Walk, tape: Tape, choice: Choice, start: Tensor, folder: Path | None, tell: Callable[[int], None]
) -> None:
    """Run the walk; with a folder, save its state now and then, and go on from a saved one."""
    if folder is None:
        walk.run(tell)
        return
    path = folder / f"replay-{_key(tape, choice, walk.plan, walk.horizon, start)}.safetensors"
    if path.exists():
        walk.restore(read_tensors(path))
    saved_at = time.monotonic()

    def after(next_epoch: int) -> None:
        nonlocal saved_at
        tell(next_epoch)
        if walk.done or time.monotonic() - saved_at > SAVE_SECONDS:
            with atomic(path) as part:
                save_file({k: v.contiguous().cpu() for k, v in walk.tensors().items()}, part)
            saved_at = time.monotonic()

    walk.run(after)


def _key(tape: Tape, choice: Choice, plan: Plan, horizon: Horizon, start: Tensor, more: str = "") -> str:
    """Return a hash of all that a walk's numbers depend on."""
    header = repr((tape.describe(), *tape.identity().values(), plan, horizon, choice.name, more))
    return digest(header.encode(), start.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
