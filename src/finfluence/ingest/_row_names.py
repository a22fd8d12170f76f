"""Columns that number or name the rows: left out, because they tell which row it is and not what it is."""

import re
from collections import Counter

import numpy as np
import pandas as pd
from scipy.special import pdtr

from finfluence.ingest._columns import number_cells, numeric
from finfluence.ingest._reading import FileReading, without
from finfluence.ingest._values import looks_like_code, texts

NUMBERS_ROWS = "it numbers the rows"
LEAST_ROWS = 20
EVEN_ROWS = 50
NEARLY_ALL = 0.95
FEW_LEVELS = 40
_CHANCE = 1e-9
_EXACT = 2.0**53
_WIDE = r"[+-]?\d{16,}(?:\.0)?"
_LINE = 0.99
"""Correlation with the row number from which numbers that rise from row to row count the rows."""
_SURE_NAMES = frozenset({"id", "ids", "uid", "uuid", "guid", "pk", "oid"})
_THINGS = (
    "row|record|case|sample|serial|order|line|item|user|doc|document|movie|review|customer|client|patient|product|post|"
    "image|account|person|student|employee|transaction|session|event|ticket|tweet|comment|article|invoice|member"
)
_ID_IN_ONE_WORD = re.compile(rf"(?:{_THINGS})ids?")
_COUNTED = re.compile(rf"(?:(?:{_THINGS}) ?)?(?:index|idx|nr|no|num|number|key|serial)")
_WORDS_OF_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_HASH = re.compile(
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|(?=.*\d)(?=.*[A-Za-z])[\w+/-]{12,}={0,2}"
)
_DIGITS = re.compile(r"\d+")
_DECIMALS = re.compile(r"(?<![\w.,-])\d+[.,]\d+(?![\w.,/-])")
_CLOCK = re.compile(r"\d:\d\d")


def names_rows(series: pd.Series, reading: FileReading | None = None) -> str | None:
    """Return why a column of the whole file only numbers or names the rows; None if it may mean something.

    Parameters
    ----------
    series
        The column, all rows of the file in their order.
    reading
        How the file spells its numbers.

    Returns
    -------
    str | None

    Notes
    -----
    Numbers: 0, 1, 2, … or 1, 2, 3, … in order; equal steps from row to row; whole numbers that rise (fall) from row to
    row along a line; whole numbers of which nearly none occurs
    twice although so few values are possible that chance would repeat many (below one in 10⁹ by the birthday rule: this
    finds permutations, shuffled and thinned indexes); whole numbers beyond 2⁵³, told apart by how they are spelled; a
    name such as `review_id` over more than 40 different whole numbers. Texts: a different UUID, hash, or one and the
    same pattern with another number in nearly every row; a name such as `user_id` over more than 40 different words.

    Examples
    --------
    >>> names_rows(pd.Series(np.random.default_rng(0).permutation(100), name="x"))
    'it numbers the rows: a different whole number in every row, of only 100 possible ones'
    """
    if len(series) < 3 or isinstance(series.dtype, pd.CategoricalDtype) or _is_truth_or_time(series):
        return None
    known = reading or FileReading()
    if str(series.name) in known.dates.columns:
        return None
    values = numeric(series)
    if values is None:
        cells = without(texts(series), known.absent.get(str(series.name), ()))
        present = [cell for cell in cells if cell is not None]
        if not present:
            return None
        marks = known.number_marks(str(series.name))
        values = number_cells(series, cells, marks.decimal, known=known.numerals).values
        if looks_like_code(present) or np.isnan(values).sum() > len(cells) - len(present):
            return _words_name_rows(str(series.name), present)
    return _wide_numbers_name_rows(series, values) or _numbers_name_rows(str(series.name), values)


def determines(series: pd.Series, labels: np.ndarray, reading: FileReading) -> int | None:
    """Return how often the label changes along a column of whole numbers that differ in nearly every row.

    None for all other columns, and where the label changes often. Such a column may be an id that gives the label away:
    with one change fewer than there are classes, the label is read off it.

    Returns
    -------
    int | None
    """
    values = None if isinstance(series.dtype, pd.CategoricalDtype) else numeric(series)
    if values is None:
        values = number_cells(series, texts(series), known=reading.numerals).values
    n = len(values)
    if n < 2 * LEAST_ROWS or np.isnan(values).any() or (values != np.round(values)).any():
        return None
    if len(np.unique(values)) < NEARLY_ALL * n:
        return None
    codes, names = pd.factorize(
        pd.Series([str(label) for label in labels], dtype=object)[np.argsort(values, kind="stable")]
    )
    changes = int((np.diff(codes) != 0).sum())
    return changes if len(names) > 1 and changes < n / 10 and changes < 2 * len(names) else None


def _is_truth_or_time(series: pd.Series) -> bool:
    return (
        pd.api.types.is_bool_dtype(series.dtype)
        or pd.api.types.is_datetime64_any_dtype(series.dtype)
        or pd.api.types.is_timedelta64_dtype(series.dtype)
    )


def _wide_numbers_name_rows(series: pd.Series, values: np.ndarray) -> str | None:
    """Whole numbers beyond 2⁵³, told apart by how they are spelled: as numbers, neighbours are one."""
    if len(values) < LEAST_ROWS or (np.abs(values) >= _EXACT).mean() <= 0.5:
        return None
    cells = series.dropna().astype(str).str.strip()
    distinct = cells.nunique()
    if distinct < NEARLY_ALL * len(values) or cells.str.fullmatch(_WIDE).mean() <= 0.5:
        return None
    every = "every row" if distinct == len(values) else "nearly every row"
    return f"a different whole number beyond 2^53 in {every}: an identifier"


def _numbers_name_rows(name: str, values: np.ndarray) -> str | None:
    n = len(values)
    if n >= 3 and values[0] in (0.0, 1.0) and np.array_equal(values, np.arange(n) + values[0]):
        return NUMBERS_ROWS
    present = values[~np.isnan(values)]
    if len(present) < LEAST_ROWS or np.isinf(present).any() or len(present) < NEARLY_ALL * n:
        return None
    steps = np.diff(values)
    whole = bool((present == np.round(present)).all())
    if whole and (steps == 1).mean() >= 0.98 and len(np.unique(present)) >= 0.3 * n:
        return NUMBERS_ROWS
    if n >= EVEN_ROWS and steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        return f"{NUMBERS_ROWS}: the same step from each to the next"
    even = np.diff(np.sort(present))
    if n >= EVEN_ROWS and not whole and even[0] > 0 and np.allclose(even, even[0], rtol=1e-6, atol=0):
        return f"{NUMBERS_ROWS}: in another order, the same step from each to the next"
    one_way = bool((steps > 0).all() or (steps < 0).all())
    if whole and n >= EVEN_ROWS and one_way and abs(np.corrcoef(values, np.arange(n))[0, 1]) > _LINE:
        return f"{NUMBERS_ROWS}: whole numbers that rise or fall with them"
    return _whole_numbers_name_rows(name, present) if whole else None


def _whole_numbers_name_rows(name: str, present: np.ndarray) -> str | None:
    n, distinct = len(present), len(np.unique(present))
    words = _name_words(name)
    sure = _says_id(words)
    nearly = distinct >= NEARLY_ALL * n
    every = "every row" if distinct == n else "nearly every row"
    if nearly:
        low = present.min()
        step = float(np.gcd.reduce((present - low).astype(np.int64))) if np.ptp(present) < _EXACT else 1.0
        possible = np.ptp(present) / max(step, 1.0) + 1
        expected = n * (n - 1) / (2 * possible)
        if pdtr(n - distinct, expected) < _CHANCE:
            return (
                f"{NUMBERS_ROWS}: a different whole number in {every}, of only {possible:.0f} possible ones"
            )
        if sure or _COUNTED.fullmatch(" ".join(words)) or name.startswith("Unnamed:"):
            return f"its name, and a different whole number in {every}: an identifier"
    if sure and distinct > FEW_LEVELS:
        return f"its name, and {distinct} different whole numbers: an identifier"
    return None


def _words_name_rows(name: str, present: list[str]) -> str | None:
    n = len(present)
    counts = Counter(present)
    distinct = len(counts)
    if n >= LEAST_ROWS and distinct >= NEARLY_ALL * n:
        every = "every row" if distinct == n else "nearly every row"
        if sum(count for text, count in counts.items() if _HASH.fullmatch(text)) >= NEARLY_ALL * n:
            return f"a different word in {every}: an identifier"
        if all(len(text) <= 100 and any(c.isdigit() for c in text) for text in counts) and not _are_times(
            counts
        ):
            patterns = {_DIGITS.sub("0", text) for text in counts}
            if len(patterns) <= max(2, n / 50) and _one_number_names(counts, n):
                return f"one pattern with another number in {every}: an identifier"
    one_word = all(len(text.split()) == 1 for text in counts)
    if _says_id(_name_words(name)) and distinct > FEW_LEVELS and one_word:
        return f"its name, and {distinct} different words: an identifier"
    return None


def _one_number_names(counts: Counter[str], n: int) -> bool:
    """Tell whether one of the whole numbers in the texts differs in nearly every row; measures such as 12x40 do not."""
    if sum(_DECIMALS.search(text) is not None for text in counts) > len(counts) / 2:
        return False
    numbers = [_DIGITS.findall(text) for text in counts]
    width = min(map(len, numbers))
    return any(len({found[at] for found in numbers}) >= NEARLY_ALL * n for at in (*range(width), -1))


def _are_times(counts: Counter[str]) -> bool:
    """Tell whether texts consist of digits and marks alone, or hold a time of day."""
    return all(_CLOCK.search(text) or not any(c.isalpha() for c in text) for text in counts)


def _says_id(words: list[str]) -> bool:
    return bool(words) and (words[-1] in _SURE_NAMES or _ID_IN_ONE_WORD.fullmatch(words[-1]) is not None)


def _name_words(name: str) -> list[str]:
    return [word.casefold() for word in _WORDS_OF_NAME.findall(name)]
