"""The states of a backward pass: those that the tape does not keep are recomputed, within a stated memory."""

import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from finfluence.errors import StorageError
from finfluence.grads import Layout
from finfluence.runs import Tape, Update, read_tensors

LEAST = 16
SCRATCH = ".recomputed-"


def capacity_for(interval: int, states: int) -> int:
    """Return how many states a pass holds where there is memory for `states` of them: a segment, or what there is."""
    return 1 if interval == 1 else max(LEAST, states)


def recomputations(interval: int, capacity: int) -> float:
    """Return how often each step is taken again in one pass over a tape that keeps every `interval`-th state.

    Returns
    -------
    float

    Examples
    --------
    >>> recomputations(1, 1), recomputations(100, 100), recomputations(100, 20)
    (0.0, 1.0, 2.0)
    """
    if interval == 1:
        return 0.0
    block, free = _divided(interval, capacity)
    gap, taken = interval, 1.0
    while gap > block:
        checkpoints = _checkpoints(gap, block, free)
        if not checkpoints:
            return taken + gap / block / 2
        gap, free, taken = -(-gap // (checkpoints + 1)), free - checkpoints, taken + 1
    return taken


class RecomputedStates:
    """States of a tape, asked for from the last step to the first, by one backward pass or by several in turn.

    Between two kept states, as many are recomputed at once as `capacity` allows. Where that is fewer than lie between
    them, half of it holds checkpoints, from which shorter stretches are recomputed: twice the steps for √ of the
    memory, a few times for less. Stretches that further passes will ask for are kept: in what is left of the capacity,
    else as files.

    Parameters
    ----------
    tape : Tape
    capacity : int or None
        States held in memory; None: as many as lie between two kept ones.
    passes : int
        How many backward passes will ask.
    folder, disk_bytes
        Where states recomputed for further passes may be written until `close`, and how much; given up where that is
        slower than recomputing, which changes no number.

    Attributes
    ----------
    recomputed : int
        Steps taken again so far.
    """

    def __init__(
        self,
        tape: Tape,
        capacity: int | None = None,
        passes: int = 1,
        folder: Path | None = None,
        disk_bytes: int = 0,
    ) -> None:
        self._tape = tape
        capacity = tape.interval if capacity is None else capacity
        self._block, self._most_checkpoints = _divided(tape.interval, capacity)
        self._spare = capacity - self._block - self._most_checkpoints if passes > 1 else 0
        state = state_bytes(tape.layout, tape.optimizer)
        self._disk = disk_bytes // state if passes > 1 and folder is not None else 0
        self._folder = folder
        self._further = passes - 1
        self._checkpoints: list[tuple[int, Tensor]] = []
        self._kept: dict[int, Tensor | Path] = {}
        self._holder: dict[int, int] = {}
        self._current = 0, torch.empty(0)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.recomputed = 0

    def at(self, t: int) -> Tensor:
        """Return the state before step t, on the parameters' device."""
        first, states = self._current
        if not first <= t < first + len(states):
            del states
            self._current = 0, torch.empty(0)  # a stretch goes before the next one comes
            first, states = self._current = self._load(t) if t in self._holder else self._recompute(t)
        found = states[t - first].to(self._tape.layout.device)
        # Not a view: who keeps it keeps no stretch, and torch makes tangents as large as what a point is a view of.
        return found.clone() if len(states) > 1 and found.device == states.device else found

    def close(self) -> None:
        """Forget what was kept, and remove the files."""
        self._kept, self._holder = {}, {}
        if self._scratch is not None:
            self._scratch.cleanup()

    def _load(self, t: int) -> tuple[int, Tensor]:
        first = self._holder[t]
        place = self._kept[first]
        if not isinstance(place, Path):
            return first, place
        try:
            return first, read_tensors(place)["states"]
        except StorageError:
            self._holder = {step: held for step, held in self._holder.items() if held != first}
            return self._recompute(t)

    def _recompute(self, t: int) -> tuple[int, Tensor]:
        began = time.perf_counter()
        first, _, start = self._tape.checkpoint_before(t)
        if first == t:
            return first, start.unsqueeze(0)
        while self._checkpoints and self._checkpoints[-1][0] > t:
            self._checkpoints.pop()
        if self._checkpoints and self._checkpoints[-1][0] > first:
            first, start = self._checkpoints[-1]
        while (gap := t + 1 - first) > self._block:
            checkpoints = _checkpoints(gap, self._block, self._most_checkpoints - len(self._checkpoints))
            every = gap - self._block if not checkpoints else max(self._block, -(-gap // (checkpoints + 1)))
            for _ in range(max(1, min(checkpoints, (gap - 1) // every))):
                start = self._tape.states_from(first, start, first + every + 1, every)[-1].clone()
                first += every
                self.recomputed += every
                if checkpoints:
                    self._checkpoints.append((first, start))
        self.recomputed += t - first
        states = self._tape.states_from(first, start, t + 1)
        self._keep(first, states, time.perf_counter() - began)
        return first, states

    def _keep(self, first: int, states: Tensor, seconds: float) -> None:
        """Keep a stretch for further passes if there is room; stop writing once it takes longer than recomputing."""
        count = len(states)
        if count <= self._spare:
            self._kept[first], self._spare = states, self._spare - count
        elif count <= self._disk and self._folder is not None:
            began = time.perf_counter()
            try:
                self._kept[first] = self._write(self._folder, first, states)
            except (OSError, SafetensorError):  # a full disk: the pass goes on without
                self._disk = 0
                return
            self._disk -= count
            if 2 * (time.perf_counter() - began) > self._further * seconds:
                self._disk = 0
        else:
            return
        self._holder.update(dict.fromkeys(range(first, first + count), first))

    def _write(self, folder: Path, first: int, states: Tensor) -> Path:
        if self._scratch is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._scratch = tempfile.TemporaryDirectory(prefix=SCRATCH, suffix=".part", dir=folder)
        path = Path(self._scratch.name) / f"{first}.safetensors"
        save_file({"states": states}, path)
        return path


def remove_left_over(folder: Path) -> None:
    """Remove states that a replay which was killed left in `folder`."""
    for place in folder.glob(f"{SCRATCH}*.part"):
        shutil.rmtree(place, ignore_errors=True)


def state_bytes(layout: Layout, optimizer: Update) -> int:
    """Return the bytes of one state: parameters and what the optimiser holds."""
    return (1 + len(optimizer.slots)) * layout.size * layout.dtype.itemsize


def _divided(interval: int, capacity: int) -> tuple[int, int]:
    """Return how many states are recomputed at once, and how many checkpoints there may be."""
    if interval <= capacity:
        return interval, 0
    block = max(1, capacity // 2)
    return block, capacity - block


def _checkpoints(gap: int, block: int, free: int) -> int:
    """Return how many checkpoints to set on the way: all that are needed, or half of those that are left."""
    needed = -(-gap // block) - 1
    return needed if needed <= free else -(-free // 2)
