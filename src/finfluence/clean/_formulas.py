"""Cells that a spreadsheet would run as a formula, and how to make those harmless that we write ourselves."""

import re
from typing import Any

import pandas as pd

_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(
    r"\s*[+-]?(\d+([.,]\d+)*[.,]?|[.,]\d+)([eE][+-]?\d+)?\s*%?\s*|\s*[+-]?(inf|nan)\s*", re.I
)


def formula_like(cell: Any) -> bool:
    """Tell whether a spreadsheet may run this cell: it starts with = + - @ tab or CR, and is no number.

    Returns
    -------
    bool
        False for anything but a text.

    Examples
    --------
    >>> [formula_like(cell) for cell in ("=1+1", "@SUM(A1)", "-1.5", "+3e-4", "-", "a=b", -2.0)]
    [True, True, False, False, False, False, False]
    """
    return (
        isinstance(cell, str)
        and cell.startswith(_STARTS)
        and len(cell) > 1
        and _NUMBER.fullmatch(cell) is None
    )


def neutralise(cell: Any) -> Any:
    """Return the cell, with an apostrophe before it if a spreadsheet might run it.

    Returns
    -------
    object
        The cell itself, of its own type, where `formula_like` is false.

    Examples
    --------
    >>> neutralise("=cmd|'/c calc'!A0"), neutralise("-1.5"), neutralise(7)
    ("'=cmd|'/c calc'!A0", '-1.5', 7)
    """
    return f"'{cell}" if formula_like(cell) else cell


def neutralised(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of the frame whose text cells are all neutralised, for a table that we write."""
    return frame.map(neutralise)
