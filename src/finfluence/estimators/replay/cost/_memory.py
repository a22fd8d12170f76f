"""How a replay divides its memory: queries of one backward pass, and states recomputed on the way.

What a step back takes is estimated from above, which costs nothing; where the queries might not fit together it is
measured, on a step traced for two directions and for four.
"""

from dataclasses import dataclass, replace

import torch

from finfluence.errors import ConfigError, explain
from finfluence.estimators.derivatives import Choice, StepAdjoint
from finfluence.estimators.replay._activations import activation_bytes
from finfluence.estimators.replay._asked import gradient_bytes
from finfluence.estimators.replay._recomputed_states import (
    LEAST,
    capacity_for,
    recomputations,
    state_bytes,
)
from finfluence.estimators.replay._schedule import ROWS_AT_ONCE
from finfluence.estimators.replay._tail import tail_bytes
from finfluence.estimators.replay.cost._peak import PeakMemory
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import Key, affordable_rows

STATES_SHARE = 4
DIRECTION_STATES = 6
SUMS_PER_ROW = 8
MARGIN = 1.5


@dataclass(frozen=True)
class MemorySplit:
    """The division, and what it means for the states that the tape does not keep.

    Parameters
    ----------
    together : int
        Queries of one backward pass.
    passes : int
        How many one process makes.
    capacity : int
        States held by a pass.
    interval : int
        Of the states that the tape keeps.
    on_disk : int
        States that may be written for further passes.
    rows_at_once : int
        Rows evaluated together, beside those of a step.
    whole : float
        The memory that was divided, in bytes.
    """

    together: int
    passes: int
    capacity: int
    interval: int
    on_disk: int = 0
    rows_at_once: int = ROWS_AT_ONCE
    whole: float = 2**30

    def recomputed(self, steps: int) -> float:
        """Return how many steps are taken again in all passes over the last `steps` steps."""
        whole = -(-steps // self.interval) * self.interval
        each = recomputations(self.interval, self.capacity)
        return whole * each * (1 + (self.passes - 1) * (1 - self._shared(whole)))

    def held(self, steps: int) -> int:
        """Return how many states are in memory at one time in passes over the last `steps` steps."""
        segment = min(self.interval, self.capacity)
        return segment if self.passes == 1 else min(self.capacity, segment + steps)

    def written(self, steps: int) -> int:
        """Return how many states are written for further passes over the last `steps` steps."""
        return 0 if self.interval == 1 else max(0, min(self.on_disk, steps - self._spare))

    def sentence(self, steps: int) -> str:
        """Say where the states of the last `steps` steps come from."""
        if self.interval == 1:
            return "all states are on the tape"
        again = self.recomputed(steps) / steps
        words = f"one state in {self.interval} is on the tape, the others are recomputed ({again:.2g} times in all"
        shared = self._shared(-(-steps // self.interval) * self.interval)
        if self.passes == 1 or not shared:
            return words + ")"
        where = "in the folder" if self.written(steps) > self._spare else "in memory"
        return f"{words}; {shared:.0%} of them kept {where} for further passes)"

    @property
    def _spare(self) -> int:
        return max(0, self.capacity - self.interval)

    def _shared(self, steps: int) -> float:
        """Return the share of recomputed states that further passes find kept."""
        return min(1.0, (self._spare + self.on_disk) / steps)


@dataclass(frozen=True)
class StateSizes:
    """What takes memory in a backward pass.

    Parameters
    ----------
    direction : float
        Bytes of each direction followed: λ, and what a step back makes of it.
    query : float
        Bytes of each query beside: sums for every row, and its gradient at another state.
    state : int
        Bytes of one state.
    interval : int
        Of the states that the tape keeps.
    fixed : float
        Bytes of a step back whatever its directions.
    late : float
        Bytes of each query's gradients at the states averaged, where there is a tail.
    """

    direction: float
    query: float
    state: int
    interval: int
    fixed: float = 0.0
    late: float = 0.0

    @classmethod
    def of(cls, tape: Tape, candidates: int = 0, interval: int | None = None) -> "StateSizes":
        """Estimate the sizes from above; with another interval, if the tape kept another share of its states."""
        state = state_bytes(tape.layout, tape.optimizer)
        return cls(
            float(4 * activation_bytes(tape) + DIRECTION_STATES * state),
            float(8 * SUMS_PER_ROW * (len(tape.rows) + candidates) + gradient_bytes(tape)),
            state,
            tape.interval if interval is None else interval,
            late=float(tail_bytes(tape.layout.size, tape.layout.dtype.itemsize)[0]),
        )

    def measured(self, tape: Tape, derivative: Choice) -> "StateSizes":
        """Return the same with a step back measured, along two directions and along four."""
        two, four = (step_bytes(tape, derivative.adjoint.fresh(), count) for count in (2, 4))
        each = (four - two) / 2
        return replace(self, direction=each, fixed=max(0.0, two - 2 * each))

    def together(self, queries: int, tail: bool) -> float:
        """Return the bytes of the backward pass of some queries, without states."""
        each = 2 * self.direction + self.late if tail else self.direction
        return self.fixed + queries * (each + self.query)

    @property
    def fewest(self) -> int:
        """States that a pass holds at least."""
        return 1 if self.interval == 1 else min(LEAST, self.interval)


def split_memory(
    sizes: StateSizes, queries: int, tail: bool, memory_bytes: float, disk_bytes: float = 0.0
) -> MemorySplit:
    """Divide `memory_bytes` for the backward pass of `queries` queries.

    A quarter is set aside for states between those that the tape keeps, or less where fewer lie between. Queries get
    the rest, evenly spread over passes; what they leave holds states recomputed for further passes.

    Parameters
    ----------
    sizes : StateSizes
    queries : int
    tail : bool
        Whether queries are followed beside their means over the tail: twice as many directions.
    memory_bytes : float
    disk_bytes : float
        Room for states in a folder.

    Returns
    -------
    MemorySplit
    """
    state, each = sizes.state, sizes.together(1, tail) - sizes.fixed
    between = 0.0
    if sizes.interval > 1:
        between = max(sizes.fewest * state, min(sizes.interval * state, memory_bytes / STATES_SHARE))
    most = max(1, int((memory_bytes - between - sizes.fixed) // each))
    passes = -(-queries // most)
    together = -(-queries // passes)
    left = memory_bytes - sizes.together(together, tail)
    capacity = capacity_for(sizes.interval, int(left // state))
    on_disk = int(disk_bytes // state) if passes > 1 else 0
    return MemorySplit(together, passes, capacity, sizes.interval, on_disk, whole=memory_bytes)


def fitted_memory(
    tape: Tape, derivative: Choice, sizes: StateSizes, queries: int, tail: bool, memory_bytes: float, disk_bytes: float
) -> MemorySplit:  # fmt: skip
    """Divide `memory_bytes` as `split_memory` does; measure a step back where the queries might not fit together.

    Returns
    -------
    MemorySplit

    Raises
    ------
    ConfigError
        Not even one query fits; the message says what would do.
    """
    if derivative.one_by_one:
        return _of_plain_steps(tape, sizes, queries, tail, memory_bytes, disk_bytes)
    between = 0 if sizes.interval == 1 else min(sizes.interval * sizes.state, memory_bytes / STATES_SHARE)
    if MARGIN * (sizes.together(queries, tail) + between) > memory_bytes:
        sizes = sizes.measured(tape, derivative)
        least = _least(tape, derivative, sizes, tail, memory_bytes)
        if least > memory_bytes:
            raise ConfigError(
                explain(
                    f"memory_bytes of at least {least:,}: what the backward pass of one query takes",
                    f"memory_bytes={int(memory_bytes):,}",
                    f"the model has {tape.layout.size:,} trained parameters, and a step {len(tape.at(0).rows):,} rows",
                    f"pass memory_bytes={least}, or train fewer parameters (LoRA) in smaller batches",
                )
            )
    memory = split_memory(sizes, queries, tail, memory_bytes, disk_bytes)
    directions, batch = memory.together * (2 if tail else 1), len(tape.at(0).rows)
    left = memory_bytes - memory.together * (sizes.query + (2 if tail else 1) * sizes.state)
    rows = candidates_at_once(activation_bytes(tape), batch, directions, STATES_SHARE * left)
    return replace(memory, rows_at_once=max(rows, min(batch, ROWS_AT_ONCE)))


def _of_plain_steps(
    tape: Tape, sizes: StateSizes, queries: int, tail: bool, memory_bytes: float, disk_bytes: float
) -> MemorySplit:
    """Divide the memory where each direction takes a plain step by itself: beside it, λ and its kind are held."""
    alone = replace(sizes, direction=float(DIRECTION_STATES * sizes.state))
    memory = split_memory(alone, queries, tail, memory_bytes, disk_bytes)
    batch = len(tape.at(0).rows)
    rows = candidates_at_once(activation_bytes(tape), batch, 0, STATES_SHARE * memory_bytes)
    return replace(memory, rows_at_once=max(affordable_rows(tape, rows), min(batch, ROWS_AT_ONCE)))


def _least(tape: Tape, derivative: Choice, sizes: StateSizes, tail: bool, memory_bytes: float) -> int:
    """Return the bytes of one query's pass; a step along a single direction is measured, too, where it matters."""
    states = sizes.fewest * sizes.state
    least = int(sizes.together(1, tail) + states) + 1
    if tail or memory_bytes > MARGIN * sizes.together(2, tail) + states:
        return least
    alone = step_bytes(tape, derivative.adjoint.fresh(), 1)
    return max(least, int(alone + sizes.query + states) + 1)


@dataclass(frozen=True)
class _StepBytes(Key[int]):
    """A fresh adjoint's first step back, tracing included."""

    differentiation: str
    directions: int


def step_bytes(tape: Tape, adjoint: StepAdjoint, directions: int) -> int:
    """Measure the bytes of a step back, with the λ that it starts from, and of tracing it.

    Parameters
    ----------
    tape : Tape
    adjoint : StepAdjoint
        One that has traced nothing yet.
    directions : int

    Returns
    -------
    int
    """

    def measure() -> int:
        step, layout = tape.at(0), tape.layout
        state = tape.state(0).to(layout.device)
        with seeded(0), PeakMemory() as counted:
            shape = directions, 1 + len(tape.optimizer.slots), layout.size
            adjoint.step(state, step.hyper, step.batch, torch.ones(shape).to(state), step.seed)
        return counted.peak

    return tape.cache.get(_StepBytes(adjoint.differentiation, directions), measure)


@dataclass(frozen=True)
class _RowBytes(Key[int]):
    """The same for the slopes of some rows."""

    differentiation: str
    directions: int
    rows: int


def row_bytes(tape: Tape, adjoint: StepAdjoint, directions: int, rows: int) -> int:
    """Measure the bytes of the slopes of `rows` rows, and of tracing them.

    Returns
    -------
    int
    """

    def measure() -> int:
        size, step = tape.layout.size, tape.at(0)
        theta = tape.state(0)[:size].to(tape.layout.device)
        with seeded(0), PeakMemory() as counted:
            batch = tape.batch(torch.arange(rows), 0)
            adjoint.row_derivatives(theta, theta.expand(directions, size).clone(), batch, step.seed)
        return counted.peak

    return tape.cache.get(_RowBytes(adjoint.differentiation, directions, rows), measure)


def bytes_per_query(tape: Tape) -> float:
    """Estimate a pass's memory for each further query: states, accumulators, and tangents of all activations."""
    return StateSizes.of(tape).together(1, False)


def candidates_at_once(activations: int, batch: int, directions: int, memory_bytes: float) -> int:
    """Return how many candidate rows are evaluated in one batch, with tangents along some directions.

    Parameters
    ----------
    activations, batch : int
        Bytes that a training step saves, and its rows.
    directions : int
        Tangents that are carried side by side.
    memory_bytes : float
        Of which a quarter is given to them.

    Returns
    -------
    int
        From 1 to `ROWS_AT_ONCE`.

    Examples
    --------
    >>> candidates_at_once(10_000, 10, 3, 2**20), candidates_at_once(10_000, 10, 3, 1.0)
    (65, 1)
    """
    each = max(1.0, activations / batch * (1 + directions))
    return int(min(ROWS_AT_ONCE, max(1, memory_bytes / STATES_SHARE // each)))
