"""Cells as numbers, as texts, or as missing: the rules that every format shares."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd

MISSING_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nil", "?", "-"})
"""Words (case-folded, stripped) that stand for a missing feature."""

MISSING_TARGET_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null"})
"""Fewer words for the target: 'none' or '-' may well be a class."""

_PLAIN_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)?(\.\d*)?([eE][+-]?\d+)?")
_CODE = re.compile(r"[+-]?0\d")


def canonical(value: Any) -> Any:
    """Return what two spellings of one class have in common: `1`, `1.0`, `"1"` and `"1.0"` are one class.

    Texts with leading zeros stay texts (`"01"` is a code, not a number); booleans equal their names.

    Examples
    --------
    >>> canonical("1.0") == canonical(1), canonical("01") == canonical(1)
    (True, False)
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.number):
        return float(value)
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    if any(character.isdigit() for character in text) and _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    return text


def class_order(value: Any) -> tuple[bool, Any]:
    """Sort key of classes: numbers by value, then texts."""
    key = canonical(value)
    return isinstance(key, str), key


def texts(series: pd.Series, missing: frozenset[str] = MISSING_WORDS) -> np.ndarray:
    """Return the cells as an object array of stripped texts, None where missing."""
    cells = series.astype(object)
    try:
        codes, uniques = pd.factorize(cells)
    except TypeError:  # lists and dicts, as JSON lines and Parquet may hold
        codes, uniques = pd.factorize(cells.map(_as_json))
    cleaned = np.empty(len(uniques) + 1, dtype=object)
    cleaned[:-1] = [_text_or_none(value, missing) for value in uniques]
    cleaned[-1] = None
    return cleaned[codes]


def numbers(values: np.ndarray, decimal: str = ".") -> np.ndarray:
    """Return texts as float64, NaN where a text is missing or no number.

    Examples
    --------
    >>> numbers(np.array(["1.5", "x", None], dtype=object)).tolist()
    [1.5, nan, nan]
    """
    series = pd.Series(values, dtype=object)
    if decimal != ".":
        series = series.map(
            lambda text: text if text is None else text.replace(".", "").replace(decimal, ".")
        )
    return pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def looks_like_code(values: np.ndarray) -> bool:
    """Tell whether digits are used as a code (`"00501"`), not as a number."""
    return any(text is not None and _CODE.match(text) for text in values)


def _text_or_none(value: Any, missing: frozenset[str]) -> str | None:
    text = str(value).strip()
    return None if text.casefold() in missing else text


def _as_json(cell: Any) -> Any:
    if isinstance(cell, np.ndarray | set):
        cell = list(cell)
    return (
        json.dumps(cell, default=str, ensure_ascii=False) if isinstance(cell, list | dict | tuple) else cell
    )
