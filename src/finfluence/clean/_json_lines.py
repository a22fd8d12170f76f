"""JSON lines, edited in place: only the value of the target changes, the rest of the line stays as it is."""

import json
from collections.abc import Iterator
from typing import Any

from finfluence.errors import DataError, explain

_SPACE = " \t\r\n"


def members(line: str) -> Iterator[tuple[str, Any, int, int]]:
    """Yield key, value, and start and end of the value in the text, for each member of the object in `line`.

    Yields
    ------
    tuple of (str, object, int, int)
        In the order of the text; `line[start:end]` is the value as it is written.

    Examples
    --------
    >>> list(members('{"x": 1e5, "y": "cat"}'))
    [('x', 100000.0, 6, 9), ('y', 'cat', 16, 21)]
    """
    decoder = json.JSONDecoder()
    at = _skip(line, line.index("{") + 1)
    while line[at] != "}":
        key, at = decoder.raw_decode(line, at)
        start = _skip(line, _skip(line, at) + 1)
        value, end = decoder.raw_decode(line, start)
        yield key, value, start, end
        at = _skip(line, end)
        if line[at] == ",":
            at = _skip(line, at + 1)


def value_of(record: Any, name: str) -> Any:
    """Return the value of a key, or of one in records and lists within, as a scan names their columns; None without.

    Returns
    -------
    Any

    Examples
    --------
    >>> value_of({"p": {"a": [1, 2]}, "p.b": 3}, "p.a[1]"), value_of({"p": {"a": 1}}, "p.b")
    (2, None)
    """
    named = (
        [(str(key), value) for key, value in record.items()]
        if isinstance(record, dict)
        else [(f"[{i}]", value) for i, value in enumerate(record)]
    )
    for label, value in named:
        if label == name:
            return value
    for label, value in named:
        rest = within(label, name)
        if rest and isinstance(value, dict | list) and (found := value_of(value, rest)) is not None:
            return found
    return None


def with_value(line: str, key: str, value: Any) -> str:
    """Return the line with the (last) value of `key` replaced, in records and lists within, too.

    Every other character stays.

    Returns
    -------
    str
        The value is written as JSON, letters beyond ASCII as they are.

    Raises
    ------
    DataError
        The line has no such key.

    Examples
    --------
    >>> with_value('{"x":1e5, "y": "cat"}', "y", "dog")
    '{"x":1e5, "y": "dog"}'
    >>> with_value('{"p": {"y": ["cat", 1]}}', "p.y[0]", "dog")
    '{"p": {"y": ["dog", 1]}}'
    """
    place = _place_of(line, key)
    if place is None:
        raise DataError(
            explain(
                f"the key {key!r} in every line that gets a new label",
                line.strip()[:80],
                "a key that is left out where there is no value",
                'write the key in every line, or clean with action="drop"',
            )
        )
    start, end = place
    return line[:start] + json.dumps(value, ensure_ascii=False) + line[end:]


def _place_of(text: str, name: str) -> tuple[int, int] | None:
    """Return start and end of a value by its name, that of the last key of this name, then one within."""
    parts = [(label, start, end) for label, _, start, end in _parts(text)]
    direct = [(start, end) for label, start, end in parts if label == name]
    if direct:
        return direct[-1]
    for label, start, end in parts:
        rest = within(label, name)
        if rest and text[start] in "{[" and (found := _place_of(text[start:end], rest)):
            return start + found[0], start + found[1]
    return None


def _parts(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Yield the members of a record, or the items of a list by the names [0], [1], …."""
    if text.lstrip()[:1] != "[":
        yield from members(text)
        return
    decoder, at = json.JSONDecoder(), _skip(text, text.index("[") + 1)
    count = 0
    while text[at] != "]":
        value, end = decoder.raw_decode(text, at)
        yield f"[{count}]", value, at, end
        count, at = count + 1, _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def with_part(value: Any, name: str, new: Any) -> Any:
    """Return a record or list with the value of a name within replaced; the new value itself for no name.

    Returns
    -------
    Any

    Examples
    --------
    >>> with_part({"a": {"b": 1}, "c": 2}, "a.b", 5), with_part([1, 2], "[0]", 5), with_part(1, "", 5)
    ({'a': {'b': 5}, 'c': 2}, [5, 2], 5)
    """
    if not name:
        return new
    if isinstance(value, list):
        return [
            with_part(one, name[len(f"[{i}]") :].removeprefix("."), new) if name.startswith(f"[{i}]") else one
            for i, one in enumerate(value)
        ]
    changed = {**(value or {})}
    for key, one in changed.items():
        rest = within(key, name)
        if key == name or (rest and isinstance(one, dict | list)):
            return {**changed, key: with_part(one, rest, new)}
    return {**changed, name: new}


def within(label: str, name: str) -> str:
    """Return what is left of a name behind that of a part which may hold it; "" if it does not."""
    rest = name[len(label) :] if name.startswith(label) else ""
    return rest.removeprefix(".") if rest[:1] in (".", "[") else ""


def _skip(line: str, at: int) -> int:
    while line[at] in _SPACE:
        at += 1
    return at
