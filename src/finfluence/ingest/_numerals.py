"""A cell taken apart as a number: sign, currency, digits with their marks, exponent, unit."""

import re
from dataclasses import dataclass, replace

from finfluence.ingest._loose import (
    BOUND,
    RAISED,
    RANGE,
    ends,
    loosened,
    measured,
    middle,
    without_text_signs,
)
from finfluence.ingest._units import CURRENCY, CURRENCY_SIGNS, canonical_unit, is_currency, of_money
from finfluence.ingest._values import looks_like_code

LONGEST = 48
"""Cells of more characters are texts."""

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("−﹣－–‒‐‑", "-"),
        **dict.fromkeys("\u00a0\u2009\u202f\u2007\u2006\u2005\u2004\u2008\u200a\t", " "),
        **dict.fromkeys("’‘ʼ´`＇", "'"),
        "，": ",",
        "．": ".",
        "％": "%",
        "٪": "%",
        "℃": "°C",
        "℉": "°F",
        "º": "°",
        "＋": "+",
        "（": "(",
        "）": ")",
        "\u200e": None,
        "\u200f": None,
    }
)
_BODY = r"(?:\d[\d.,' _٫٬]*|[.,٫]\d+)"
_NUMERAL = re.compile(
    r"(?P<bound>(?:[<>≤≥~≈]=?|ca\.?|approx\.?)\s*)?"
    rf"(?P<sign>[+-]?)\s*(?P<before>{CURRENCY}\.?|%)?\s*(?P<inner>[+-]?)\s*(?P<body>{_BODY})"
    r"(?P<exponent>(?:[eE][+-]?|[dD][+-])\d{1,3}(?!\w))?\s*(?P<after>.*)",
    re.DOTALL,
)
_TIMES_TEN = re.compile(r"[x×·*]\s*10\s*(?:\^|\*\*)?\s*(?P<power>[+-]?\d{1,3})")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_IN_PARENTHESES = re.compile(r"([^()\d]*)\(([^()+-]*\d[^()]*)\)([^()\d]*)")
_UNIT = re.compile(rf"(?:%|‰|°|[^\W\d_]|[/²³·. {CURRENCY_SIGNS}])+(?:(?<=[^\W\d_])[23])?")
_GROUPS = {mark: re.compile(rf"\d{{1,3}}(?:{re.escape(mark)}\d{{3}})+") for mark in ".,' _"}
_INDIAN_GROUPS = re.compile(r"\d{1,2}(?:,\d{2})*,\d{3}")
_NO_CENTS = frozenset({"-", "--", "+", ":-", "/-"})
"""Behind whole amounts: Swiss 12.-, German 12,--, Swedish 12:-, Indian 12/-."""
_RAISED_POINT = re.compile(r"(?<=\d)·(?=\d)(?!10(?:\D|$))")
_ORDINAL = {"1": "st", "2": "nd", "3": "rd"}
_TEXT_SIGNS = ("=", '"', "'")
_DAY_AND_MONTH = re.compile(r"\d{1,2}\.\d{1,2}\.")
_DIGIT = re.compile(r"[0-9]")
_NO_MARKS = str.maketrans("", "", ".,' _")
_INFINITE = frozenset({"inf", "infinity", "∞"})


@dataclass(frozen=True)
class Numeral:
    """What a cell can mean as a number.

    Attributes
    ----------
    point, comma
        Plain spelling (`-1234.5`) where a point (a comma) is the decimal mark; None where that does not fit.
    unit
        Unit or currency beside the digits, "" for none.
    loose
        What the cell is beside a number: "a bound" (`<0.5`, `~7`), "a range" (`10-20`, its middle), "a remark" (`12*`),
        "a margin" (`3 ± 1`), "a fraction", "a time" (`12:30`); "" for a plain number.
    grouped
        The mark between thousands where it is certain or possible, "" for none.
    whole_digits
        Number of digits of a plain whole number, 0 for all other cells.
    """

    point: str | None
    comma: str | None
    unit: str = ""
    loose: str = ""
    grouped: str = ""
    whole_digits: int = 0

    @property
    def decides(self) -> str:
        """The decimal mark that this cell proves: ".", "," or "" for neither."""
        if self.point == self.comma or (self.point is not None and self.comma is not None):
            return ""
        return "." if self.comma is None else ","

    @property
    def doubtful(self) -> bool:
        """Whether the cell is a number by both marks, but not the same one: `2.155`."""
        return self.point is not None and self.comma is not None and self.point != self.comma

    def plain(self, decimal: str) -> str | None:
        """Return the plain spelling: by the one mark that fits, else by `decimal`."""
        if self.doubtful:
            return self.comma if decimal == "," else self.point
        return self.point if self.point is not None else self.comma


def numeral(text: str) -> Numeral | None:
    """Take a cell apart; None if it is no number.

    Returns
    -------
    Numeral | None

    Examples
    --------
    >>> numeral("1.234,50 €").plain("."), numeral("(1,23,456)").plain("."), numeral("2.155").doubtful
    ('1234.50', '-123456', True)
    >>> numeral("10-20 kg").point, numeral("12:30").point, numeral("1.2.3") is None
    ('15.0', '12.5', True)
    """
    if len(text) > LONGEST:
        return None
    cell = text
    if not text.isascii():
        cell = _RAISED_POINT.sub(".", _ascii_digits(text.translate(_PLAIN)).strip())
    if cell[:1] in _TEXT_SIGNS:
        cell = without_text_signs(cell)
        if looks_like_code([cell]):
            return None
    measure = measured(cell)
    if measure is not None:
        return Numeral(measure[0], measure[0], canonical_unit(measure[1]), measure[2])
    if not _DIGIT.search(cell):
        bare = cell.casefold().lstrip("+-")
        spelt = f"{'-' if cell.startswith('-') else ''}inf"
        return Numeral(spelt, spelt) if bare in _INFINITE else None
    if cell[-1] in RAISED:
        return _loose_numeral(cell) or _plain_numeral(cell)
    plain = _plain_numeral(cell)
    if plain is not None and " " not in plain.unit:
        return plain
    return _loose_numeral(cell) or plain


def _plain_numeral(cell: str) -> Numeral | None:
    negative = False
    if "(" in cell:
        accounting = _IN_PARENTHESES.fullmatch(cell)
        if accounting is None:
            return None
        cell, negative = "".join(accounting.groups()).strip(), True
    match = _NUMERAL.fullmatch(cell)
    if match is None:
        return None
    return _of_match(match, negative)


def _loose_numeral(cell: str) -> Numeral | None:
    """Read a range by its middle, and a cell with a remark, a margin or a word for a bound without it."""
    both = ends(cell)
    between = None if both is None else _middle(*both)
    if between is not None:
        return between
    rest = loosened(cell)
    if rest is None or looks_like_code([rest[0]]):
        return None
    found = _plain_numeral(rest[0].strip())
    return None if found is None else replace(found, loose=rest[1], whole_digits=0)


def _middle(low: str, high: str) -> Numeral | None:
    if looks_like_code([low, high]):
        return None
    a, b = _plain_numeral(low.strip()), _plain_numeral(high.strip())
    if a is None or b is None or (a.unit and b.unit and a.unit != b.unit):
        return None
    point, comma = middle(a.point, b.point), middle(a.comma, b.comma)
    return None if point is None and comma is None else Numeral(point, comma, a.unit or b.unit, RANGE)


def _of_match(match: re.Match[str], negative: bool) -> Numeral | None:
    body, after = match["body"].rstrip(" _'"), match["after"].strip()
    exponent = int(match["exponent"][1:]) if match["exponent"] else 0
    signs = match["sign"] + match["inner"]
    if after in _NO_CENTS and (body[-1] in ".," or after[0] in ":/"):
        body, after = body.rstrip(".,"), ""
    elif after[:1] in ("-", "+") and after:
        signs, after = signs + after[0], after[1:].strip()
    if len(signs) + negative > 1:
        return None
    open_ended = signs == "+" and not match["sign"] and not match["inner"]
    if _DAY_AND_MONTH.fullmatch(body):
        return None
    body = body.rstrip(".,")
    negative |= signs == "-"
    times = _TIMES_TEN.fullmatch(after.translate(_SUPERSCRIPTS)) if after else None
    if times:
        exponent, after = exponent + int(times["power"]), ""
    before = canonical_unit(match["before"] or "")
    unit = canonical_unit(after)
    if after and not _UNIT.fullmatch(after.removesuffix("^2").removesuffix("^3")):
        return None
    power, money = of_money(unit, before)
    if power:
        exponent, unit = exponent + power, "" if before else money
    elif body.isdigit() and match["after"] == unit == _ordinal(body):
        unit = ""
    if before and is_currency(unit):
        unit = "" if before == unit else unit
    shown = "-" if negative else ""
    tail = f"e{exponent}" if exponent else ""
    point, comma = (_spelt(body, mark) for mark in ".,")
    if point is None and comma is None:
        return None
    groups = next((mark for mark in "' _" if mark in body), "")
    if not groups and point != comma:
        groups = (
            "," if "," in body and point is not None else "." if "." in body and comma is not None else ""
        )
    return Numeral(
        None if point is None else f"{shown}{point}{tail}",
        None if comma is None else f"{shown}{comma}{tail}",
        before + unit,
        BOUND if match["bound"] or open_ended else "",
        groups,
        len(body) if body.isdigit() and not exponent else 0,
    )


def _spelt(body: str, decimal: str) -> str | None:
    """Return digits with a decimal point, or None if `decimal` cannot be the mark."""
    if "٫" in body or "٬" in body:
        body = body.replace("٬", ",").replace("٫", ".")
        if decimal == ",":
            return None
    whole, mark, fraction = body.partition(decimal)
    if fraction and not fraction.isdigit():
        return None
    if whole and not whole.isdigit():
        if not _grouped(whole):
            return None
        whole = whole.translate(_NO_MARKS)
    if not whole and not fraction:
        return None
    return f"{whole}{'.' if mark else ''}{fraction}"


def _grouped(whole: str) -> bool:
    if whole.startswith("0") or not whole[-4:-3]:
        return False
    separator = whole[-4]
    groups = _GROUPS.get(separator)
    if groups is not None and groups.fullmatch(whole):
        return True
    return separator == "," and bool(_INDIAN_GROUPS.fullmatch(whole))


class Numerals(dict[str, Numeral | None]):
    """Cells taken apart once: `numerals[text]` is `numeral(text)`, kept for up to 300,000 different texts.

    Examples
    --------
    >>> Numerals()["1,5"].plain(",")
    '1.5'
    """

    most = 300_000

    def __missing__(self, text: str) -> Numeral | None:
        found = numeral(text)
        if len(self) < self.most:
            self[text] = found
        return found


def _ordinal(digits: str) -> str:
    return "th" if digits[-2:] in ("11", "12", "13") else _ORDINAL.get(digits[-1], "th")


def _ascii_digits(text: str) -> str:
    return "".join(
        str(int(character)) if character.isdecimal() and not character.isascii() else character
        for character in text
    )
