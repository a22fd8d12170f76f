"""Sentences that every job needs: a difference with its interval, and the command line that repeats a job."""

import shlex
from collections.abc import Mapping
from dataclasses import Field
from math import isnan
from typing import Any

from finfluence.jobs._options import flag_of

_IN_FULL = 1e9


def signed(difference: Mapping[str, float]) -> str:
    """Return a difference with its sign and interval.

    Returns
    -------
    str

    Examples
    --------
    >>> signed({"value": -0.11, "lower": -0.13, "upper": -0.09})
    '-0.11 [-0.13, -0.09]'
    >>> signed({"value": -0.11, "lower": float("nan"), "upper": float("nan")})
    '-0.11'
    """
    value, lower, upper = (
        0.0 if abs(difference[k]) < 1e-12 else difference[k] for k in ("value", "lower", "upper")
    )
    return f"{value:+.3g}" + ("" if isnan(lower) else f" [{lower:+.3g}, {upper:+.3g}]")


def size(difference: Mapping[str, float], scale: float = 1.0) -> str:
    """Return the size of a difference with its interval, for a verb that says its direction.

    Returns
    -------
    str

    Examples
    --------
    >>> size({"value": -0.11, "lower": -0.13, "upper": -0.09})
    '0.11 [0.09, 0.13]'
    >>> size({"value": 13812.0, "lower": 935.0, "upper": 26710.0})
    '13,800 [935, 26,700]'
    """
    value, lower, upper = (scale * difference[k] for k in ("value", "lower", "upper"))
    if value < 0:
        value, lower, upper = -value, -upper, -lower
    return f"{_short(value)} [{_short(lower)}, {_short(upper)}]"


def _short(value: float) -> str:
    """Return a number with three digits that count, thousands in full."""
    short = f"{value:.3g}"
    return f"{float(short):,.0f}" if "e+" in short and abs(value) < _IN_FULL else short


def change(name: str, difference: Mapping[str, float], scale: float = 1.0, unit: str = "") -> str:
    """Say which way a quantity went, and by how much, with the interval.

    Returns
    -------
    str

    Examples
    --------
    >>> change("held-out log loss", {"value": -0.11, "lower": -0.13, "upper": -0.09})
    'lowers the held-out log loss by 0.11 [0.09, 0.13]'
    >>> change("accuracy", {"value": 0.001, "lower": -0.003, "upper": 0.005}, scale=100, unit="points")
    'does not measurably change the accuracy (between -0.3 and +0.5 points)'
    """
    if difference["lower"] * difference["upper"] <= 0:
        return f"does not measurably change the {name} ({between(difference, scale, unit)})"
    of = f" {unit}" if unit else ""
    return f"{'lowers' if difference['value'] < 0 else 'raises'} the {name} by {size(difference, scale)}{of}"


def counted(number: int, name: str) -> str:
    """Return how many of something there are.

    Returns
    -------
    str

    Examples
    --------
    >>> counted(1, "row"), counted(1400, "row")
    ('1 row', '1,400 rows')
    """
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def between(difference: Mapping[str, float], scale: float = 1.0, unit: str = "") -> str:
    """Return the interval of a difference whose direction is not known.

    Returns
    -------
    str

    Examples
    --------
    >>> between({"lower": -0.003, "upper": 0.005}, scale=100, unit="points")
    'between -0.3 and +0.5 points'
    >>> between({"lower": 0.0, "upper": 0.0})
    'not at all'
    """
    if max(abs(difference["lower"]), abs(difference["upper"])) < 1e-12:
        return "not at all"
    lower, upper = (0.0 if abs(difference[k]) < 1e-12 else scale * difference[k] for k in ("lower", "upper"))
    of = f" {unit}" if unit else ""
    return f"between {lower:+.2g} and {upper:+.2g}{of}"


def command_line(command: str, fields: tuple[Field[Any], ...], values: Mapping[str, Any]) -> str:
    """Return the command line that gives these values to a job's options.

    Parameters
    ----------
    command
        Name of the job.
    fields
        Fields of its options; one without a flag is the command's argument.
    values
        By field name; what is None, or False without a word for it, is left out.

    Returns
    -------
    str
    """
    parts = ["finfluence", command]
    for field in fields:
        default: Any = field.default
        value, flag = values.get(field.name), flag_of(field)
        if flag is None:
            parts.append(str(value))
        elif isinstance(value, bool):
            on, _, off = flag.partition("/")
            if value != default:
                parts += [on] if value else [off]
        elif isinstance(value, (list, tuple)):
            parts += [word for one in value if one not in default for word in (flag, str(one))]
        elif value is not None:
            short = f"{value:g}" if isinstance(value, float) else str(value)
            parts += [flag, short if not isinstance(value, float) or float(short) == value else repr(value)]
    return shlex.join(parts)
