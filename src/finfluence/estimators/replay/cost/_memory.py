"""How a replay divides its memory: queries walked together, and states recomputed on the way."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.estimators.replay._recomputed_states import passes, room_for, state_bytes
from finfluence.runs import Tape, seeded

STATES_SHARE = 4


@dataclass(frozen=True)
class Memory:
    """The division, and what it means for the states that the tape does not keep.

    together : queries of one walk. walks : how many one process makes. room : states held by a walk.
    spacing : of the states that the tape keeps. on_disk : states that may be written for further walks.
    """

    together: int
    walks: int
    room: int
    spacing: int
    on_disk: int = 0

    def retaken(self, steps: int) -> float:
        """Return how many steps are taken again in all walks over the last `steps` steps."""
        whole = -(-steps // self.spacing) * self.spacing
        return whole * passes(self.spacing, self.room) * (1 + (self.walks - 1) * (1 - self._shared(whole)))

    def held(self, steps: int) -> int:
        """Return how many states are in memory at one time in walks over the last `steps` steps."""
        segment = min(self.spacing, self.room)
        return segment if self.walks == 1 else min(self.room, segment + steps)

    def written(self, steps: int) -> int:
        """Return how many states are written for further walks over the last `steps` steps."""
        return 0 if self.spacing == 1 else max(0, min(self.on_disk, steps - self._spare))

    def sentence(self, steps: int) -> str:
        """Say where the states of the last `steps` steps come from."""
        if self.spacing == 1:
            return "all states are on the tape"
        again = self.retaken(steps) / steps
        words = (
            f"one state in {self.spacing} is on the tape, the others are recomputed ({again:.2g} times in all"
        )
        shared = self._shared(-(-steps // self.spacing) * self.spacing)
        if self.walks == 1 or not shared:
            return words + ")"
        where = "in the folder" if self.written(steps) > self._spare else "in memory"
        return f"{words}; {shared:.0%} of them kept {where} for further walks)"

    @property
    def _spare(self) -> int:
        return max(0, self.room - self.spacing)

    def _shared(self, steps: int) -> float:
        """Return the share of recomputed states that further walks find kept."""
        return min(1.0, (self._spare + self.on_disk) / steps)


def share_memory(
    tape: Tape,
    queries: int,
    late: bool,
    memory_bytes: float,
    disk_bytes: float = 0.0,
    spacing: int | None = None,
) -> Memory:
    """Divide `memory_bytes` for a walk of `queries` queries.

    A quarter is set aside for states between those that the tape keeps, or less where fewer lie between. Queries get
    the rest, evenly spread over walks; what they leave holds states recomputed for further walks.

    Parameters
    ----------
    late : bool
        Whether queries are walked beside their means over late states: twice as many at once.
    disk_bytes : float
        Room for states in a folder.
    spacing : int or None
        Of the states kept; None: the tape's.
    """
    spacing = tape.interval if spacing is None else spacing
    state, each = state_bytes(tape), bytes_per_query(tape) * (2 if late else 1)
    between = 0.0 if spacing == 1 else min(spacing * state, memory_bytes / STATES_SHARE)
    most = max(1, int((memory_bytes - between) // each))
    walks = -(-queries // most)
    together = -(-queries // walks)
    room = room_for(spacing, int((memory_bytes - together * each) // state))
    return Memory(together, walks, room, spacing, int(disk_bytes // state) if walks > 1 else 0)


def bytes_per_query(tape: Tape) -> float:
    """Estimate a walk's memory for each further query: states, running sums, and tangents of all activations."""
    if "bytes per query" not in tape.memo:
        tape.memo["bytes per query"] = _bytes_per_query(tape)
    return float(tape.memo["bytes per query"])


def _bytes_per_query(tape: Tape) -> float:
    held: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        held.append(tensor.numel() * tensor.itemsize)
        return tensor

    with seeded(0), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tape.step_loss(tape.working, tape.at(0).batch)
    sums = 8 * 8 * len(tape.rows)
    return float(4 * sum(held) + 6 * state_bytes(tape) + sums)
