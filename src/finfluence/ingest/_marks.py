"""Which decimal mark a column and its file write, and numbers read by it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from finfluence.ingest._loose import BOUND, CLOCK, MARGIN, RANGE, REMARK, TIME
from finfluence.ingest._messages import counted
from finfluence.ingest._numerals import Numeral, Numerals
from finfluence.ingest._units import PERCENT, conversion, is_known
from finfluence.ingest._values import looks_like_code, plain_numbers

MOSTLY = 0.9
"""Share of the present cells that must be numbers (dates) for a column to count as such."""
FEW_LEVELS = 20
_ENOUGH_DOUBTFUL = 5
_SAID = {
    BOUND: ("is a bound", "are bounds", "read as the number itself"),
    RANGE: ("is a range", "are ranges", "read as their middle"),
    REMARK: ("carries a remark", "carry remarks", "read without them"),
    MARGIN: ("carries a margin", "carry margins", "read without them"),
}
_DASHES = "-–−‐"
_EXPONENT = re.compile(r"\d\s*(?:[eEdD][+-]?\d|[x×·*]\s*10)")
_GROUP_NAMES = {".": "point", ",": "comma", " ": "space", "'": "apostrophe", "_": "underscore"}


@dataclass(frozen=True)
class Evidence:
    """How many cells of a column speak for which decimal mark.

    Attributes
    ----------
    cells
        Cells that are numbers; 0 for a column of texts.
    point, comma
        Cells that only make sense with a decimal point (19.47), with a decimal comma (19,47).
    either_point, either_comma
        Cells such as 2.155 and 2,155: three digits after a single mark.
    short, long
        Whole numbers without any mark, of at most three digits (but 0, which has no decimals anyway) and of more.
    grouped
        Marks between thousands.
    """

    cells: int = 0
    point: int = 0
    comma: int = 0
    either_point: int = 0
    either_comma: int = 0
    short: int = 0
    long: int = 0
    grouped: frozenset[str] = frozenset()

    @property
    def mark(self) -> str:
        """The mark that most deciding cells write; "" where none decides."""
        if self.point == self.comma:
            return "." if self.point else ""
        return "." if self.point > self.comma else ","

    @property
    def doubtful(self) -> int:
        """Cells that are different numbers by the two marks."""
        return self.either_point + self.either_comma

    @property
    def looks_grouped(self) -> bool:
        """Whether the doubtful cells can only be thousands, were decimals written as they usually are.

        Decimals with their last zeros cut off would show other lengths than three, and those padded to three would
        leave no whole number beside them; thousands leave whole numbers of at most three digits.
        """
        return self.doubtful >= _ENOUGH_DOUBTFUL and self.short > 0 and self.long == 0


@dataclass(frozen=True)
class Marks:
    """The decimal mark of a column, and by what it was decided.

    Attributes
    ----------
    decimal
        "." or ",".
    by
        What decided, in words; "" where every cell reads the same by both marks.
    note
        What a reader must know; "" for nothing.
    of_file
        The mark that the file's other columns write.
    """

    decimal: str = "."
    by: str = ""
    note: str = ""
    of_file: str = ""


@dataclass(frozen=True)
class FileMarks:
    """The evidence of every column of one file."""

    columns: Mapping[str, Evidence] = field(default_factory=dict)
    delimiter: str = ""

    def of(self, name: str, otherwise: Marks | None = None) -> Marks:
        """Decide the mark of a column: by its own cells, the other columns, its whole numbers, the delimiter.

        Parameters
        ----------
        name
            The column.
        otherwise
            What the training file decided, for a hold-out file that does not decide by itself.

        Returns
        -------
        Marks
        """
        own = self.columns.get(name, Evidence())
        if own.mark:
            return Marks(own.mark, "its own cells", _mixed(own), self.file_mark)
        if not own.doubtful:
            return otherwise or Marks(self.file_mark or ".")
        if own.looks_grouped and not (own.either_point and own.either_comma):
            decimal = "," if own.either_point else "."
            by = "whole numbers of at most three digits beside them, and no other decimals"
            return Marks(decimal, by, _doubt(own, decimal, by), self.file_mark)
        if otherwise is not None and self.file_mark in ("", otherwise.decimal, otherwise.of_file):
            return otherwise
        if self.file_mark:
            by = f"other columns of the file, which write decimal {'points' if self.file_mark == '.' else 'commas'}"
            return Marks(self.file_mark, by, _doubt(own, self.file_mark, by), self.file_mark)
        decimal = "," if self.delimiter == ";" and own.either_comma and not own.either_point else "."
        by = "custom, as nothing in the file decides"
        return Marks(decimal, by, _doubt(own, decimal, by))

    @property
    def file_mark(self) -> str:
        """The mark that most deciding columns write; "" where none decides, or as many for each."""
        votes = Counter(evidence.mark for evidence in self.columns.values() if evidence.mark)
        if votes["."] == votes[","]:
            return ""
        return max(votes, key=lambda mark: votes[mark])


def evidence(cells: np.ndarray, numerals: Numerals) -> Evidence:
    """Return for which decimal mark the cells of a column speak; texts speak for none."""
    present = [cell for cell in cells if cell is not None]
    if not present or looks_like_code(present):
        return Evidence()
    values = plain_numbers(cells)
    if not np.isnan(values).sum() > len(cells) - len(present):
        pointed = [cell for cell in present if "." in cell]
        if not pointed or any(_decides_for_point(numerals[cell]) for cell in pointed):
            return Evidence(len(present), point=len(pointed))
    tally: Counter[str] = Counter()
    groups: set[str] = set()
    counts = Counter(present)
    for text, count in counts.items():
        found = numerals[text]
        if found is None:
            continue
        tally["numbers"] += count
        tally[found.decides] += count
        tally["short"] += count * (0 < found.whole_digits <= 3 and text != "0")
        tally["long"] += count * (found.whole_digits > 3)
        if found.doubtful:
            tally["either ,"] += count * ("," in text)
            tally["either ."] += count * ("," not in text)
        elif found.grouped:
            groups.add(found.grouped)
    if tally["numbers"] < MOSTLY * len(present):
        return Evidence()
    return Evidence(
        tally["numbers"], tally["."], tally[","], tally["either ."], tally["either ,"], tally["short"], tally["long"],
        frozenset(groups),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class NumberCells:
    """Cells read as numbers.

    Attributes
    ----------
    values
        float64, NaN where missing or no number.
    unit
        Unit of the values, "" for none.
    style
        Spellings that occur beside plain digits, in words.
    notes
        What a reader must know.
    """

    values: np.ndarray
    unit: str = ""
    style: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_numbers(
    cells: np.ndarray, decimal: str = ".", unit: str | None = None, known: Numerals | None = None
) -> NumberCells:
    """Read texts (None where missing) as numbers.

    Parameters
    ----------
    cells
        Object array of stripped texts.
    decimal
        The mark by which doubtful cells (2.155) are read; the others are read by the only mark that fits.
    unit
        Unit to convert to; None takes the most frequent one.
    known
        Cells of the same file that have been taken apart before.

    Returns
    -------
    NumberCells
    """
    missing = np.array([cell is None for cell in cells], dtype=bool)
    values = plain_numbers(cells)
    if (decimal == "." or not _has_point(cells)) and not (np.isnan(values) & ~missing).any() and not unit:
        return NumberCells(values)
    codes, uniques = pd.factorize(pd.Series(cells, dtype=object))
    parsed = Numerals() if known is None else known
    numerals = _open_ranges(uniques, _clocks([parsed[text] for text in uniques], unit))
    weights = np.bincount(codes[codes >= 0], minlength=len(uniques))
    counts: Counter[str] = Counter()
    for found, weight in zip(numerals, weights, strict=True):
        if found is not None:
            counts[found.unit] += int(weight)
    if not _units_count(numerals, counts):
        numerals = [found if found is not None and not found.unit else None for found in numerals]
        counts = Counter({"": counts[""]})
    converted = conversion(counts, unit)
    spelt = np.array([None if found is None else found.plain(decimal) for found in numerals], dtype=object)
    numbers = plain_numbers(spelt)
    units = ["" if found is None else found.unit for found in numerals]
    factors = [converted.factors.get(one) for one in units]
    numbers = numbers * np.array(
        [np.nan if factor is None else factor for factor in factors], dtype=np.float64
    )
    if converted.shifts:
        numbers = numbers + np.array([converted.shifts.get(one, 0.0) for one in units], dtype=np.float64)
    unmarked = np.array([found is not None and not found.unit for found in numerals], dtype=bool)
    notes = [converted.note] if converted.note else []
    marked = sum(counts[name] for name in counts if name)
    if converted.unit not in ("", PERCENT) and marked and counts[""]:
        notes.append(
            f"{counted(counts[''], 'cell')} without a unit: taken to be in {converted.unit}, as {marked} others are"
        )
    if (
        converted.unit == PERCENT
        and counts[PERCENT]
        and unmarked.any()
        and (np.abs(numbers[unmarked]) <= 1).all()
    ):
        numbers = np.where(unmarked, 100 * numbers, numbers)
        notes.append(
            f"{int(weights[unmarked].sum())} cells without % lie within 0 and 1 and were taken as shares"
        )
    notes += _loose_notes(uniques, numerals, weights)
    values = np.append(numbers, np.nan)[codes]
    return NumberCells(
        values, converted.unit, _style(uniques, numerals, decimal, converted.unit), tuple(notes)
    )


def _units_count(numerals: list[Numeral | None], counts: Mapping[str, int]) -> bool:
    """Tell whether the words beside the digits are units: known ones, or one word beside many numbers."""
    units = [unit for unit in counts if unit]
    if all((is_known(unit) and len(unit) > 1) or not unit.replace(" ", "").isalpha() for unit in units):
        return True
    different = len({found.point or found.comma for found in numerals if found is not None and found.unit})
    if all(is_known(unit) for unit in units):
        related = len(units) > 1 and None not in conversion(counts).factors.values()
        return related or different > 5 or counts[""] > sum(counts[unit] for unit in units)
    return len(units) == 1 and " " not in units[0] and not counts[""] and different > FEW_LEVELS


def _style(
    uniques: Iterable[str], numerals: list[Numeral | None], decimal: str, unit: str
) -> tuple[str, ...]:
    groups, style = set(), []
    exponent = negative = False
    for text, found in zip(uniques, numerals, strict=True):
        if found is None:
            continue
        spelt = found.plain(decimal) or ""
        exponent |= "e" in spelt and _EXPONENT.search(text) is not None
        negative |= "(" in text and not found.loose
        mark = found.grouped
        if mark and not (found.doubtful and mark == decimal):
            groups.add(mark)
    if decimal == ",":
        style.append("decimal comma")
    style += [f"thousands by {_GROUP_NAMES[mark]}" for mark in sorted(groups)]
    style += [f"in {unit}"] if unit else []
    style += ["negative in parentheses"] if negative else []
    style += ["with exponents"] if exponent else []
    return tuple(style)


def _clocks(numerals: list[Numeral | None], unit: str | None) -> list[Numeral | None]:
    """Give times in two parts their unit: hours and minutes, or minutes and seconds from 24 on."""
    short = [found for found in numerals if found is not None and found.unit == CLOCK]
    if not short:
        return numerals
    longest = max(float(found.point or 0) for found in short)
    with_seconds = any(found is not None and found.unit == "h" and found.loose == TIME for found in numerals)
    told = unit if unit in ("h", "min") and not with_seconds else "min" if longest >= 24 else "h"
    return [
        replace(found, unit=told) if found is not None and found.unit == CLOCK else found
        for found in numerals
    ]


def _open_ranges(texts: Iterable[str], numerals: list[Numeral | None]) -> list[Numeral | None]:
    """Read `1990-` among ranges as a bound; elsewhere the minus behind a number is its sign."""
    if not any(found is not None and found.loose == RANGE for found in numerals):
        return numerals
    return [
        found
        if found is None or found.loose or text[-1] not in _DASHES
        else replace(
            found,
            point=None if found.point is None else found.point.removeprefix("-"),
            comma=None if found.comma is None else found.comma.removeprefix("-"),
            loose=BOUND,
        )
        for text, found in zip(texts, numerals, strict=True)
    ]


def _loose_notes(uniques: Iterable[str], numerals: list[Numeral | None], weights: np.ndarray) -> list[str]:
    cells: dict[str, tuple[int, str]] = {}
    for text, found, weight in zip(uniques, numerals, weights, strict=True):
        if found is not None and found.loose in _SAID:
            count, example = cells.get(found.loose, (0, text))
            cells[found.loose] = count + int(weight), min(example, text)
    return [
        f"{counted(count, 'cell')} {_SAID[kind][count > 1]} such as {example!r}, {_SAID[kind][2]}"
        for kind, (count, example) in sorted(cells.items())
    ]


def _has_point(cells: np.ndarray) -> bool:
    return any(cell is not None and "." in cell for cell in cells)


def _decides_for_point(found: Numeral | None) -> bool:
    return found is not None and found.decides == "."


def _mixed(own: Evidence) -> str:
    if not own.point or not own.comma:
        return ""
    few = min(own.point, own.comma)
    other = "comma" if own.mark == "." else "point"
    note = f"{few} cells write a decimal {other}, the others do not: each was read by its own mark"
    return note + (f"; {own.doubtful} cells could be read by either" if own.doubtful else "")


def _doubt(own: Evidence, decimal: str, by: str) -> str:
    """Return a note where thousands and decimals cannot be told apart by the column; padded decimals are usual."""
    read_as_decimals = own.either_point if decimal == "." else own.either_comma
    if read_as_decimals == own.doubtful and not own.short and not own.long:
        return ""
    example = "2.155" if own.either_point else "2,155"
    what = "decimals" if read_as_decimals == own.doubtful else "thousands"
    return f"{own.doubtful} cells such as {example} could be decimals or thousands: read as {what}, by {by}"
