"""The cells of any part, read by what training decided where that fits, and by their own marks where it does not."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._columns import Column, finite, number_cells, numeric
from finfluence.ingest._dates import DateReader
from finfluence.ingest._marks import NumberCells
from finfluence.ingest._reading import FileReading, without
from finfluence.ingest._truth import truth, truth_levels
from finfluence.ingest._units import PERCENT
from finfluence.ingest._values import texts

MISSING_LEVEL = "(missing)"
NOTABLE = 0.01
"""Share of the cells from which a reader must know of them."""
_FEW = 2


@dataclass(frozen=True)
class Account:
    """What became of the cells of one column in a part.

    Attributes
    ----------
    present, lost
        Cells with a value, and those of them that could not be read, or are no level that training knows.
    example
        One of the lost cells.
    notes
        How they were read, where that differs from training.
    """

    column: str
    present: int
    lost: int = 0
    example: str = ""
    notes: tuple[str, ...] = ()

    @property
    def notable(self) -> bool:
        """Whether more than 1 % of the cells were lost."""
        return self.lost > NOTABLE * self.present


def number_part(
    column: Column, series: pd.Series, reading: FileReading | None, training: FileReading
) -> tuple[np.ndarray, Account]:
    """Return a column of numbers of another part as float64, NaN where missing or unreadable.

    Parameters
    ----------
    column
        What training decided.
    series
        The cells.
    reading
        How the part's own file spells numbers; None for rows of the training file.
    training
        How the training file spells them.

    Returns
    -------
    tuple[np.ndarray, Account]

    Raises
    ------
    DataError
        A number is infinite or too large, or most cells are no numbers.
    """
    values = numeric(series)
    if values is not None:
        return finite(values, series), Account(column.name, int((~np.isnan(values)).sum()))
    cells = without(texts(series), column.absent)
    present = np.array([cell is not None for cell in cells], dtype=bool)
    if reading is None:
        found = number_cells(series, cells, column.marks.decimal, column.unit, training.numerals)
        return finite(found.values, series), _account(column.name, cells, present, np.isnan(found.values), ())
    found, notes = _foreign_numbers(column, series, cells, reading)
    values = found.values
    if column.unit == "" and np.isnan(values[present]).any():
        values, said = _truth_as_numbers(values, cells)
        notes += said
    account = _account(column.name, cells, present, np.isnan(values), tuple(notes))
    _refuse_lost(account, column, "numbers", reading.part)
    return finite(values, series), account


def date_part(column: Column, series: pd.Series, reading: FileReading | None) -> tuple[pd.Series, Account]:
    """Return a column of dates of another part as datetimes, NaT where missing or unreadable; as `number_part`.

    Returns
    -------
    tuple[pd.Series, Account]

    Raises
    ------
    DataError
        Most cells are no dates.
    """
    notes: list[str] = []
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        present = series.notna().to_numpy()
        return _in_zone(series, column.zone), Account(column.name, int(present.sum()))
    cells = without(texts(series), column.absent)
    present = np.array([cell is not None for cell in cells], dtype=bool)
    known = column.dates.order if isinstance(column.dates, DateReader) and column.dates.words else ""
    own = None if reading is None else reading.date_reader(column.name, known)
    reader = own if own is not None else column.dates
    if own is not None and isinstance(column.dates, DateReader):
        reader = replace(own, century=column.dates.century)
    if isinstance(reader, DateReader):
        moments = reader.read(cells)
        if own is not None and own.words and own.order != known:
            notes.append(f"its dates are written {own.words}, and read so")
        if own is not None and own.note and own.order != known:
            notes.append(own.note)
    else:
        moments = reader.transform(pd.Series(cells, name=column.name, dtype="str"))
    moments = _in_zone(pd.Series(moments).rename(column.name), column.zone)
    account = _account(column.name, cells, present, moments.isna().to_numpy(), tuple(notes))
    if reading is not None:
        _refuse_lost(account, column, "dates", reading.part)
    return moments, account


def level_part(
    column: Column, series: pd.Series, levels: Iterable[str] | None, foreign: bool
) -> tuple[np.ndarray, Account]:
    """Return a column of categories of a part as words, `(missing)` where there is none.

    Parameters
    ----------
    column
        What training decided.
    series
        The cells.
    levels
        The words that training knows; None while training itself is read.
    foreign
        Whether the part is another file: its truth values, and levels that differ in case or zeros alone, become those
        of training.

    Returns
    -------
    tuple[np.ndarray, Account]
    """
    cells = texts(series)
    if column.levels:
        cells = np.array([column.levels.get(cell, cell) for cell in cells], dtype=object)
    present = np.array([cell is not None for cell in cells], dtype=bool)
    counts = Counter(cells[present])
    notes = []
    if levels is not None and foreign:
        same = _translation(set(levels) - {MISSING_LEVEL}, counts)
        if same:
            cells = np.array([same.get(cell, cell) for cell in cells], dtype=object)
            pairs = ", ".join(f"{other!r} as {ours!r}" for other, ours in list(sorted(same.items()))[:3])
            notes.append(f"levels written otherwise were mapped: {pairs}")
    lost = np.zeros(len(cells), dtype=bool)
    if levels is not None:
        known = set(levels)
        lost = np.array([cell is not None and cell not in known for cell in cells], dtype=bool)
    account = _account(column.name, cells, present, lost, tuple(notes))
    cells = cells.copy()
    cells[~present] = MISSING_LEVEL
    return cells, account


def _foreign_numbers(
    column: Column, series: pd.Series, cells: np.ndarray, reading: FileReading
) -> tuple[NumberCells, list[str]]:
    """Read numbers of another file: by its own mark where it has one, else by the one that suits the sizes."""
    marks = reading.number_marks(column.name, column.marks)
    found = number_cells(series, cells, marks.decimal, column.unit, reading.numerals)
    evidence = reading.marks.columns.get(column.name)
    notes = []
    if evidence is not None and evidence.doubtful and not evidence.mark and not reading.marks.file_mark:
        other = number_cells(series, cells, "," if marks.decimal == "." else ".", column.unit)
        if _distance(other.values, column.typical) < _distance(found.values, column.typical):
            found = other
            notes.append("thousands or decimals was decided by the sizes in training")
    commas = "decimal comma" in found.style
    if commas != (column.marks.decimal == ",") and (commas or (evidence is not None and evidence.point)):
        notes.append(f"its numbers are written with decimal {'commas' if commas else 'points'}, and read so")
    if found.unit and not column.unit and found.unit != PERCENT:
        notes.append(f"its numbers are in {found.unit}, those of training carry no unit: taken as they are")
    if column.unit not in ("", PERCENT) and _bare(cells, reading):
        notes.append(
            f"its numbers carry no unit, those of training are in {column.unit}: taken to be so, too"
        )
    notes += found.notes
    return _as_shares(column, cells, found, notes), notes


def _bare(cells: np.ndarray, reading: FileReading) -> bool:
    """Tell whether no number among the cells carries a unit."""
    numerals = [
        found for cell in set(cells) if cell is not None and (found := reading.numerals[cell]) is not None
    ]
    return bool(numerals) and not any(found.unit for found in numerals)


def _as_shares(column: Column, cells: np.ndarray, found: NumberCells, notes: list[str]) -> NumberCells:
    """Bring per cent and shares together where one file writes 12 % and the other 0.12."""
    marked = any(cell is not None and ("%" in cell or "％" in cell) for cell in cells)
    size = np.nanmax(np.abs(found.values), initial=0.0)
    factor = 1.0
    if marked and column.unit == "" and column.typical <= 1 < 100 * column.typical:
        factor = 0.01
    elif not marked and column.unit == PERCENT and size <= 1 < column.typical:
        factor = 100.0
    if factor == 1.0:
        return found
    notes.append("per cent and shares were brought together: 12 % is 0.12")
    return NumberCells(found.values * factor, found.unit, found.style, found.notes)


def _truth_as_numbers(values: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    said = [None if cell is None else truth(cell) for cell in cells]
    mapped = np.array([np.nan if value is None else float(value) for value in said])
    here = np.isnan(values) & ~np.isnan(mapped)
    notes = ["words for true and false were read as 1 and 0"] if here.any() else []
    return np.where(here, mapped, values), notes


def _translation(ours: set[str], counts: Counter[str]) -> dict[str, str]:
    """Return word of the other file -> level of training, for words that training does not know."""
    unknown = [word for word in counts if word not in ours]
    if not unknown:
        return {}
    known = truth_levels(ours)
    if known is not None and len(ours) == 2 and all(truth(word) is not None for word in counts):
        by_truth = {value: level for level, value in known.items()}
        return {word: by_truth[bool(truth(word))] for word in unknown}
    folded: dict[str, list[str]] = {}
    for level in sorted(ours):
        folded.setdefault(_folded(level), []).append(level)
    found = {word: folded.get(_folded(word), []) for word in unknown}
    return {word: levels[0] for word, levels in found.items() if len(levels) == 1}


def _folded(word: str) -> str:
    """Return what spellings of one level share: case, spaces, leading zeros and `.0` aside."""
    text = " ".join(word.casefold().split())
    if text.removesuffix(".0").isdigit():
        return text.removesuffix(".0").lstrip("0") or "0"
    return text


def _in_zone(moments: pd.Series, zone: object) -> pd.Series:
    if moments.dt.tz is None:
        return moments if zone is None else moments.dt.tz_localize("UTC").dt.tz_convert(zone)
    return moments.dt.tz_convert(zone)


def _distance(values: np.ndarray, typical: float) -> float:
    """Return how far the usual size of values is from training's, as the logarithm of their ratio."""
    present = np.abs(values[~np.isnan(values)])
    if not len(present) or not typical:
        return math.inf
    return abs(math.log(max(float(np.median(present)), 1e-300) / typical))


def _account(
    name: str, cells: np.ndarray, present: np.ndarray, lost: np.ndarray, notes: tuple[str, ...]
) -> Account:
    gone = cells[present & lost]
    example = min((str(cell) for cell in gone), default="")
    return Account(name, int(present.sum()), len(gone), example, notes)


def _refuse_lost(account: Account, column: Column, what: str, part: str) -> None:
    if account.lost <= _FEW or account.lost <= account.present / 2:
        return
    raise DataError(
        explain(
            f"{what} in column {column.name!r} of the {part} file, as in training ({column.about})",
            f"{account.lost} of {account.present} cells that cannot be read so, such as {account.example!r}",
            "another unit or another spelling than in the training file, or columns in another order",
            "write both files in the same way",
        )
    )
