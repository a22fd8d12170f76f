"""How one file spells its numbers and dates: gathered once, from all of its rows."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from finfluence.ingest._dates import DateReader, FileDates, date_evidence
from finfluence.ingest._marks import FileMarks, Marks, evidence
from finfluence.ingest._numerals import Numerals
from finfluence.ingest._values import texts


@dataclass(frozen=True)
class FileReading:
    """The spellings of a file.

    Attributes
    ----------
    marks
        For which decimal mark each column speaks.
    dates
        For which order of day and month each column speaks.
    numerals
        Cells that have been taken apart.
    part
        What messages call the file.
    """

    marks: FileMarks = field(default_factory=FileMarks)
    dates: FileDates = field(default_factory=FileDates)
    numerals: Numerals = field(default_factory=Numerals, repr=False, compare=False)
    part: str = field(default="hold-out", compare=False)

    def date_reader(self, name: str, other: str = "") -> DateReader | None:
        """Return how a column of dates is read; None if it holds none."""
        return self.dates.of(name, other, self.marks.file_mark == ",")

    def date_order(self, name: str) -> str:
        """Return the order of day and month that the cells of a column prove; "" for none."""
        evidence = self.dates.columns.get(name)
        return "" if evidence is None else evidence.order

    def number_marks(self, name: str, otherwise: Marks | None = None) -> Marks:
        """Return the decimal mark of a column and what decided it."""
        return self.marks.of(name, otherwise)


def file_reading(frame: pd.DataFrame, delimiter: str = "") -> FileReading:
    """Gather the evidence of all columns that hold texts; the order of rows and columns does not matter."""
    numbers, dates, numerals = {}, {}, Numerals()
    for name in frame.columns:
        series = frame[name]
        if not (series.dtype == object or pd.api.types.is_string_dtype(series.dtype)):
            continue
        cells = texts(series)
        cells[~written(series)] = None
        found = evidence(cells, numerals)
        numbers[str(name)] = found
        if found.cells == 0:
            ordered = date_evidence(cells)
            if ordered is not None:
                dates[str(name)] = ordered
    return FileReading(FileMarks(numbers, delimiter), FileDates(dates), numerals)


def written(series: pd.Series) -> np.ndarray:
    """Return which cells are texts: numbers that a format keeps as numbers have no marks to be decided."""
    if series.dtype != object:
        return np.ones(len(series), dtype=bool)
    return np.fromiter((isinstance(value, str) for value in series), dtype=bool, count=len(series))
