"""The log of a job: plain lines; a full disk never stops the job from telling why it ends."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from finfluence._progress import Progress
from finfluence.errors import StorageError, explain


class _QuietHandler(logging.FileHandler):
    """A file handler that loses a line rather than print about it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: the disk is full, and the job itself says so."""


@contextlib.contextmanager
def logged(path: Path) -> Iterator[logging.Logger]:
    """Yield a logger that appends to `path`, which nobody else may be writing.

    Yields
    ------
    logging.Logger

    Raises
    ------
    StorageError
        Another job is at work in this folder.
    KeyboardInterrupt
        As it came, once the log says so.
    """
    logger = logging.getLogger(f"finfluence.jobs.{os.getpid()}.{id(path)}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = _QuietHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    try:
        _lock(handler, path)
        logger.addHandler(handler)
        yield logger
    except Exception:
        logger.exception("stopped by an error")
        raise
    except KeyboardInterrupt:
        logger.info("interrupted; the same command goes on, with --resume where it is taken")
        raise
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def recorded(logger: logging.Logger, progress: Progress) -> Progress:
    """Return a progress callable that also writes the end of each stage into the log."""
    ended: set[str] = set()

    def tell(stage: str, done: int, total: int) -> None:
        if done == total and stage not in ended:
            ended.add(stage)
            logger.info("%s: done", stage)
        progress(stage, done, total)

    return tell


def _lock(handler: logging.FileHandler, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        assert handler.stream is not None
        fcntl.flock(handler.stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StorageError(
            explain(
                f"no other {path.stem} at work in {path.parent}",
                f"{path.name} is in use",
                "the same command is still running, perhaps in another window",
                "wait for it to end, or choose another --out",
            )
        ) from error
