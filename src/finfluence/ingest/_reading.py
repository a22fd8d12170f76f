"""How one file spells its numbers and dates: gathered once, from all of its rows."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from finfluence.ingest._dates import DateEvidence, DateReader, FileDates, date_evidence, evidence_of_digits
from finfluence.ingest._marks import FEW_LEVELS, Evidence, FileMarks, Marks, evidence
from finfluence.ingest._numerals import Numerals
from finfluence.ingest._values import WORDS_FOR_NOTHING, texts

_MOST_WORDS = 3


@dataclass(frozen=True)
class FileReading:
    """The spellings of a file.

    Attributes
    ----------
    marks
        For which decimal mark each column speaks.
    dates
        For which order of day and month each column speaks.
    absent
        Column of numbers or dates -> the few words in it that stand where a value would, such as "unknown".
    numerals
        Cells that have been taken apart.
    part
        What messages call the file.
    """

    marks: FileMarks = field(default_factory=FileMarks)
    dates: FileDates = field(default_factory=FileDates)
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    numerals: Numerals = field(default_factory=Numerals, repr=False, compare=False)
    part: str = field(default="hold-out", compare=False)

    def date_reader(self, name: str, other: str = "") -> DateReader | None:
        """Return how a column of dates is read; None if it holds none."""
        return self.dates.of(name, other, self.marks.file_mark == ",")

    def date_order(self, name: str, digits: int) -> str:
        """Return the order of day and month that the cells of a column prove; "" for none, and for other `digits`."""
        evidence = self.dates.columns.get(name)
        return "" if evidence is None or evidence.digits != digits else evidence.order

    def date_digits(self, name: str) -> int:
        """Return the length of a column's dates without separators (210315): 6 or 8, 0 for all others.

        Dates of one length say nothing of the order in those of another.

        Returns
        -------
        int
        """
        evidence = self.dates.columns.get(name)
        return 0 if evidence is None else evidence.digits

    def number_marks(self, name: str, otherwise: Marks | None = None) -> Marks:
        """Return the decimal mark of a column and what decided it."""
        return self.marks.of(name, otherwise)


def file_reading(frame: pd.DataFrame, delimiter: str = "") -> FileReading:
    """Gather the evidence of all columns that hold texts; the order of rows and columns does not matter."""
    numbers, dates, absent, numerals = {}, {}, {}, Numerals()
    for name in frame.columns:
        series = frame[name]
        worded = series.dtype == object or pd.api.types.is_string_dtype(series.dtype)
        if not worded and not _whole(series):
            continue
        cells = texts(series)
        if (of_digits := evidence_of_digits(cells)) is not None:
            dates[str(name)] = of_digits
        if not worded or str(name) in dates:
            continue
        cells[~written(series)] = None
        found, ordered = _told(cells, numerals)
        if not found.cells and ordered is None:
            words = _words_for_nothing(cells)
            rest = cells if not words else without(cells, words)
            if words and len({cell for cell in rest if cell is not None}) > FEW_LEVELS:
                found, ordered = _told(rest, numerals)
                if found.cells or ordered is not None:
                    absent[str(name)] = words
        numbers[str(name)] = found
        if ordered is not None:
            dates[str(name)] = ordered
    return FileReading(FileMarks(numbers, delimiter), FileDates(dates), absent, numerals)


def _whole(series: pd.Series) -> bool:
    """Tell whether a column holds whole numbers, some of them perhaps missing."""
    if pd.api.types.is_integer_dtype(series.dtype):
        return True
    if not pd.api.types.is_float_dtype(series.dtype):
        return False
    values = series.dropna().to_numpy(dtype=np.float64)
    return bool((values == np.round(values)).all())


def without(cells: np.ndarray, words: Collection[str]) -> np.ndarray:
    """Return the cells with None for those that hold one of the words."""
    return np.array([None if cell in words else cell for cell in cells], dtype=object) if words else cells


def _told(cells: np.ndarray, numerals: Numerals) -> tuple[Evidence, DateEvidence | None]:
    found = evidence(cells, numerals)
    return found, None if found.cells else date_evidence(cells)


def _words_for_nothing(cells: np.ndarray) -> frozenset[str]:
    """Return the few words without a digit that fill at most half of the cells; none where there are more."""
    counts = Counter(cell for cell in cells if cell is not None and not any(map(str.isdecimal, cell)))
    few = len({word.casefold() for word in counts} - WORDS_FOR_NOTHING) <= _MOST_WORDS
    return (
        frozenset(counts)
        if few and 2 * counts.total() <= sum(cell is not None for cell in cells)
        else frozenset()
    )


def written(series: pd.Series) -> np.ndarray:
    """Return which cells are texts or dates: numbers that a format keeps as numbers have no marks to be decided."""
    if series.dtype != object:
        return np.ones(len(series), dtype=bool)
    return np.fromiter((isinstance(value, str | date) for value in series), dtype=bool, count=len(series))
