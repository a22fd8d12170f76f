"""Records and lists in the cells of JSON lines, Parquet and frames, as columns of their own."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from finfluence.ingest._messages import counted

MOST_PARTS = 200
_DEEPEST = 6
_SCALAR = (str, bool, int, float, np.generic)


def flattened(frame: pd.DataFrame, keep: Collection[str | None] = ()) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a frame whose records and lists of one length are columns, and a note on each.

    A column of records `p` becomes `p.a`, `p.b`, …; one of lists with the same number of numbers or words in every row
    becomes `p[0]`, `p[1]`, …. Other lists stay, and are read as text; so does what would make more than 200 columns, or
    a name that there is.

    Parameters
    ----------
    frame
        Any table, its column names texts.
    keep
        Columns to leave as they are: target, ids and groups.

    Returns
    -------
    tuple[pd.DataFrame, tuple[str, ...]]

    Examples
    --------
    >>> table, notes = flattened(pd.DataFrame({"p": [{"a": 1, "b": [2, 3]}, {"a": 4, "b": [5, 6]}], "y": [0, 1]}))
    >>> table.columns.tolist(), notes
    (['p.a', 'p.b[0]', 'p.b[1]', 'y'], ("column 'p' holds records: read as 3 columns, such as 'p.a'",))
    """
    columns: dict[str, pd.Series] = {}
    notes = []
    for name in frame.columns:
        series = frame[name]
        parts = None if name in keep or series.dtype != object else _parts(str(name), series, 0)
        if parts is None or len(parts) > MOST_PARTS or set(parts) & (set(frame.columns) | set(columns)):
            columns[name] = series
            if _holds_lists(series) and name not in keep:
                notes.append(f"column {name!r} holds lists or records: read as text")
            continue
        columns |= parts
        what = "records" if _first(series, dict) else "lists"
        notes.append(
            f"column {name!r} holds {what}: read as {counted(len(parts), 'column')}, such as {next(iter(parts))!r}"
        )
    if not notes:
        return frame, ()
    result = pd.DataFrame(columns, index=frame.index)
    result.columns = pd.Index(list(columns), dtype=object)
    return result, tuple(notes)


def _parts(name: str, series: pd.Series, depth: int) -> dict[str, pd.Series] | None:
    """Return the columns that a column of records or equal lists is made of; None where it is neither."""
    cells = [cell for cell in series if not _missing(cell)]
    if not cells or depth == _DEEPEST:
        return None
    if all(isinstance(cell, dict) for cell in cells):
        keys = list(dict.fromkeys(str(key) for cell in cells for key in cell))
        found: dict[str, Any] = {
            f"{name}.{key}": [_of(cell, key) for cell in series] for key in keys[: MOST_PARTS + 1]
        }
    elif (
        all(isinstance(cell, list | tuple | np.ndarray) for cell in cells)
        and len({len(cell) for cell in cells}) == 1
    ):
        width = len(cells[0])
        if not 0 < width <= MOST_PARTS or not all(
            isinstance(item, _SCALAR) or item is None for c in cells for item in c
        ):
            return None
        found = {f"{name}[{i}]": [None if _missing(c) else c[i] for c in series] for i in range(width)}
    else:
        return None
    columns: dict[str, pd.Series] = {}
    for part, values in found.items():
        column = pd.Series(values, index=series.index, dtype=object)
        deeper = _parts(part, column, depth + 1)
        columns |= {part: column} if deeper is None else deeper
    return columns


def _of(cell: Any, key: str) -> Any:
    return (
        next((value for name, value in cell.items() if str(name) == key), None)
        if isinstance(cell, dict)
        else None
    )


def _missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def _first(series: pd.Series, kind: type) -> bool:
    return isinstance(next((cell for cell in series if not _missing(cell)), None), kind)


def _holds_lists(series: pd.Series) -> bool:
    return series.dtype == object and any(
        isinstance(cell, list | tuple | dict | np.ndarray) for cell in series
    )
