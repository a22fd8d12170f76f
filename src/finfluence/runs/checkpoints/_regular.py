"""Regular checkpoints: every k-th state of a run whose length is known, and its last one."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from finfluence._files import atomic
from finfluence.errors import StorageError, explain
from finfluence.runs.checkpoints._store import Due, LastFile, read_tensors

_NAME = re.compile(r"states-(\d{8})\.safetensors")


class RegularCheckpoints:
    """States s_0, s_k, s_2k, …, s_T in memory or in a folder of whole files, with the losses of the steps beside them.

    Parameters
    ----------
    width, dtype : of a state.
    count : int
        Steps T of the run.
    interval : int
        k: every k-th state is kept.
    folder : path or None
    """

    def __init__(
        self, width: int, dtype: torch.dtype, count: int, interval: int, folder: Path | None
    ) -> None:
        self.width, self.dtype, self.folder = width, dtype, folder
        self.count, self.interval = count, interval
        self.losses: list[Tensor] = []
        self._due = Due(width * dtype.itemsize)
        self._chunks: list[tuple[int, Tensor | Path, int]] = []
        self._open: Tensor | None = None
        self._filled = 0
        self._last_file = LastFile(lambda path: read_tensors(path)["states"])
        self._losses_written = 0

    def __len__(self) -> int:
        return self._closed + self._filled

    @property
    def _closed(self) -> int:
        return sum(count for _, _, count in self._chunks)

    @property
    def expected(self) -> int:
        """How many states a whole run keeps."""
        return -(-self.count // self.interval) + 1

    @property
    def steps(self) -> list[int]:
        """The steps before which a state is kept, in order."""
        return [min(k * self.interval, self.count) for k in range(len(self))]

    @property
    def complete(self) -> bool:
        """Whether the last state is kept."""
        return len(self) == self.expected

    def before(self, t: int) -> tuple[int, int | None]:
        """Return the last kept step at or before t, and the kept step after it, if any."""
        if t >= self.count:
            return self.count, None
        first = t - t % self.interval
        return first, min(first + self.interval, self.count)

    def __getitem__(self, t: int) -> Tensor:
        index = -(-t // self.interval)
        for first, chunk, count in reversed(self._chunks):
            if first <= index < first + count:
                states = self._last_file.read(chunk) if isinstance(chunk, Path) else chunk
                return states[index - first]
        if self._open is not None and self._closed <= index < len(self):
            return self._open[index - self._closed]
        raise KeyError(t)

    def append(self, get_state: Callable[[Tensor], None]) -> None:
        """Append the vector that `get_state(row)` writes."""
        if self._open is None:
            rows = max(1, min(self._due.most, self.expected - self._closed))
            self._open = torch.empty(rows, self.width, dtype=self.dtype)
        get_state(self._open[self._filled])
        self._filled += 1
        if self._filled == len(self._open) or (self.folder is not None and self._due.late):
            self.flush()

    def flush(self) -> None:
        """Close the open chunk; with a folder, write it."""
        if self._open is None or not self._filled:
            return
        first, states = self._closed, self._open[: self._filled]
        if self.folder is None:
            whole = self._filled == len(self._open)
            self._chunks.append((first, states if whole else states.clone(), self._filled))
        else:
            path = self.folder / f"states-{first:08d}.safetensors"
            new = self.losses[self._losses_written :]
            losses = torch.stack(new).cpu() if new else torch.empty(0)
            with atomic(path) as part:
                save_file({"states": states.contiguous(), "losses": losses}, part)
            self._chunks.append((first, path, self._filled))
            self._losses_written = len(self.losses)
        self._open, self._filled = None, 0
        self._due.written()

    def reopen(self) -> None:
        """Find the whole chunks already in the folder, in order, and forget any gap and what follows it.

        Raises
        ------
        StorageError
            A file cannot be read, or holds states of another width.
        """
        if self.folder is None:
            return
        for path in sorted(self.folder.glob("states-*.safetensors")):
            match = _NAME.fullmatch(path.name)
            expected = self._closed
            if match is None or int(match.group(1)) != expected:
                break
            tensors = read_tensors(path)
            if tensors["states"].shape[1] != self.width:
                raise StorageError(
                    explain(
                        f"states of {self.width} numbers in {path.name}",
                        f"{tensors['states'].shape[1]}",
                        "the folder holds the tape of another model or optimiser",
                        "choose another folder, or the recipe that made this one",
                    )
                )
            self._chunks.append((expected, path, len(tensors["states"])))
            self.losses.extend(tensors["losses"].unbind())
        self._losses_written = len(self.losses)
