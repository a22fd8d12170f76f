"""Cells as numbers, as texts, or as missing: the rules that every format shares."""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

MISSING_WORDS = frozenset(
    {"", "na", "n/a", "n.a.", "n.a", "#n/a", "#na", "#n/a n/a", "nan", "-nan", "<na>", "nat", "null", "(null)",
     "#null!", "none", "nil", "blank", "(blank)", "undefined", "not available", "not applicable", "#value!",
     "#ref!", "#div/0!", "#num!", "#name?", "?", "??", "???", "-", "--", "---", "–", "—", ".", "..", "...", "…",
     "\\n", "<null>", "[null]", "#n/d", "#nv", "#bezug!", "#wert!", "1.#qnan", "1.#ind", "-1.#ind", "0000-00-00",
     "0000-00-00 00:00:00", "00.00.0000", "00/00/0000", "0001-01-01", "0001-01-01 00:00:00", "0001-01-01t00:00:00"}
)  # fmt: skip
"""Words (case-folded, stripped) that stand for a missing feature."""

MISSING_TARGET_WORDS = frozenset(
    {"", "na", "n/a", "n.a.", "#n/a", "#na", "nan", "-nan", "<na>", "nat", "null", "(null)", "#null!", "#value!",
     "#ref!", "#div/0!", "#num!", "#name?"}
)  # fmt: skip
"""Fewer words for the target: 'none' or '-' may well be a class."""

MAYBE_UNLABELLED = frozenset(
    {"?", "??", "???", "-", "--", ".", "unknown", "unk", "missing", "unlabeled", "unlabelled", "not labeled",
     "not labelled", "undefined", "not available", "unbekannt", "tbd", "todo", "-999", "-9999"}
)  # fmt: skip
"""Classes (case-folded) that may mean that nobody labelled the row."""

WORDS_FOR_NOTHING = frozenset(
    {"unknown", "unk", "not known", "missing", "not reported", "not measured", "not recorded", "not stated", "no data",
     "none given", "n.d.", "nd", "n/d", "s/d", "n/k", "nr", "tbd", "tba", "pending", "refused", "withheld", "redacted",
     "don't know", "k.a.", "k. a.", "keine angabe", "unbekannt", "fehlt", "entfällt", "inconnu", "non renseigné",
     "desconocido", "sin datos", "não informado", "sconosciuto", "onbekend", "okänd", "ukjent", "ukendt", "brak danych",
     "нет данных", "неизвестно", "不明", "未知", "<lod", "lod", "<loq", "loq", "bdl"}
)  # fmt: skip
"""Words (case-folded) that stand for no value in a column of numbers or dates, however many of them it holds."""

_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"))
_LOOK_ALIKE = str.maketrans(
    "аеорсухіјѕԁһкмнтвАЕОРСУХІЈЅКМНТВοανρτικΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhkmhtbAEOPCYXIJSKMHTBoavptikABEZHIKMNOPTYX",
)
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)(\.0)?")
_DECIMAL = re.compile(r"[+-]?(0|[1-9]\d*)\.\d*[1-9]")
_CODE = re.compile(r"[+-]?0\d(?!\d*(?::\d\d|[hH]\d\d|\.\d\d\s?Uhr))")
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_ADDRESS = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}(?::\d+|/\d+)?")
_PHONE = re.compile(r"\+\d[\d ()/-]{8,}")


def canonical(value: Any) -> Any:
    """Return what two spellings of one class have in common: `1`, `1.0`, `"1"` and `"1.0"` are one class.

    A text is a number only in its canonical spelling, so that no two classes become one by accident: `"01"`, `"3.10"`
    and `"1e3"` stay texts, and whole numbers of any length are exact. Booleans equal their names. Spaces around a text,
    signs without width and the two ways to write an accented letter make no difference.

    Returns
    -------
    Any

    Examples
    --------
    >>> canonical("1.0") == canonical(1), canonical("01") == canonical(1), canonical("3.10") == canonical("3.1")
    (True, False, False)
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return int(value) if float(value).is_integer() else float(value)
    text = str(value).strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()
    if text.isascii():
        if _WHOLE.fullmatch(text):
            return int(text.removesuffix(".0"))
        if _DECIMAL.fullmatch(text) and repr(float(text)) == text.lstrip("+"):
            return float(text)
    return text.lower() if text.lower() in ("true", "false") else text


def class_keys_of(values: Iterable[Any]) -> list[Any]:
    """Return the canonical value of every label, None where missing; a truth value never equals a number.

    Returns
    -------
    list[Any]

    Examples
    --------
    >>> class_keys_of([True, 1, "1.0"])
    ['true', 1, 1]
    """
    known: dict[tuple[type, Any], Any] = {}
    keys = []
    for value in values:
        spelling = (type(value), value)
        if spelling not in known:
            known[spelling] = None if value is None or value is pd.NA or value is pd.NaT else canonical(value)
        keys.append(known[spelling])
    return keys


def look(name: Any) -> str:
    """Return what a class looks like: without case, spaces, forms of letters and letters of other alphabets.

    Returns
    -------
    str

    Examples
    --------
    >>> look("Ｙes ") == look("yes"), look("sраm") == look("spam")
    (True, True)
    """
    return " ".join(unicodedata.normalize("NFKC", str(name)).translate(_LOOK_ALIKE).casefold().split())


def whole(text: str) -> str:
    r"""Return a text without halves of characters (lone surrogates), which no file can hold: `\ufffd` stands for them.

    Returns
    -------
    str

    Examples
    --------
    >>> whole("a\ud800b") == "a\ufffdb"
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def class_order(value: Any) -> tuple[bool, Any]:
    """Sort key of classes: numbers by value, then texts."""
    key = canonical(value)
    return isinstance(key, str), key


def texts(series: pd.Series, missing: frozenset[str] = MISSING_WORDS) -> np.ndarray:
    """Return the cells as an object array of stripped texts, None where missing."""
    cells = series.astype(object)
    gone = cells.isna().to_numpy()
    words = [
        None if no else cell if type(cell) is str else _as_word(cell)
        for no, cell in zip(gone, cells, strict=True)
    ]
    codes, uniques = pd.factorize(np.array(words, dtype=object))
    cleaned = np.empty(len(uniques) + 1, dtype=object)
    cleaned[:-1] = [_text_or_none(value, missing) for value in uniques]
    cleaned[-1] = None
    return cleaned[codes]


def plain_numbers(values: np.ndarray) -> np.ndarray:
    """Return plainly spelt texts as float64, NaN where a text is missing or no plain number.

    Returns
    -------
    np.ndarray

    Examples
    --------
    >>> plain_numbers(np.array(["1.5", "x", None], dtype=object)).tolist()
    [1.5, nan, nan]
    """
    series = pd.Series(values, dtype=object)
    return pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def looks_like_code(values: Iterable[str | None]) -> bool:
    """Tell whether digits are used as a code, not as a number or a time (`"03:45"`).

    Codes begin with a zero (`"00501"`); or all are telephone numbers (`"+49 30 123456"`) or internet addresses
    (`"192.168.100.254"`, no thousands).

    Returns
    -------
    bool
    """
    present = [text for text in values if text is not None]
    if any(map(_CODE.match, present)):
        return True
    return bool(present) and any(all(map(kind.fullmatch, present)) for kind in (_PHONE, _ADDRESS))


def _text_or_none(value: str, missing: frozenset[str]) -> str | None:
    text = value.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", whole(text.strip("\ufeff\u200b\u200e\u200f\u2060 ")))
    return None if text.casefold() in missing else text


def _as_word(cell: Any) -> str:
    """Return a cell as text: True is not 1, as it would be where equal values were taken as one."""
    if isinstance(cell, np.ndarray | set):
        cell = list(cell)
    if isinstance(cell, list | dict | tuple):
        return json.dumps(cell, default=str, ensure_ascii=False)
    return str(cell)
