"""Atomic files: what exists under its final name is whole."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finfluence.errors import StorageError, explain

FREE_SPACE = (
    "free some space or choose another folder, then run the same again, with --resume (resume=True) where it is taken: "
    "everything finished so far is kept"
)
"""What to do where the disk is full or a folder read-only."""


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the name `path`, on failure it is removed.

    Yields
    ------
    Path
        In the folder of `path`, so that taking the name is one step; it ends in ".part" and is to be written.

    Raises
    ------
    StorageError
        The disk is full or the folder cannot be written. Nothing that already existed is changed.
    """
    target = Path(path)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        part = Path(name)
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.chmod(0o666 & ~_umask())
        os.replace(part, target)
    except Exception as error:
        # The writer of safetensors reports a full disk as an error of its own.
        if not isinstance(error, OSError) and "I/O error" not in str(error):
            raise
        raise StorageError(
            explain(
                f"to write {target}",
                f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}",
                "the disk is full, or the folder is read-only",
                FREE_SPACE,
            )
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8; line ends stay as they are."""
    with atomic(path) as part:
        part.write_bytes(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` atomically as JSON."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def digest(*parts: bytes) -> str:
    """Return a short content hash (first 16 hex digits of SHA-256) of the parts in order."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()[:16]


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
