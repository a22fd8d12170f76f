"""How a replay divides its memory: queries of one backward pass, and states recomputed on the way."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.estimators.replay._recomputed_states import capacity_for, recomputations, state_bytes
from finfluence.estimators.replay._schedule import ROWS_AT_ONCE
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import Key

STATES_SHARE = 4
SUMS_PER_ROW = 8


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
    """

    together: int
    passes: int
    capacity: int
    interval: int
    on_disk: int = 0

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
    query : float
        Bytes of each further query.
    state : int
        Bytes of one state.
    interval : int
        Of the states that the tape keeps.
    """

    query: float
    state: int
    interval: int

    @classmethod
    def of(cls, tape: Tape, candidates: int = 0, interval: int | None = None) -> "StateSizes":
        """Return the sizes on a tape; with another interval, if it kept another share of its states."""
        return cls(
            bytes_per_query(tape) + 8 * SUMS_PER_ROW * candidates,
            state_bytes(tape.layout, tape.optimizer),
            tape.spacing if interval is None else interval,
        )


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
        Whether queries are followed beside their means over the tail: twice as many at once.
    memory_bytes : float
    disk_bytes : float
        Room for states in a folder.

    Returns
    -------
    MemorySplit
    """
    state, each = sizes.state, sizes.query * (2 if tail else 1)
    between = 0.0 if sizes.interval == 1 else min(sizes.interval * state, memory_bytes / STATES_SHARE)
    most = max(1, int((memory_bytes - between) // each))
    passes = -(-queries // most)
    together = -(-queries // passes)
    capacity = capacity_for(sizes.interval, int((memory_bytes - together * each) // state))
    return MemorySplit(
        together, passes, capacity, sizes.interval, int(disk_bytes // state) if passes > 1 else 0
    )


@dataclass(frozen=True)
class _ActivationBytes(Key[int]):
    """What autograd saves for the tape's first step; it depends on nothing but the tape."""


def activation_bytes(tape: Tape) -> int:
    """Return the bytes of activations that a training step saves."""
    return tape.cache.get(_ActivationBytes(), lambda: _activation_bytes(tape))


def bytes_per_query(tape: Tape) -> float:
    """Estimate a pass's memory for each further query: states, accumulators, and tangents of all activations."""
    sums = 8 * SUMS_PER_ROW * len(tape.rows)
    return float(4 * activation_bytes(tape) + 6 * state_bytes(tape.layout, tape.optimizer) + sums)


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


def _activation_bytes(tape: Tape) -> int:
    held: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        held.append(tensor.numel() * tensor.itemsize)
        return tensor

    with seeded(0), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tape.step_loss(tape.working, tape.at(0).batch)
    return sum(held)
