"""States of a training by step, and what every kind of store has in common."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finfluence.errors import StorageError, explain

CHUNK_BYTES = 32 * 2**20
FLUSH_SECONDS = 5.0

T = TypeVar("T")


class CheckpointStore(Protocol):
    """The states that a run keeps: before some of its steps, the first and the last among them."""

    @property
    def steps(self) -> list[int]:
        """The steps before which a state is kept, in order."""

    @property
    def interval(self) -> int:
        """The most steps from one kept state to the next."""

    def before(self, t: int) -> tuple[int, int | None]:
        """Return the last kept step at or before t, and the kept step after it, if any."""

    def __getitem__(self, t: int) -> Tensor:
        """Return the state [width] before step t, which is one of `steps`."""


class LastFile(Generic[T]):
    """Reads files by `load`; what the last one held stays in memory."""

    def __init__(self, load: Callable[[Path], T]) -> None:
        self._load = load
        self._last: tuple[Path, T] | None = None

    def read(self, path: Path) -> T:
        """Return what the file at `path` holds, which does not change until `forget`."""
        if self._last is None or self._last[0] != path:
            self._last = (path, self._load(path))
        return self._last[1]

    def forget(self) -> None:
        """Read the next file anew."""
        self._last = None


class Due:
    """Says when states that wait are to be written: a chunk is full, or a few seconds have passed."""

    def __init__(self, state_bytes: int) -> None:
        self.most = max(1, CHUNK_BYTES // max(1, state_bytes))
        self._since = time.monotonic()

    def now(self, waiting: int) -> bool:
        """Whether `waiting` states are to be written."""
        return waiting >= self.most or (waiting > 0 and self.late)

    @property
    def late(self) -> bool:
        """Whether the last writing lies some seconds back."""
        return time.monotonic() - self._since > FLUSH_SECONDS

    def written(self) -> None:
        """Begin to wait anew."""
        self._since = time.monotonic()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Returns
    -------
    dict[str, Tensor]

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
