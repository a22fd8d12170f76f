"""Dates without separators (210315, 15032021) and years of the Buddhist calendar, by all cells of a column."""

import re
from collections import Counter
from collections.abc import Collection
from datetime import date

ENOUGH = 10
"""Different cells from which on it is no chance that all of them could be dates."""
_MONTHS, _DAYS = 3, 5
"""Different months, and days of a month, from which on six digits are no numbers that count on."""
AHEAD = 543
FIRST_OF_LAST = 69
"""Years of two digits from here on are those of the last century where a column does not tell otherwise."""
_THIS_CENTURY = 30
_FIRST_THAI = 2443
_MOSTLY = 0.9
_YEAR_MONTH = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])")
_DIGITS = re.compile(r"(\d{5,8})(?:\.0)?")
_THAI_YEAR = re.compile(r"(?<!\d)2(?:4[4-9]|5\d|6[0-3])\d(?=(?:\d{4})?(?!\d))")
_ORDERS = {6: ("ymd", "dmy", "mdy"), 8: ("dmy", "mdy")}


def parted(text: str, digits: int) -> str:
    """Return a date of so many digits with hyphens; zeros that a number lost in front are put back.

    Returns
    -------
    str

    Examples
    --------
    >>> parted("70315", 6), parted("5032021.0", 8), parted("2021-03-05", 8)
    ('07-03-15', '05-03-2021', '2021-03-05')
    """
    match = _DIGITS.fullmatch(text)
    if match is None or not digits - 1 <= len(match[1]) <= digits:
        return text
    whole = match[1].zfill(digits)
    return f"{whole[:2]}-{whole[2:4]}-{whole[4:]}"


def digit_orders(counts: Counter[str]) -> tuple[int, tuple[str, ...]]:
    """Return how many digits the dates of a column have, and in which orders all cells are dates, the likeliest first.

    Of several orders that one is likelier by which more different days occur: dates lie in few years, on any day. Six
    digits have to fall in three months and on five days of a month or more; years with months (200812) are numbers.

    Parameters
    ----------
    counts
        Cells of a column, and how often each occurs.

    Returns
    -------
    tuple
        6 (with a year of two digits) or 8, and of "dmy", "mdy" and "ymd" those that fit; (0, ()) for no dates.

    Examples
    --------
    >>> digit_orders(Counter(f"21{m:02d}{d}" for m in range(1, 13) for d in (10, 29 - m)))
    (6, ('ymd',))
    >>> digit_orders(Counter(f"{d}032021" for d in range(1, 32)))
    (8, ('dmy',))
    """
    if len(counts) < ENOUGH:
        return 0, ()
    matches = [_DIGITS.fullmatch(text) for text in counts]
    lengths = {len(match[1]) for match in matches if match is not None}
    digits = 6 if lengths <= {5, 6} else 8
    if None in matches or not lengths <= {digits - 1, digits}:
        return 0, ()
    if all(_YEAR_MONTH.fullmatch(text) for text in counts):
        return 0, ()
    cells = [tuple(map(int, parted(text, digits).split("-"))) for text in counts]
    days: dict[str, int] = {}
    for order in _ORDERS[digits]:
        found = [_day(dict(zip(order, cell, strict=True))) for cell in cells]
        if None in found:
            continue
        months, different = ({getattr(day, part) for day in found} for part in ("month", "day"))
        if digits == 8 or (len(months) >= _MONTHS and len(different) >= _DAYS):
            days[order] = len(different)
    return (digits, tuple(sorted(days, key=lambda order: -days[order]))) if days else (0, ())


def counts_543_ahead(counts: Counter[str]) -> bool:
    """Tell whether nearly all cells have a year such as 2564: the Buddhist calendar's, 543 ahead.

    Returns
    -------
    bool

    Examples
    --------
    >>> counts_543_ahead(Counter(["15/03/2564", "25640316"])), counts_543_ahead(Counter(["15/03/2021"]))
    (True, False)
    """
    thai = sum(count for text, count in counts.items() if _THAI_YEAR.search(text))
    return thai > 0 and thai >= _MOSTLY * counts.total()


def without_543(text: str) -> str:
    """Return a date with its Buddhist year as a Gregorian one.

    Returns
    -------
    str

    Examples
    --------
    >>> without_543("29/2/2563"), without_543("25640315"), without_543("15/03/2021")
    ('29/2/2020', '20210315', '15/03/2021')
    """
    return _THAI_YEAR.sub(lambda match: str(int(match[0]) - AHEAD), text, count=1)


def first_of_last(years: Collection[int]) -> int:
    """Return from which year of two digits on a column's years are those of the last century.

    Years follow each other with gaps; across the largest gap there is none before. Dates of birth from 45 to 99 are of
    one century, and from 45 to 05 of two.

    Returns
    -------
    int

    Examples
    --------
    >>> first_of_last([45, 52, 71, 88, 99, 3]), first_of_last([52, 60, 66]), first_of_last([19, 20, 23])
    (45, 52, 69)
    """
    known = sorted(set(years))
    if not known:
        return FIRST_OF_LAST
    gaps = [(after - before) % 100 for before, after in zip([known[-1], *known[:-1]], known, strict=True)]
    first = known[gaps.index(max(gaps))] if len(known) > 1 else known[0]
    return first if _THIS_CENTURY < first < FIRST_OF_LAST else FIRST_OF_LAST


def _day(parts: dict[str, int]) -> date | None:
    year = parts["y"]
    if year < 100:
        year += 2000
    elif year >= _FIRST_THAI:
        year -= AHEAD
    if not 1900 <= year < 2100:
        return None
    try:
        return date(year, parts["m"], parts["d"])
    except ValueError:
        return None
