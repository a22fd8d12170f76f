"""From a plain dictionary to typed content, checked field by field. Knows types, nothing of the report."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

import numpy as np

from finfluence.errors import ConfigError, explain

T = TypeVar("T")


def build(kind: type[T], value: object, where: str) -> T:
    """Return `value` (a mapping, or an instance of `kind`) as a checked instance of the dataclass `kind`.

    Returns
    -------
    T

    Raises
    ------
    ConfigError
        A field is unknown, missing or of another type; the message names its place, as in `rows[3].mu`.
    """
    if isinstance(value, kind):
        given = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
    elif isinstance(value, Mapping):
        given = dict(value)
    else:
        raise ConfigError(wrong(where, f"a mapping with the fields of {kind.__name__}", value))
    hints, required = _fields(typing.cast(type, kind))
    for name in given:
        if name not in hints:
            raise ConfigError(_unknown(where, kind, str(name), list(hints)))
    for name in required:
        if name not in given:
            raise ConfigError(
                explain(
                    f"{where} to have the field {name!r} ({kind.__name__})",
                    f"only {', '.join(map(repr, given)) or 'no fields at all'}",
                    "the dictionary was built by hand or by an older version",
                    f"add {name!r}; finfluence.report.{kind.__name__} lists every field",
                )
            )
    return kind(**{name: convert(hints[name], item, f"{where}.{name}") for name, item in given.items()})


def convert(hint: Any, value: object, where: str) -> Any:
    """Return `value` as the type that `hint` describes; `where` names its place in messages."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(args, value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(wrong(where, f"one of {', '.join(map(repr, args))}", value))
        return value
    if origin is tuple:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise ConfigError(wrong(where, "a sequence", value))
        return tuple(convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(wrong(where, "a mapping", value))
        return {
            str(key): convert(args[1], item, f"{where}[{str(key)[:40]!r}]") for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    return _scalar(hint, value, where)


def wrong(where: str, expected: str, value: object) -> str:
    """Return the message for a value of the wrong kind at the place `where`."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return explain(
        f"{where} to be {expected}",
        f"{shown} ({type(value).__name__})",
        "the report was handed a value of another kind than its schema names",
        "convert the value before building the report; see finfluence.report.ReportContent",
    )


def _optional(args: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    structured = [a for a in args if dataclasses.is_dataclass(a) or typing.get_origin(a) is not None]
    if structured:
        return convert(structured[0], value, where)
    if not isinstance(value, args):
        raise ConfigError(
            wrong(where, " or ".join("None" if a is type(None) else a.__name__ for a in args), value)
        )
    return value


def _scalar(hint: type, value: object, where: str) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if hint is float:
        if value is None:
            return float("nan")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise ConfigError(wrong(where, "a number (or None where it is unknown)", value))
    if hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ConfigError(wrong(where, "a whole number", value))
    if hint is str:
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise ConfigError(wrong(where, "text", value))
    if not isinstance(value, hint):
        raise ConfigError(wrong(where, {"bool": "True or False"}.get(hint.__name__, hint.__name__), value))
    return value


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    required = tuple(
        f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing
    )
    return hints, required


def _unknown(where: str, kind: type, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return explain(
        f"{where} to have only fields of {kind.__name__}: {', '.join(known)}",
        f"the field {name[:80]!r}",
        "a misspelt name, or a field of another version",
        f"rename it to {near[0]!r}" if near else "remove it",
    )
