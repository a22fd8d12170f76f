"""What each column of a table is: numbers, dates, categories, text, or nothing a model can use."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._dates import LONGEST, DateReader, are_dates
from finfluence.ingest._marks import FEW_LEVELS, MOSTLY, Marks, NumberCells, read_numbers
from finfluence.ingest._messages import counted, require
from finfluence.ingest._numerals import Numerals
from finfluence.ingest._reading import FileReading, without, written
from finfluence.ingest._text import LONG_TEXT
from finfluence.ingest._truth import in_words, truth_levels
from finfluence.ingest._values import looks_like_code, texts
from finfluence.ingest._word_doubts import are_versions, doubts_of_words

ColumnKind = Literal["number", "date", "category", "text", "dropped"]

LARGEST = 1e150
"""Numbers beyond this overflow when their variance is taken."""
EXACT = 2.0**53
"""Whole numbers beyond this are not told apart from their neighbours."""
IDENTIFIER_ROWS = 50
MOST_TRUTH_WORDS = 12
_DATE_LIKE = re.compile(r".*\d.*([-/.:]|[A-Za-z]).*\d.*", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """One column of the training part: its kind, in words, and how its cells are read.

    Attributes
    ----------
    about
        How it becomes features, or why it does not.
    format
        Spelling of its numbers, dates or truth values, in words.
    missing, unreadable
        Cells of the training part without a value, and with one that is no number (date) in a column of numbers.
    marks, unit, typical
        Of numbers: the decimal mark, the unit, and the median size.
    span, middle
        Of numbers: the least and the largest, and the quartiles.
    dates, zone
        Of dates: a `DateReader`, or skrub's for formats that it alone knows; their time zone.
    absent
        Of numbers and dates: words that stand where a value would, such as "unknown"; they are missing.
    levels
        Of truth values in several spellings: the spelling that stands for each.
    notes
        What a reader must know.
    """

    name: str
    kind: ColumnKind
    about: str
    format: str = ""
    missing: int = 0
    unreadable: int = 0
    marks: Marks = field(default_factory=Marks)
    unit: str = ""
    typical: float = float("nan")
    span: tuple[float, float] = (float("nan"), float("nan"))
    middle: tuple[float, float] = (float("nan"), float("nan"))
    dates: Any = None
    zone: Any = None
    absent: frozenset[str] = frozenset()
    levels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe(
    series: pd.Series, max_levels: int, reading: FileReading | None = None, other: FileReading | None = None
) -> Column:
    """Decide what a column is from its cells in the training part.

    Parameters
    ----------
    series
        The cells; their index names the rows in messages.
    max_levels
        Columns of more different words are text.
    reading
        How the file spells its numbers and dates.
    other
        The same of a hold-out file, for dates whose order the training file leaves open.

    Returns
    -------
    Column
    """
    name = str(series.name)
    reading = reading or FileReading()
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return _date_column(name, series, series.isna().to_numpy())
    values = numeric(series)
    compact = name in reading.dates.columns
    if values is not None and not compact:
        return _number_column(name, NumberCells(finite(values, series)), np.isnan(values), Marks())
    cells = texts(series)
    absent = reading.absent.get(name, frozenset())
    if absent:
        column = describe(
            pd.Series(without(cells, absent), series.index, name=series.name),
            max_levels,
            replace(reading, absent={}),
            other,
        )
        return _with_absent(column, cells, absent)
    missing = np.array([cell is None for cell in cells])
    if missing.all():
        return Column(name, "dropped", "every cell is missing", missing=len(cells))
    present = cells[~missing]
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _words_column(name, cells, missing, max_levels)
    if (truth := _truth_column(name, present, missing)) is not None:
        return truth
    counts = Counter(present)
    if are_versions(counts):
        note = "cells such as '1.1' and '1.10' are one number, but count on as versions do: read as words"
        column = _words_column(name, cells, missing, max_levels)
        return replace(column, notes=(note, *column.notes))
    if not compact and not looks_like_code(present):
        marks = reading.number_marks(name)
        numbers = number_cells(series, cells, marks.decimal, known=reading.numerals)
        if _told_apart_by_spelling(numbers.values, counts):
            note = f"{len(counts)} whole numbers beyond 2^53, which as numbers would be one another: read as words"
            column = _words_column(name, cells, missing, max_levels)
            return replace(column, notes=(note, *column.notes))
        if (~np.isnan(numbers.values)).sum() >= MOSTLY * len(present):
            finite(numbers.values, series)
            return _number_column(name, numbers, missing, marks)
    order = "" if other is None else other.date_order(name, reading.date_digits(name))
    date = _date_from_text(name, cells, missing, reading.date_reader(name, order))
    if date is not None:
        return date
    column = _words_column(name, cells, missing, max_levels)
    return _with_doubts(column, counts, reading)


def _told_apart_by_spelling(values: np.ndarray, counts: Counter[str]) -> bool:
    """Tell whether most cells are whole numbers beyond 2⁵³, fewer as numbers than they are as texts."""
    present = values[~np.isnan(values)]
    if not len(present) or (np.abs(present) < EXACT).mean() > 0.5:
        return False
    return len(np.unique(present)) < len(counts) and all(text.lstrip("+-").isdecimal() for text in counts)


def _with_doubts(column: Column, counts: Counter[str], reading: FileReading) -> Column:
    """Return a column of words with what a reader must know of it: most cells are numbers, or levels look alike."""
    if column.kind == "text" and np.mean([len(text) for text in counts]) > LONGEST:
        return column
    could = [reading.numerals[text] is not None for text in counts]
    what = "numbers"
    if 2 * sum(could) < len(could):
        could, what = are_dates(counts), "dates"
    doubts = doubts_of_words(counts, could, "text" if column.kind == "dropped" else column.kind, what)
    if column.kind != "dropped":
        return replace(column, notes=(*column.notes, *doubts))
    told = [doubt.removesuffix(": read as text") for doubt in doubts if "could be" in doubt]
    return replace(column, about="; ".join((column.about, *told)))


def _with_absent(column: Column, cells: np.ndarray, absent: frozenset[str]) -> Column:
    """Return a column of numbers or dates with a note on the words that stand for no value."""
    counts = Counter(cell for cell in cells if cell in absent)
    if not counts or column.kind not in ("number", "date"):
        return replace(column, absent=absent)
    words = " or ".join(map(repr, sorted(counts, key=lambda word: (-counts[word], word))))
    note = f"{counted(counts.total(), 'cell')} with {words}, and no {column.kind}: taken as missing"
    return replace(column, absent=absent, notes=(*column.notes, note))


def number_cells(
    series: pd.Series,
    cells: np.ndarray,
    decimal: str = ".",
    unit: str | None = None,
    known: Numerals | None = None,
) -> NumberCells:
    """Read cells as numbers; those that the format keeps as numbers are taken as they are."""
    found = read_numbers(cells, decimal, unit, known)
    as_text = written(series)
    if as_text.all() or decimal == ".":
        return found
    native = ~as_text & np.array([cell is not None for cell in cells], dtype=bool)
    values = found.values.copy()
    values[native] = read_numbers(cells[native], ".").values
    return NumberCells(values, found.unit, found.style, found.notes)


def numeric(series: pd.Series) -> np.ndarray | None:
    """Return a column that its format keeps as numbers or truth values as float64; None for all others."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return None
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        return series.dt.total_seconds().to_numpy(dtype=np.float64)
    if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_numeric_dtype(series.dtype):
        if pd.api.types.is_complex_dtype(series.dtype):
            return None
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return None


def finite(values: np.ndarray, series: pd.Series) -> np.ndarray:
    """Return the values, none of them infinite or too large to be scaled.

    Returns
    -------
    np.ndarray

    Raises
    ------
    DataError
        A cell is infinite or too large.
    """
    bad = np.flatnonzero(np.isinf(values) | (np.abs(np.nan_to_num(values)) > LARGEST))
    if len(bad):
        raise DataError(
            explain(
                f"finite numbers in column {series.name!r}",
                f"{values[bad[0]]:g} in the row with id {series.index[bad[0]]}, {len(bad)} such cells in all",
                "a division by zero, or a mark for 'no value' that is a number",
                "leave the cell empty, or correct it",
            )
        )
    return values


def _number_column(name: str, cells: NumberCells, missing: np.ndarray, marks: Marks) -> Column:
    values, gaps = cells.values, int(missing.sum())
    odd = int(np.isnan(values).sum()) - gaps
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return Column(name, "dropped", "every cell is missing", missing=gaps)
    if gaps == 0 and odd == 0 and (present == present[0]).all():
        return Column(name, "dropped", "constant")
    notes = (*cells.notes, *((marks.note,) if marks.note else ()), *sentinels(present))
    about = "number" + (f", {gaps} missing replaced by the median" if gaps else "")
    about += f", {odd} cells that are no number taken as missing" if odd else ""
    style = cells.style
    if style or marks.note:
        style = (*style, f"decided by {marks.by}") if marks.by else style
    return Column(
        name,
        "number",
        about + (", decimal comma" if marks.decimal == "," and "decimal comma" in cells.style else ""),
        format=", ".join(style),
        missing=gaps,
        unreadable=odd,
        marks=marks,
        unit=cells.unit,
        notes=notes,
        **sizes(present),
    )


def sizes(present: np.ndarray) -> dict[str, Any]:
    """Return what a hold-out's numbers are held against: `typical`, `span` and `middle` of a `Column`.

    Returns
    -------
    dict[str, Any]

    Examples
    --------
    >>> sizes(np.array([-4.0, 1.0, 2.0, 3.0, 4.0]))
    {'typical': 3.0, 'span': (-4.0, 4.0), 'middle': (1.0, 3.0)}
    """
    low, high = np.quantile(present, (0.25, 0.75)).tolist()
    return {
        "typical": float(np.median(np.abs(present))),
        "span": (float(present.min()), float(present.max())),
        "middle": (low, high),
    }


def sentinels(present: np.ndarray, remedy: str = "leave them empty") -> tuple[str, ...]:
    """Return a note on a number of nines, such as -999, that stands far from all others in several cells.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> sentinels(np.array([1.0, 2.0, 3.0, 4.0, -999.0, -999.0, -999.0]))
    ('3 cells hold -999, far from all others: leave them empty if that means a missing value',)
    """
    found, counts = np.unique(present, return_counts=True)
    for at in (0, -1):
        value, digits = found[at], f"{abs(found[at]):.0f}"
        nines = len(digits) > 1 and set(digits) == {"9"} and value == np.round(value)
        if nines and _stands_apart(found, counts, at):
            return (
                f"{counts[at]} cells hold {value:.0f}, far from all others: {remedy} if that means a missing "
                "value",
            )
    below, many = found[found < 0], counts[0] >= max(3, 0.01 * len(present))
    if len(below) == 1 and many and len(found) > FEW_LEVELS and below[0] in (-1, -9, -99):
        return (
            f"{counts[0]} cells hold {below[0]:.0f}, the only number below 0: {remedy} if that means a missing "
            "value",
        )
    return ()


def _stands_apart(found: np.ndarray, counts: np.ndarray, at: int) -> bool:
    """Tell whether several cells hold the least (at = 0) or largest (-1) value, farther from others than these span."""
    others = np.delete(found, at)
    if len(others) < 3 or counts[at] < max(3, 0.01 * counts.sum()):
        return False
    return bool(abs(found[at] - others[at]) > others[-1] - others[0])


def _truth_column(name: str, present: np.ndarray, missing: np.ndarray) -> Column | None:
    """Return truth values in more than two spellings as two levels; None for everything else."""
    counts = Counter(present)
    if not 2 < len(counts) <= MOST_TRUTH_WORDS or not in_words(counts):
        return None
    said = truth_levels(counts)
    if said is None:
        return None
    usual = {
        value: min(
            (level for level in counts if said[level] == value), key=lambda level: (-counts[level], level)
        )
        for value in (True, False)
    }
    gaps = int(missing.sum())
    note = (
        f"{len(counts)} spellings of true and false read as two levels, {usual[True]!r} and {usual[False]!r}"
    )
    return Column(
        name,
        "category",
        "category of 2 levels" + (f", {gaps} missing as a level of their own" if gaps else ""),
        format="true or false",
        missing=gaps,
        levels={level: usual[value] for level, value in said.items()},
        notes=(note,),
    )


def _date_column(name: str, series: pd.Series, missing: np.ndarray) -> Column:
    if missing.all():
        return Column(name, "dropped", "every cell is missing", missing=len(series))
    if series.nunique() == 1 and not missing.any():
        return Column(name, "dropped", "constant")
    gaps = int(missing.sum())
    about = "date" + (f", {gaps} missing replaced by the median" if gaps else "")
    return Column(
        name, "date", about, missing=gaps, dates=DateReader(), zone=series.dt.tz, notes=_distant_date(series)
    )


def _distant_date(moments: pd.Series) -> tuple[str, ...]:
    """Return a note on a date such as 9999-12-31 that stands far from all others in several cells."""
    plain = moments.dropna() if moments.dt.tz is None else moments.dropna().dt.tz_convert(None)
    found, counts = np.unique(plain.to_numpy().astype("datetime64[D]"), return_counts=True)
    for at in (0, -1):
        if _stands_apart(found, counts, at):
            return (
                f"{counts[at]} cells hold {found[at]}, far from all other dates: leave them empty if that means a "
                "missing value",
            )
    return ()


def _date_from_text(
    name: str, cells: np.ndarray, missing: np.ndarray, own: DateReader | None
) -> Column | None:
    reader: Any = own
    if reader is not None:
        parsed = reader.read(cells)
    elif all(len(cell) <= LONGEST and _DATE_LIKE.match(cell) for cell in set(cells[~missing])):
        reader = require("skrub", "reads dates").ToDatetime()
        try:
            parsed = reader.fit_transform(pd.Series(cells, name=name, dtype="str"))
        except ValueError:  # skrub's RejectColumn: no date format fits
            return None
    else:
        return None
    present = int((~missing).sum())
    read = int(parsed.notna().sum())
    if read < MOSTLY * present or parsed.nunique() < 2:
        return None
    gaps = len(cells) - read
    notes = (own.note,) if own is not None and own.note else ()
    return Column(
        name,
        "date",
        "date" + (f", {gaps} missing replaced by the median" if gaps else ""),
        format=own.words if own is not None else str(reader.format_),
        missing=int(missing.sum()),
        unreadable=present - read,
        dates=reader,
        zone=parsed.dt.tz,
        notes=(*notes, *_distant_date(parsed)),
    )


def _words_column(name: str, cells: np.ndarray, missing: np.ndarray, max_levels: int) -> Column:
    present = cells[~missing]
    levels = len(set(present))
    gaps = int(missing.sum())
    suffix = f", {gaps} missing as a level of their own" if gaps else ""
    if levels == 1 and not gaps:
        return Column(name, "dropped", "constant")
    prose = levels > len(present) / 2 and np.mean([len(cell.split()) for cell in present]) >= LONG_TEXT
    if levels <= max_levels and not prose:
        return Column(name, "category", f"category of {levels} levels{suffix}", missing=gaps)
    if levels == len(cells) >= IDENTIFIER_ROWS and not any(len(cell.split()) > 1 for cell in present[:1000]):
        return Column(name, "dropped", "a different word in every row: an identifier")
    about = "text" + (f", {gaps} missing as empty text" if gaps else "")
    return Column(name, "text", about, missing=gaps)
