"""Cells that are numbers to a person, but not a plain numeral: ranges, remarks, times, mixed units, fractions."""

import re

TIME = "a time"
BOUND, RANGE, REMARK, MARGIN, FRACTION = "a bound", "a range", "a remark", "a margin", "a fraction"
CLOCK = "h:mm"
"""Unit of times in two parts until the column tells hours and minutes from minutes and seconds."""

Found = tuple[str, str, str]
"""Plain spelling with a decimal point, unit, and what kind of cell it is."""

_TEXT_SIGNS = re.compile(r"""=?"(?P<quoted>[^"]*)"|'(?P<marked>[^']*)'?""")
_REMARK = re.compile(
    r"(?P<rest>.*?[^\s(])\s*(?:\*+|[†‡§¶#]+|\[[^\[\]]{1,12}\]|\([^()\d]*[^\W\d_][^()\d]*\))+"
)
RAISED = "¹²³⁴⁵⁶⁷⁸⁹"
_RAISED = re.compile(rf"(?P<rest>.*[.,]\d+|\d{{3,}})[{RAISED}]")
_BESIDE = re.compile(r"(?P<rest>[^()]*\d[^()]*?)\s+\([^()]*\d[^()]*\)")
_MARGIN = re.compile(r"(?P<rest>.*?\d)\s*(?:±|\+/-|\+-)\s*[\d.,]+\s*(?P<unit>\D*)")
_RANGE = re.compile(
    r"(?P<low>.*?\d.*?)\s*(?:-|~|\.\.+|…|\bto\b|\bbis\b|\buntil\b)\s*(?P<high>\D{0,4}\d.*)", re.IGNORECASE
)
_INTERVAL = re.compile(
    r"(?:\[|\((?=.*\]$))\s*(?P<low>[^\s,;()\[\]]*\d)\s*(?:[,;]\s*|\s-\s|(?<=\d)-)(?P<high>[^\s,;()\[\]]*\d)\s*[\])]"
)
_BEFORE = re.compile(
    r"(?:about|around|circa|approximately|roughly|over|under|above|below|more than|less than|up to|at least|at most|"
    r"min\.?|max\.?|etwa|rund|über|unter|mehr als|weniger als|bis zu|ab)\s+(?P<rest>[^\s\d]{0,4}\s?\d.*)",
    re.IGNORECASE,
)  # fmt: skip
_AFTER = re.compile(
    r"(?P<rest>.*\d.*?)(?:\+|\s*(?:or|and) (?:more|over|above|older|less|under|below|younger|up)"
    r"|\s*und (?:mehr|älter))",
    re.IGNORECASE,
)  # fmt: skip
_TIME_OF_DAY = re.compile(
    r"(?P<sign>-?)(?P<a>\d{1,3}):(?P<b>[0-5]\d)(?:(?::(?P<c>[0-5]\d)(?:[.,](?P<part>\d+))?)?|[.,](?P<split>\d{1,6}))"
    r"\s*(?P<half>[AaPp]\.?\s?[Mm]\.?|Uhr|hrs?)?"
)
_HOURS = re.compile(
    r"(?P<a>\d{1,3})(?:\s?[hH]\s?(?P<b>[0-5]\d)(?:\s?m(?:in)?)?|\.(?P<c>[0-5]\d)\s?Uhr|\s?Uhr)"
)
_ISO_DURATION = re.compile(
    r"(?P<sign>-?)P(?=\d|T\d)(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_DEGREES = re.compile(
    r"""(?P<a>\d{1,3})\s*°\s*(?P<b>[0-5]?\d)\s*['′]\s*(?:(?P<c>[0-5]?\d(?:\.\d+)?)\s*(?:"|″|''))?\s*(?P<side>[NSEW])?"""
)
_DAYS = re.compile(
    r"(?P<sign>-?)(?P<days>\d+) days?,? \+?(?P<a>\d{1,2}):(?P<b>[0-5]\d):(?P<c>[0-5]\d(?:\.\d+)?)"
)
_FEET = re.compile(r"""(?P<a>\d{1,2})\s*['′]\s*(?:(?P<b>\d{1,2}(?:\.\d+)?)\s*(?:"|″|''))?""")
_AMOUNTS = re.compile(r"(?:\d+(?:\.\d+)?\s*[^\W\d_]+\.?,?\s*(?:and\s+|und\s+)?){2,4}")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d_]+)")
_STEPS: tuple[dict[str, float], ...] = (
    {
        **dict.fromkeys(("d", "day", "days", "tage"), 24.0),
        **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "std"), 1.0),
        **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 1 / 60),
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1 / 3600),
    },
    {
        **dict.fromkeys(("ft", "foot", "feet"), 1.0),
        **dict.fromkeys(("in", "inch", "inches"), 1 / 12),
    },
    {**dict.fromkeys(("lb", "lbs"), 1.0), **dict.fromkeys(("oz",), 1 / 16)},
    {
        **dict.fromkeys(("y", "yr", "yrs", "year", "years"), 1.0),
        **dict.fromkeys(("m", "mo", "mos", "month", "months"), 1 / 12),
    },
)  # fmt: skip
_STEP_UNITS = ("h", "ft", "lb", "years")
_SIMPLE = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8",
    "⅞": "7/8",
}  # fmt: skip
_VULGAR = re.compile(rf"(?P<whole>\d*)\s*(?P<sign>[{''.join(_SIMPLE)}])(?P<after>\D*)")
_FRACTION = re.compile(r"(?:(?P<whole>\d+)[ -])?(?P<a>\d{1,2})/(?P<b>\d{1,2})(?P<after>[^\d/]*)")
_PARTS = frozenset({2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 64})
_WIDEST = 10
"""A range's upper end is at most this many times the lower one: 12-2021 is a month."""


def without_text_signs(cell: str) -> str:
    """Return a cell without the signs by which spreadsheets force text, and quotes: `'12`, `"12"`, `="12"` and `'12'`.

    Returns
    -------
    str

    Examples
    --------
    >>> without_text_signs("'12.5"), without_text_signs('="7"'), without_text_signs("'8'"), without_text_signs("5'")
    ('12.5', '7', '8', "5'")
    """
    match = _TEXT_SIGNS.fullmatch(cell)
    if match is None:
        return cell
    return (match["quoted"] if match["quoted"] is not None else match["marked"]).strip()


def measured(cell: str) -> Found | None:
    """Return a time, a sum of amounts in one kind of unit, or a fraction as one number; None for all else.

    Returns
    -------
    tuple of str | None

    Examples
    --------
    >>> measured("1 h 30 min"), measured("03:45 pm"), measured("1 3/4"), measured("5'6''")
    (('1.5', 'h', 'a time'), ('15.75', 'h:mm', 'a time'), ('1.75', '', 'a fraction'), ('5.5', 'ft', 'a time'))
    """
    return _time(cell) or _sum(cell) or _fraction(cell)


def loosened(cell: str) -> tuple[str, str] | None:
    """Return what is left of a cell without a remark, a margin of error or a word for a bound, and which it was.

    Returns
    -------
    tuple of str | None

    Examples
    --------
    >>> loosened("12.5 kg (net)"), loosened("about 70"), loosened("65 and over"), loosened("3.1 ± 0.2 mm")
    (('12.5 kg', 'a remark'), ('70', 'a bound'), ('65', 'a bound'), ('3.1 mm', 'a margin'))
    """
    for pattern, kind in (
        (_BEFORE, BOUND), (_AFTER, BOUND), (_REMARK, REMARK), (_BESIDE, REMARK), (_RAISED, REMARK),
    ):  # fmt: skip
        match = pattern.fullmatch(cell)
        if match:
            return match["rest"], kind
    match = _MARGIN.fullmatch(cell)
    return (f"{match['rest']} {match['unit']}".strip(), MARGIN) if match else None


def ends(cell: str) -> tuple[str, str] | None:
    """Return both ends of a range as they are written.

    Returns
    -------
    tuple of str | None

    Examples
    --------
    >>> ends("10-20 kg"), ends("$1,000 to $2,000"), ends("(0.5, 1.5]"), ends("12")
    (('10', '20 kg'), ('$1,000', '$2,000'), ('0.5', '1.5'), None)
    """
    match = _INTERVAL.fullmatch(cell) or _RANGE.fullmatch(cell)
    return (match["low"], match["high"]) if match else None


def middle(low: str | None, high: str | None) -> str | None:
    """Return the middle of a range, None if the ends do not make one: the upper end above the lower, not too far."""
    if low is None or high is None:
        return None
    a, b = float(low), float(high)
    return repr((a + b) / 2) if a < b and (a <= 1 or b <= _WIDEST * a) else None


def _time(cell: str) -> Found | None:
    days = _DAYS.fullmatch(cell)
    if days:
        hours = 24 * int(days["days"]) * (-1 if days["sign"] else 1)
        return repr(hours + int(days["a"]) + int(days["b"]) / 60 + float(days["c"]) / 3600), "h", TIME
    match = _TIME_OF_DAY.fullmatch(cell)
    if match is None:
        return _hours(cell)
    first, sign = int(match["a"]), -1 if match["sign"] else 1
    if match["half"] and match["half"][0] in "AaPp":
        if match["sign"] or not 1 <= first <= 12:
            return None
        first = first % 12 + (12 if match["half"][0] in "Pp" else 0)
    if match["split"]:
        value = first / 60 + float(f"{match['b']}.{match['split']}") / 3600
        return None if match["half"] else (repr(sign * value), "h", TIME)
    value = first + int(match["b"]) / 60
    if match["c"] is None:
        return repr(sign * value), CLOCK, TIME
    return repr(sign * (value + float(f"{match['c']}.{match['part'] or 0}") / 3600)), "h", TIME


def _hours(cell: str) -> Found | None:
    """Return times with a word for the hour (14h30, 14.30 Uhr), ISO durations, and degrees with minutes."""
    match = _HOURS.fullmatch(cell)
    if match:
        return repr(int(match["a"]) + int(match["b"] or match["c"] or 0) / 60), "h", TIME
    match = _ISO_DURATION.fullmatch(cell)
    if match:
        hours = 24 * int(match["d"] or 0) + int(match["h"] or 0) + int(match["m"] or 0) / 60
        return repr((-1 if match["sign"] else 1) * (hours + float(match["s"] or 0) / 3600)), "h", TIME
    match = _DEGREES.fullmatch(cell)
    if match:
        value = int(match["a"]) + int(match["b"]) / 60 + float(match["c"] or 0) / 3600
        return repr(value), f"°{match['side'] or ''}", TIME
    return None


def _sum(cell: str) -> Found | None:
    feet = _FEET.fullmatch(cell)
    if feet:
        return repr(int(feet["a"]) + float(feet["b"] or 0) / 12), "ft", TIME
    if not _AMOUNTS.fullmatch(cell):
        return None
    parts = [(float(number), unit.casefold()) for number, unit in _AMOUNT.findall(cell)]
    for steps, unit in zip(_STEPS, _STEP_UNITS, strict=True):
        sizes = [steps.get(name) for _, name in parts]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes) and known == sorted(set(known), reverse=True):
            return repr(sum(n * size for (n, _), size in zip(parts, known, strict=True))), unit, TIME
    return None


def _fraction(cell: str) -> Found | None:
    vulgar = _VULGAR.fullmatch(cell)
    if vulgar:
        cell = f"{vulgar['whole']} {_SIMPLE[vulgar['sign']]}{vulgar['after']}".strip()
    match = _FRACTION.fullmatch(cell)
    if match is None:
        return None
    a, b = int(match["a"]), int(match["b"])
    if b not in _PARTS or a > b or (match["whole"] and a == b) or _padded(match["a"]) or _padded(match["b"]):
        return None
    return repr(int(match["whole"] or 0) + a / b), match["after"].strip(), FRACTION


def _padded(digits: str) -> bool:
    return digits.startswith("0") and digits != "0"
