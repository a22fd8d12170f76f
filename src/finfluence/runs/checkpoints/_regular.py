"""Snapshots of a training's state: an append-only list of equal vectors, in memory or in a folder."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finfluence._files import atomic
from finfluence.errors import StorageError, explain

_CHUNK_BYTES = 32 * 2**20
_FLUSH_SECONDS = 5.0
_NAME = re.compile(r"states-(\d{8})\.safetensors")


class Snapshots:
    """State vectors s_0, s_k, s_2k, … with one scalar series beside them (the losses of the steps up to each)."""

    def __init__(self, width: int, dtype: torch.dtype, folder: Path | None) -> None:
        self.width = width
        self.dtype = dtype
        self.folder = folder
        self._rows = max(1, _CHUNK_BYTES // max(1, width * dtype.itemsize))
        self._chunks: list[tuple[int, Tensor | Path, int]] = []
        self._slab: Tensor | None = None
        self._filled = 0
        self._flushed_at = time.monotonic()
        self._cached: tuple[Path, Tensor] | None = None
        self.losses: list[Tensor] = []
        self._losses_at_flush = 0

    def __len__(self) -> int:
        return sum(count for _, _, count in self._chunks) + self._filled

    def expect(self, count: int) -> None:
        """Take room for no more than `count` further vectors at once."""
        self._rows = max(1, min(self._rows, count))

    def append(self, read_into: Callable[[Tensor], None]) -> None:
        """Append the vector that `read_into(row)` writes."""
        if self._slab is None:
            self._slab = torch.empty(self._rows, self.width, dtype=self.dtype)
        read_into(self._slab[self._filled])
        self._filled += 1
        late = self.folder is not None and time.monotonic() - self._flushed_at > _FLUSH_SECONDS
        if self._filled == self._rows or late:
            self.flush()

    def flush(self) -> None:
        """Close the open chunk; with a folder, write it."""
        if self._slab is None or not self._filled:
            return
        first = sum(count for _, _, count in self._chunks)
        states = self._slab[: self._filled]
        if self.folder is None:
            self._chunks.append(
                (first, states if self._filled == self._rows else states.clone(), self._filled)
            )
        else:
            path = self.folder / f"states-{first:08d}.safetensors"
            losses = (
                torch.stack(self.losses[self._losses_at_flush :])
                if len(self.losses) > self._losses_at_flush
                else torch.empty(0)
            )
            with atomic(path) as part:
                save_file({"states": states.contiguous(), "losses": losses.cpu()}, part)
            self._chunks.append((first, path, self._filled))
            self._losses_at_flush = len(self.losses)
        self._slab, self._filled = None, 0
        self._flushed_at = time.monotonic()

    def __getitem__(self, index: int) -> Tensor:
        for first, chunk, count in reversed(self._chunks):
            if first <= index < first + count:
                return (self._load(chunk) if isinstance(chunk, Path) else chunk)[index - first]
        first = sum(count for _, _, count in self._chunks)
        if self._slab is not None and first <= index < first + self._filled:
            return self._slab[index - first]
        raise IndexError(index)

    def reopen(self) -> None:
        """Find the whole chunks already in the folder, in order, and forget any gap and what follows it."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob("states-*.safetensors")):
            match = _NAME.fullmatch(path.name)
            expected = sum(count for _, _, count in self._chunks)
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
        self._losses_at_flush = len(self.losses)

    def _load(self, path: Path) -> Tensor:
        if self._cached is None or self._cached[0] != path:
            self._cached = (path, read_tensors(path)["states"])
        return self._cached[1]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises
    ------
    StorageError
        The file is missing, truncated or of another format.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise StorageError(
            explain(
                f"a whole safetensors file at {path}",
                str(error).splitlines()[0],
                "the file was cut short, moved, or belongs to another program",
                "restore the file, or run the training again into a new folder",
            )
        ) from error
