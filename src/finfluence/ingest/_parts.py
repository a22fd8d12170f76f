"""The cells of any part, read by what training decided where that fits, and by their own marks where it does not."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._columns import Column, finite, number_cells, numeric, sentinels
from finfluence.ingest._dates import DateReader
from finfluence.ingest._marks import NumberCells
from finfluence.ingest._reading import FileReading, without
from finfluence.ingest._truth import truth, truth_levels
from finfluence.ingest._units import PERCENT
from finfluence.ingest._values import WORDS_FOR_NOTHING, texts

MISSING_LEVEL = "(missing)"
NOTABLE = 0.01
"""Share of the cells from which a reader must know of them."""
_FEW = 2
_ENOUGH = 20
_SLIVER = 0.1
_FAR, _NEAR = math.log(100), math.log(10)


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
        beside = () if reading is None else out_of_place(column, values)
        return finite(values, series), Account(column.name, int((~np.isnan(values)).sum()), notes=beside)
    cells = without(texts(series), column.absent)
    present = np.array([cell is not None for cell in cells], dtype=bool)
    if reading is None:
        found = number_cells(series, cells, column.marks.decimal, column.unit, training.numerals)
        return finite(found.values, series), _account(column.name, cells, present, np.isnan(found.values), ())
    found, notes = _foreign_numbers(column, series, cells, reading)
    values = found.values
    if column.unit == "" and column.span == (0.0, 1.0) and np.isnan(values[present]).any():
        values, said = _truth_as_numbers(values, cells)
        notes += said
    notes.extend(out_of_place(column, values))
    account = _account(column.name, cells, present, np.isnan(values), tuple(notes))
    _refuse_lost(account, column, "numbers", reading.part)
    return finite(values, series), account


def out_of_place(column: Column, values: np.ndarray) -> tuple[str, ...]:
    """Return notes on numbers of another file that look like a mark for nothing, or like those of another unit.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> out_of_place(Column("x", "number", "", span=(0.0, 900.0), middle=(200.0, 700.0)), np.linspace(0, 0.9, 40))
    ("its numbers lie between 0 and 0.9, half of training's between 200 and 700: are they in another unit?",)
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return ()
    notes = sentinels(present) if present.min() < column.span[0] or present.max() > column.span[1] else ()
    low, high = np.quantile(present, (0.05, 0.95)).tolist()
    first, third = column.middle
    if len(present) >= _ENOUGH and high - low < _SLIVER * (third - first):
        alike = present.min() == present.max()
        notes += (
            f"all of its numbers are {present[0]:.6g}, half of training's lie between {first:.6g} and {third:.6g}: "
            "are they of another kind?"
            if alike
            else f"its numbers lie between {present.min():.6g} and {present.max():.6g}, half of training's between "
            f"{first:.6g} and {third:.6g}: are they in another unit?",
        )
    return notes


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
    trained = column.dates if isinstance(column.dates, DateReader) else DateReader()
    known = trained.order if trained.words else ""
    own = None
    if reading is not None:
        alike = trained.digits == reading.date_digits(column.name)
        own = reading.date_reader(column.name, known if alike else "")
    reader = own if own is not None else column.dates
    if own is not None and isinstance(column.dates, DateReader):
        reader = replace(own, century=column.dates.century)
    if isinstance(reader, DateReader):
        moments = reader.read(cells)
        if own is not None and own.words and own.order != known:
            notes.append(f"its dates are written {own.words}, and read so")
        if own is not None and own.note and own.order != known:
            notes.append(own.note)
        if own is not None and bool(own.zoned) != bool(trained.zoned) and (own.local or trained.local):
            which = "a zone, those of training none" if own.zoned else "no zone, those of training do"
            notes.append(f"its times carry {which}: times without one are taken to be in UTC")
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
    if levels is not None and foreign and column.missing:
        nothing = sorted(word for word in set(counts) - set(levels) if word.casefold() in WORDS_FOR_NOTHING)
        if nothing:
            cells = np.array([None if cell in nothing else cell for cell in cells], dtype=object)
            present = np.array([cell is not None for cell in cells], dtype=bool)
            notes.append(
                f"{' or '.join(map(repr, nothing))} was taken as missing, as training has no such level"
            )
            counts = Counter(cells[present])
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
    if evidence is not None and evidence.doubtful and not evidence.mark:
        other = number_cells(series, cells, "," if marks.decimal == "." else ".", column.unit)
        far, near = (_distance(one.values, column.typical) for one in (found, other))
        if near < far and (not reading.marks.file_mark or (near < _NEAR and far > _FAR)):
            found = other
            notes.append("thousands or decimals was decided by the sizes in training")
    commas = "decimal comma" in found.style
    if commas != (column.marks.decimal == ",") and (commas or (evidence is not None and evidence.point)):
        notes.append(f"its numbers are written with decimal {'commas' if commas else 'points'}, and read so")
    if found.unit and not column.unit and found.unit != PERCENT:
        notes.append(f"its numbers are in {found.unit}, those of training carry no unit: taken as they are")
    bare = _bare(cells, reading)
    if column.unit not in ("", PERCENT) and bare:
        notes.append(
            f"its numbers carry no unit, those of training are in {column.unit}: taken to be so, too"
        )
    notes += found.notes
    return _as_shares(column, bare, found, notes), notes


def _bare(cells: np.ndarray, reading: FileReading) -> bool:
    """Tell whether no number among the cells carries a unit."""
    numerals = [
        found for cell in set(cells) if cell is not None and (found := reading.numerals[cell]) is not None
    ]
    return bool(numerals) and not any(found.unit for found in numerals)


def _as_shares(column: Column, bare: bool, found: NumberCells, notes: list[str]) -> NumberCells:
    """Bring per cent and shares together where one file writes 12 % and the other 0.12."""
    sized = np.abs(found.values[~np.isnan(found.values)])
    if not len(sized) or not column.typical:
        return found
    ratio, factor = float(np.median(sized)) / column.typical, 1.0
    if (
        found.unit == PERCENT
        and column.unit == ""
        and (ratio > 10 or column.typical <= 1 < 100 * column.typical)
    ):
        factor = 0.01
    elif column.unit == PERCENT and bare and (ratio < 0.1 or sized.max() <= 1 < column.typical):
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
