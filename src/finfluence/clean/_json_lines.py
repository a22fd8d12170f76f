"""JSON lines, edited in place: only the value of the target changes, the rest of the line stays as it is."""

import json
from collections.abc import Iterator
from typing import Any

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


def with_value(line: str, key: str, value: Any) -> str:
    """Return the line with the (last) value of `key` replaced; every other character stays.

    Returns
    -------
    str
        The value is written as JSON, letters beyond ASCII as they are.

    Examples
    --------
    >>> with_value('{"x":1e5, "y": "cat"}', "y", "dog")
    '{"x":1e5, "y": "dog"}'
    """
    found = [(start, end) for name, _, start, end in members(line) if name == key]
    start, end = found[-1]
    return line[:start] + json.dumps(value, ensure_ascii=False) + line[end:]


def _skip(line: str, at: int) -> int:
    while line[at] in _SPACE:
        at += 1
    return at
