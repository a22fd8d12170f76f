"""What each column of a table is: numbers, dates, categories, text, or nothing a model can use."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._messages import require
from finfluence.ingest._text import LONG_TEXT
from finfluence.ingest._values import looks_like_code, numbers, texts

ColumnKind = Literal["number", "date", "category", "text", "dropped"]

MOSTLY = 0.9
"""Share of the present cells that must be numbers (dates) for a column to count as such."""
LARGEST = 1e150
"""Numbers beyond this overflow when their variance is taken."""
IDENTIFIER_ROWS = 50
_DATE_LIKE = re.compile(r".*\d.*([-/.:]|[A-Za-z]).*\d.*", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """One column of the training part: its kind, in words, and how to read its cells."""

    name: str
    kind: ColumnKind
    about: str
    decimal: str = "."
    dates: Any = None

    def as_numbers(self, series: pd.Series) -> np.ndarray:
        """Return the cells as float64, NaN where missing.

        Raises
        ------
        DataError
            A cell is infinite or too large to be scaled.
        """
        values = _numeric(series)
        return _finite(numbers(texts(series), self.decimal) if values is None else values, series)

    def as_dates(self, series: pd.Series) -> pd.Series:
        """Return the cells as datetimes, NaT where missing or unreadable."""
        if pd.api.types.is_datetime64_any_dtype(series.dtype):
            return self.dates.transform(series)
        return self.dates.transform(pd.Series(texts(series), name=self.name, dtype="str"))


def describe(series: pd.Series, max_levels: int, decimal: str = ".") -> Column:
    """Decide what a column is from its cells in the training part."""
    name = str(series.name)
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return _date_column(name, series, series.isna().to_numpy())
    values = _numeric(series)
    if values is not None:
        return _number_column(name, _finite(values, series), np.isnan(values), 0)
    cells = texts(series)
    missing = np.array([cell is None for cell in cells])
    if missing.all():
        return Column(name, "dropped", "every cell is missing")
    present = cells[~missing]
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _words_column(name, cells, missing, max_levels)
    if not looks_like_code(present):
        for mark in dict.fromkeys((".", decimal)):
            values = numbers(cells, mark)
            if (~np.isnan(values)).sum() >= MOSTLY * len(present):
                _finite(values, series)
                return _number_column(
                    name, values, missing, int(np.isnan(values).sum() - missing.sum()), mark
                )
    if all(_DATE_LIKE.match(cell) for cell in present[:20]):
        column = _date_from_text(name, cells, missing)
        if column is not None:
            return column
    return _words_column(name, cells, missing, max_levels)


def counts_rows(series: pd.Series) -> bool:
    """Tell whether a column only numbers the rows of the whole file: 0, 1, 2, … or 1, 2, 3, and so on."""
    if len(series) < 3:
        return False
    first = str(series.iloc[0]).strip()
    if first not in ("0", "1", "0.0", "1.0"):
        return False
    values = _numeric(series)
    values = numbers(texts(series)) if values is None else values
    return bool(np.array_equal(values, np.arange(len(series)) + float(first)))


def _number_column(
    name: str, values: np.ndarray, missing: np.ndarray, odd: int, decimal: str = "."
) -> Column:
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return Column(name, "dropped", "every cell is missing")
    gaps = int(missing.sum())
    if gaps == 0 and odd == 0 and (present == present[0]).all():
        return Column(name, "dropped", "constant")
    about = "number" + (f", {gaps} missing replaced by the median" if gaps else "")
    about += f", {odd} cells that are no number taken as missing" if odd else ""
    return Column(name, "number", about + (", decimal comma" if decimal == "," else ""), decimal)


def _date_column(name: str, series: pd.Series, missing: np.ndarray) -> Column:
    if missing.all():
        return Column(name, "dropped", "every cell is missing")
    if series.nunique() == 1 and not missing.any():
        return Column(name, "dropped", "constant")
    reader = require("skrub", "reads dates").ToDatetime()
    reader.fit_transform(series)
    gaps = int(missing.sum())
    return Column(
        name, "date", "date" + (f", {gaps} missing replaced by the median" if gaps else ""), dates=reader
    )


def _date_from_text(name: str, cells: np.ndarray, missing: np.ndarray) -> Column | None:
    skrub = require("skrub", "reads dates")
    reader = skrub.ToDatetime()
    try:
        parsed = reader.fit_transform(pd.Series(cells, name=name, dtype="str"))
    except ValueError:  # skrub's RejectColumn: no date format fits
        return None
    present = int((~missing).sum())
    read = int(parsed.notna().sum())
    if read < MOSTLY * present or parsed.nunique() < 2:
        return None
    gaps = len(cells) - read
    return Column(
        name, "date", "date" + (f", {gaps} missing replaced by the median" if gaps else ""), dates=reader
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
        return Column(name, "category", f"category of {levels} levels{suffix}")
    if levels == len(cells) >= IDENTIFIER_ROWS and not any(len(cell.split()) > 1 for cell in present[:1000]):
        return Column(name, "dropped", "a different word in every row: an identifier")
    return Column(name, "text", "text" + (f", {gaps} missing as empty text" if gaps else ""))


def _numeric(series: pd.Series) -> np.ndarray | None:
    if isinstance(series.dtype, pd.CategoricalDtype):
        return None
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        return series.dt.total_seconds().to_numpy(dtype=np.float64)
    if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_numeric_dtype(series.dtype):
        if pd.api.types.is_complex_dtype(series.dtype):
            return None
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return None


def _finite(values: np.ndarray, series: pd.Series) -> np.ndarray:
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
