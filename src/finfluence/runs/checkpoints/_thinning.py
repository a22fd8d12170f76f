"""Thinning checkpoints, for a loop whose length nobody knows: every k-th state, and k doubles when they fill up."""

import bisect
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from finfluence._files import atomic
from finfluence.errors import StorageError
from finfluence.runs.checkpoints._store import Due, LastFile, read_tensors


def bytes_of(parts: list[Tensor]) -> list[memoryview]:
    """Return the memory of flat tensors on the CPU: joining it takes a fifth of the time of `torch.cat`."""
    return [np.from_dlpack(part.view(torch.uint8)).data for part in parts]


class ThinningCheckpoints:
    """State vectors by step, in memory or in a folder of whole files.

    Parameters
    ----------
    width, dtype, device : of a state while training; states of a GPU are copied without waiting for it.
    folder : path or None
    budget : int
        Bytes that the states may take; pinned ones are never dropped.
    whole : int, optional
        Width of the states that these are parts of; they will take the budget.
    """

    def __init__(
        self,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        folder: Path | None,
        budget: int,
        whole: int | None = None,
    ) -> None:
        self.width, self.dtype, self.folder = width, dtype, folder
        self._device, self._budget = device, budget
        self._cuda = device.type == "cuda"
        self._every = 1
        self._capacity = max(4, budget // max(1, (whole or width) * dtype.itemsize))
        self._due = Due(width * dtype.itemsize)
        self._states: dict[int, Tensor | bytearray | Path] = {}
        self._open: list[int] = []
        self._pinned: set[int] = set()
        self._last_file = LastFile(_states_by_step)

    @property
    def steps(self) -> list[int]:
        """The steps before which a state is kept, in order."""
        return sorted(self._states)

    @property
    def interval(self) -> int:
        """The most steps from one kept state to the next."""
        return max((b - a for a, b in pairwise(self.steps)), default=1)

    def wants(self, t: int) -> bool:
        """Whether the state before step t is due."""
        return t % self._every == 0

    def keep(self, t: int, state: Tensor | bytearray, pin: bool = False, last: bool = False) -> None:
        """Keep the state before step t, as a vector or its bytes; pinned if there is room, or if last."""
        if isinstance(state, Tensor) and state.device.type != "cpu":
            there, state = state, torch.empty(self.width, dtype=self.dtype, pin_memory=self._cuda)
            state.copy_(there, non_blocking=True)
        self._states[t] = state
        if last or (pin and len(self._pinned) < self._capacity // 2):
            self._pinned.add(t)
        if self.folder is not None:
            self._open.append(t)
        if len(self._states) > self._capacity and len(self._pinned) < len(self._states):
            self._thin()

    @property
    def due(self) -> bool:
        """Whether states wait to be written."""
        return self._due.now(len(self._open))

    def flush(self) -> None:
        """Write what waits, as one file."""
        self._due.written()
        if self.folder is None or not self._open:
            return
        self._write(self._open)
        self._open = []

    def settle(self) -> None:
        """Wait until copies from a GPU have arrived."""
        if self._cuda:
            torch.cuda.synchronize()

    def before(self, t: int) -> tuple[int, int | None]:
        """Return the last kept step at or before t, and the kept step after it, if any."""
        steps = self.steps
        at = bisect.bisect_right(steps, t) - 1
        return steps[at], steps[at + 1] if at + 1 < len(steps) else None

    def widened(
        self, width: int, folder: Path | None, widen: Callable[[Tensor], Tensor]
    ) -> "ThinningCheckpoints":
        """Return the same steps with states of `width`, written to `folder`; ours are forgotten one by one."""
        wide = ThinningCheckpoints(width, self.dtype, self._device, folder, self._budget)
        wide._every, wide._pinned = self._every, set(self._pinned)
        for t in self.steps:
            state = widen(self[t])
            del self._states[t]
            wide._states[t] = state
            if folder is not None:
                wide._open.append(t)
                if wide.due:
                    wide.flush()
        return wide

    @property
    def plan(self) -> tuple[int, list[int]]:
        """Every how many steps a state is kept by now, and those that are kept besides."""
        return self._every, sorted(self._pinned)

    def go_on(self, t: int, every: int, pinned: Sequence[int]) -> list[str]:
        """Find the states before step t in the folder, kept by this plan or one that it became; remove all others.

        Returns
        -------
        list of str
            Names of files that cannot be read.
        """
        broken = self.reopen()
        while not all(step in self._states for step in range(0, t, every)) and every < t:
            every *= 2
        kept = {step for step in self._states if step < t and (step % every == 0 or step in pinned)}
        for path in {place for place in self._states.values() if isinstance(place, Path)}:
            left = sorted(step for step in kept if self._states[step] == path)
            if left != sorted(self._last_file.read(path)):
                self._states.update({step: self[step].clone() for step in left})
                if not left or self._write(left) != path:
                    path.unlink()
                    self._last_file.forget()
        self._states = {step: place for step, place in self._states.items() if step in kept}
        self._every, self._pinned = every, set(pinned)
        return broken

    def forget_after(self, t: int) -> None:
        """Leave out states after step t."""
        self._states = {step: place for step, place in self._states.items() if step <= t}

    def __contains__(self, t: int) -> bool:
        return t in self._states

    def __getitem__(self, t: int) -> Tensor:
        state = self._states[t]
        if isinstance(state, bytearray):
            # A copy, where torch puts tensors: kernels may round by the address. A process may hold no part at all.
            return (
                torch.frombuffer(state, dtype=self.dtype).clone()
                if state
                else torch.empty(0, dtype=self.dtype)
            )
        return self._last_file.read(state)[t] if isinstance(state, Path) else state

    def reopen(self) -> list[str]:
        """Find the whole files in the folder; return the names of those that cannot be read."""
        broken = []
        for path in sorted(self.folder.glob("kept-*.safetensors")) if self.folder else []:
            try:
                steps = self._last_file.read(path)
            except StorageError:
                broken.append(path.name)
                continue
            self._states.update(dict.fromkeys(steps, path))
        return broken

    def _write(self, steps: list[int]) -> Path:
        self.settle()
        path = Path(self.folder or ".") / f"kept-{steps[0]:010d}.safetensors"
        states = torch.stack([self[t] for t in steps])
        with atomic(path) as part:
            save_file({"steps": torch.tensor(steps), "states": states}, part)
        self._last_file.forget()
        self._states.update(dict.fromkeys(steps, path))
        return path

    def _thin(self) -> None:
        """Double the interval and drop what is no longer due."""
        self._every *= 2
        gone = [t for t in self._states if t % self._every and t not in self._pinned]
        files = {path for t in gone if isinstance(path := self._states[t], Path)}
        for t in gone:
            del self._states[t]
        self._open = [t for t in self._open if t in self._states]
        for path in files:
            left = [t for t, place in self._states.items() if place == path]
            if left:
                kept = {t: self[t].clone() for t in left}
                self._states.update(kept)
                if self._write(sorted(left)) == path:
                    continue
            path.unlink()


def _states_by_step(path: Path) -> dict[int, Tensor]:
    tensors = read_tensors(path)
    return dict(zip(tensors["steps"].tolist(), tensors["states"].unbind(), strict=True))
