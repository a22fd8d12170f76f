"""Options of a job, written down once: the dataclass that Python takes, whose fields the command line is made from."""

from collections.abc import Callable
from dataclasses import MISSING, Field, field
from typing import Any

from finfluence.errors import ConfigError, explain


def option(
    help: str,
    default: Any = MISSING,
    *,
    flag: str = "",
    shown: str | None = None,
    typed: type | None = None,
) -> Any:
    """Return a dataclass field that is also an option of the command line.

    Parameters
    ----------
    help
        What `--help` says.
    default
        Of Python and of the command line.
    flag
        `--name` by default, after the field; "-" for the command's argument.
    shown
        What `--help` says of the default, where the job chooses it.
    typed
        What is typed at the command line, where that is another type than the field's.

    Returns
    -------
    Any
    """
    return field(default=default, metadata={"help": help, "flag": flag, "shown": shown, "typed": typed})


def flag_of(field: Field[Any]) -> str | None:
    """Return the flag of a field, or None for the command's argument.

    Returns
    -------
    str | None

    Examples
    --------
    >>> from dataclasses import dataclass, fields
    >>> @dataclass
    ... class Options:
    ...     batch_size: int = option("Rows per step.", 8)
    >>> flag_of(fields(Options)[0])
    '--batch-size'
    """
    flag = field.metadata["flag"]
    return None if flag == "-" else flag or f"--{field.name.replace('_', '-')}"


def check(options: Any, name: str, expected: str, fits: Callable[[Any], bool]) -> None:
    """Raise unless an option fits; None always does.

    Raises
    ------
    ConfigError
        It does not.
    """
    value = getattr(options, name)
    if value is not None and not fits(value):
        raise ConfigError(
            explain(
                f"--{name.replace('_', '-')} to be {expected}",
                repr(value),
                "a percentage, a sign or a digit slipped in",
                "correct the option, or leave it out to use the default",
            )
        )
