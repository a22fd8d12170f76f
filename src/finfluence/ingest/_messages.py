"""Words shared by the messages of this package: short lists, near misses, optional libraries."""

import difflib
from collections.abc import Iterable
from typing import Any

from finfluence import _extras


def listed(values: Iterable[Any], limit: int = 5) -> str:
    """Return the first `limit` values, quoted where they are text, and how many more there are."""
    items = list(values)
    shown = ", ".join(repr(item) if isinstance(item, str) else str(item) for item in items[:limit])
    more = len(items) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def counted(count: int, noun: str, verbs: str = "") -> str:
    """Return a number and its noun, with a verb where both of its forms are given.

    Returns
    -------
    str

    Examples
    --------
    >>> counted(1, "cell", "is are"), counted(2, "cell", "is are"), counted(3, "class")
    ('1 cell is', '2 cells are', '3 classes')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    verb = verbs.split()[count != 1 :][:1]
    return " ".join([str(count), noun if count == 1 else plural, *verb])


def nearest(name: str, options: Iterable[Any]) -> str:
    """Return `"; did you mean 'label'?"` if an option looks like `name`, else nothing."""
    names = {str(option).strip().casefold(): str(option) for option in options}
    close = difflib.get_close_matches(name.strip().casefold(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def require(module: str, purpose: str) -> Any:
    """Import a library of the extra `data`, or say which extra brings it."""
    return _extras.require(module, purpose, "data")
