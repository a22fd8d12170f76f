"""From exceptions to messages and exit codes: 2 for what the user can change, 130 for Ctrl-C, 1 for our faults."""

import errno
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from finfluence._files import FREE_SPACE
from finfluence.cli._screen import complain, safe
from finfluence.errors import FinfluenceError, explain

USER, FAULT, INTERRUPTED = 2, 1, 130
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def reported(resume: str | None = None, log: Path | None = None) -> Iterator[None]:
    """Turn whatever goes wrong inside into a message and an exit code.

    Parameters
    ----------
    resume
        Sentence for Ctrl-C: how to go on.
    log
        Where the traceback of an unexpected error is.

    Raises
    ------
    typer.Exit
        With the exit code: whatever went wrong was said.
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(f"Stopped. {resume or 'Nothing was lost.'}")
        raise typer.Exit(INTERRUPTED) from None
    except FinfluenceError as error:
        complain(f"Error: {error}")
        raise typer.Exit(USER) from error
    except OSError as error:
        if error.errno not in _DISK:
            _report_fault(error, log)
            raise typer.Exit(FAULT) from error
        where = f" ({error.filename})" if error.filename else ""
        complain(
            "Error: "
            + explain(
                "to read and write the named files",
                f"{error.strerror}{where}",
                "the disk is full, or a folder is read-only",
                FREE_SPACE,
            )
        )
        raise typer.Exit(USER) from error
    except typer.Exit:
        raise
    except MemoryError as error:
        complain(
            "Error: "
            + explain(
                "enough memory for the data and the training",
                "none left",
                "many rows, large images, or a large model",
                "scan part of the data, use a smaller --model, or a machine with more memory",
            )
        )
        raise typer.Exit(USER) from error
    except Exception as error:
        _report_fault(error, log)
        raise typer.Exit(FAULT) from error


def _report_fault(error: Exception, log: Path | None) -> None:
    place: object = log
    if log is None or not log.exists():
        with tempfile.NamedTemporaryFile(
            "w", prefix="finfluence-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exception(error, file=file)
        place = file.name
    complain(
        f"finfluence failed, and it is not your fault: {type(error).__name__}: {safe(error, 300)}\n"
        f"  the traceback is in {place}\n"
        "  next step: please report it with that file; it holds no rows of your data, but may hold paths and values"
    )
