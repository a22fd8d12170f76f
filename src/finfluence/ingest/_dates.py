"""Dates as people write them: the order of day and month is decided for a column by all of its cells."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from finfluence.ingest._date_spellings import MONTHS, rewritten
from finfluence.ingest._digit_dates import (
    ENOUGH,
    FIRST_OF_LAST,
    counts_543_ahead,
    digit_orders,
    first_of_last,
    parted,
    without_543,
)
from finfluence.ingest._messages import counted

MOSTLY = 0.9
LONGEST = 80
ORDERS = ("dmy", "mdy", "ymd")
_WITH_SHORT_YEAR = 6
_EXAMPLE = {
    (8, "dmy"): "15032021", (8, "mdy"): "03152021", (6, "dmy"): "150321", (6, "mdy"): "031521", (6, "ymd"): "210315",
}  # fmt: skip
_WORDS = {"dmy": "day first", "mdy": "month first", "ymd": "year first"}
_TIME = (
    r"(?:[T\s,]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?P<zone>[+-]\d{2}(?::?\d{2})?|[A-Z]{1,5})?)?"
)
_ZONES = {
    "Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EET": 2,
    "EEST": 3, "MSK": 3, "IST": 5.5, "HKT": 8, "SGT": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12,
    "NZDT": 13, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
}  # fmt: skip
"""Names of time zones that are written behind a time -> hours ahead of UTC."""
_COMPACT = re.compile(r"(?P<a>(?:19|20)\d{2})(?P<b>\d{2})(?P<c>\d{2})(?:\.0)?" + _TIME)
_DAY_AND_MONTH = re.compile(r"(?P<a>\d{1,2})\.\s?(?P<b>\d{1,2})\." + _TIME)
_LEAP_YEAR = 2000
_SERIAL = re.compile(r"[1-7]\d{4}(?:\.\d+)?")
_DAY_ZERO = datetime(1899, 12, 30)
_YEAR_FIRST = re.compile(r"(?P<a>\d{4})(?P<mark>[-/. _:])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{1,2})" + _TIME)
_YEAR_LAST = re.compile(r"(?P<a>\d{1,2})(?P<mark>[-/. ])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{4}|\d{2})" + _TIME)
_DAY_NAMED = re.compile(
    r"(?:[^\W\d]+,?\s+)?(?P<a>\d{1,2})(?:st|nd|rd|th|\.)?[\s/-]*(?P<name>[^\W\d]+)\.?[\s,/-]*(?P<c>\d{4}|\d{2})"
    + _TIME
)
_MONTH_NAMED = re.compile(
    r"(?:[^\W\d]+,\s+)?(?P<name>[^\W\d]+)\.?[\s-]*(?P<a>\d{1,2})(?:st|nd|rd|th)?,?[\s-]+(?P<c>\d{4})" + _TIME
)


@dataclass(frozen=True)
class _Cell:
    """A date whose order may be open: numbers in their order, which orders fit, the time of day, and its zone.

    `zoned` tells whether the time has a zone; None without a time.
    """

    numbers: tuple[int, int, int]
    orders: tuple[str, ...]
    mark: str
    time: timedelta
    zoned: bool | None = None

    def moment(self, order: str, century: int) -> datetime:
        return _moment(self.numbers, self.chosen(order), century) + self.time

    def chosen(self, order: str) -> str:
        return order if order in self.orders else self.orders[0]

    def short_year(self, order: str) -> int | None:
        year = self.numbers[self.chosen(order).index("y")]
        return year if year < 100 else None


@dataclass(frozen=True)
class DateEvidence:
    """How many cells of a column have an order to be told, how many of them several orders fit, and each order.

    `serials` counts cells such as 44262 among the dates: days since 1899-12-30, as spreadsheets keep them. `digits` is
    the length of dates without separators, 0 for all others, and `likely` the likeliest of their orders. `thai` tells
    whether years are those of the Buddhist calendar. `years` holds the years of two digits that each order would give.
    `zoned` and `local` count times of day with a zone and without.
    """

    ordered: int = 0
    open: int = 0
    fits: Mapping[str, int] = field(default_factory=dict)
    mark: str = ""
    serials: int = 0
    digits: int = 0
    likely: str = ""
    thai: bool = False
    years: Mapping[str, frozenset[int]] = field(default_factory=dict)
    zoned: int = 0
    local: int = 0

    @property
    def best(self) -> list[str]:
        """The orders that fit the most cells."""
        most = max(self.fits.values(), default=0)
        return [order for order in ORDERS if most and self.fits.get(order, 0) == most]

    @property
    def order(self) -> str:
        """The order that fits more cells than all others; "" where none does."""
        return self.best[0] if len(self.best) == 1 else ""


@dataclass(frozen=True)
class DateReader:
    """How the dates of a column are read.

    Attributes
    ----------
    order
        "dmy", "mdy" or "ymd", for cells that several orders fit.
    words
        The same for a reader, "" where no cell is open.
    note
        What a reader must know; "" for nothing.
    doubtful
        Whether neither the column nor its file decides the order.
    serials
        Whether numbers of days, as spreadsheets keep them, stand among the dates.
    digits, thai
        As of `DateEvidence`.
    century
        Years of two digits from here on are those of the last century.
    zoned, local
        As of `DateEvidence`.
    """

    order: str = "mdy"
    words: str = ""
    note: str = ""
    doubtful: bool = False
    serials: bool = False
    digits: int = 0
    thai: bool = False
    century: int = FIRST_OF_LAST
    zoned: int = 0
    local: int = 0

    def read(self, cells: np.ndarray) -> pd.Series:
        """Return texts (None where missing) as datetimes without zone (in UTC), NaT where unreadable."""
        codes, uniques = pd.factorize(pd.Series(cells, dtype=object))
        moments = np.full(len(uniques) + 1, np.datetime64("NaT"), dtype="datetime64[us]")
        for at, text in enumerate(uniques):
            found = _cell(_spelt(text, self.digits, self.thai))
            if found is not None:
                moments[at] = np.datetime64(found.moment(self.order, self.century), "us")
            elif self.serials and _SERIAL.fullmatch(text):
                moments[at] = np.datetime64(_DAY_ZERO + timedelta(days=float(text)), "us")
        return pd.Series(moments[codes])


@dataclass(frozen=True)
class FileDates:
    """The evidence of every column of one file."""

    columns: Mapping[str, DateEvidence] = field(default_factory=dict)

    def of(self, name: str, other: str = "", comma: bool = False) -> DateReader | None:
        """Decide how a column is read: by its own cells, the file's other dates, the other file, then by custom.

        Parameters
        ----------
        name
            The column; None is returned if it holds no dates.
        other
            The order in the other file (hold-out for training, training for hold-out), of dates that are as long
            without separators as these; "" for none.
        comma
            Whether the file writes decimal commas, as countries do that put the day first.

        Returns
        -------
        DateReader | None
        """
        own = self.columns.get(name)
        if own is None:
            return None
        reader = self._reader(own, name, other, comma)
        notes = [reader.note] if reader.note else []
        if own.digits:
            notes.append(f"dates without separators, {_EXAMPLE[own.digits, reader.order]} for 15 March 2021")
        if own.thai:
            notes.append("years such as 2564 are those of the Buddhist calendar: read 543 years earlier")
        century = first_of_last(own.years.get(reader.order, frozenset()))
        if century != FIRST_OF_LAST:
            notes.append(
                f"years of two digits from {century:02d} on are read as 19{century:02d} and later, as they follow "
                "each other"
            )
        if own.serials:
            notes.append(
                f"{counted(own.serials, 'cell')} among the dates with a number such as 44262: read as days since "
                "1899-12-30, as spreadsheets keep dates"
            )
        if own.zoned and own.local:
            notes.append(f"{own.local} times carry no zone, {own.zoned} others do: taken to be in UTC")
        return replace(
            reader,
            zoned=own.zoned,
            local=own.local,
            serials=own.serials > 0,
            digits=own.digits,
            thai=own.thai,
            century=century,
            note="; ".join(notes),
        )

    def _reader(self, own: DateEvidence, name: str, other: str, comma: bool) -> DateReader:
        if own.order:
            odd = own.ordered - own.fits[own.order]
            others = f"another order than {_WORDS[own.order]}, as all others"
            note = f"{counted(odd, 'date', 'has have')} {others}: each was read by its own"
            return DateReader(own.order, _WORDS[own.order], note if odd else "")
        if not own.open:
            return DateReader()
        if own.digits == _WITH_SHORT_YEAR:
            order = other if other in own.best else own.likely
            return DateReader(order, _WORDS[order])
        voted = self._voted(name)
        for order, by in (
            (voted, "by the other dates of the file"),
            (other, "as in the other file"),
            ("dmy" if comma else "", "as the file writes decimal commas"),
        ):
            if order in own.best:
                return DateReader(
                    order,
                    _WORDS[order],
                    f"{counted(own.open, 'date', 'is are')} open: read {_WORDS[order]}, {by}",
                )
        custom = ("dmy", "mdy", "ymd") if own.mark == "." else ("mdy", "dmy", "ymd")
        order = next(order for order in custom if order in own.best)
        example = {".": "01.02.2020"}.get(own.mark, f"01{own.mark}02{own.mark}2020")
        note = (
            f"{counted(own.open, 'date')} such as {example} could have the day or the month first, and nothing in the "
            f"file decides: read {_WORDS[order]}, by custom"
        )
        return DateReader(order, _WORDS[order], note, doubtful=True)

    def _voted(self, name: str) -> str:
        votes = Counter(
            evidence.order
            for column, evidence in self.columns.items()
            if column != name and evidence.order in ("dmy", "mdy")
        )
        return "" if votes["dmy"] == votes["mdy"] else max(votes, key=lambda order: votes[order])


def date_evidence(cells: np.ndarray) -> DateEvidence | None:
    """Return for which orders the cells speak; None where fewer than nine tenths are dates."""
    counts = Counter(cell for cell in cells if cell is not None)
    total = counts.total()
    if sum(count for cell, count in counts.items() if _may_be_date(cell)) < max(1, MOSTLY * total):
        return None
    fits: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    dates = opened = serials = 0
    zones: Counter[bool | None] = Counter()
    thai = counts_543_ahead(counts)
    cells_read = []
    for text, count in counts.items():
        found = _cell(_spelt(text, 0, thai))
        if found is None:
            serials += count * (_SERIAL.fullmatch(text) is not None)
            continue
        dates += count
        zones[found.zoned] += count
        cells_read.append(found)
        if found.mark:
            opened += count * (len(found.orders) > 1)
            marks[found.mark] += count
            fits.update(dict.fromkeys(found.orders, count))
    if serials > dates or dates + serials < MOSTLY * total:
        return None
    mark = max(marks, key=lambda mark: (marks[mark], mark), default="")
    return DateEvidence(
        sum(marks.values()), opened, dict(fits), mark, serials, thai=thai, years=_short_years(cells_read),
        zoned=zones[True], local=zones[False],
    )  # fmt: skip


def evidence_of_digits(cells: np.ndarray) -> DateEvidence | None:
    """Return the evidence of dates such as 20210304, 20210304143000, 04032021 or 210304; None where cells are others.

    All cells have to be dates, and enough of them differ that this is no chance.

    Returns
    -------
    DateEvidence | None
    """
    counts = Counter(cell for cell in cells if cell is not None)
    if len(counts) < ENOUGH:
        return None
    thai = counts_543_ahead(counts)
    plain = {_spelt(text, 0, thai): count for text, count in counts.items()}
    if all(_COMPACT.fullmatch(rewritten(text)) and _cell(text) is not None for text in plain):
        return DateEvidence(thai=thai)
    digits, orders = digit_orders(counts)
    if not digits:
        return None
    total = counts.total()
    thai = counts_543_ahead(Counter({parted(text, digits): count for text, count in counts.items()}))
    opened = total if len(orders) > 1 else 0
    years = _short_years([found for text in counts if (found := _cell(parted(text, digits))) is not None])
    return DateEvidence(total, opened, dict.fromkeys(orders, total), "", 0, digits, orders[0], thai, years)


def _short_years(cells: list[_Cell]) -> dict[str, frozenset[int]]:
    """Return the years of two digits that dates have in each order."""
    found = {order: {cell.short_year(order) for cell in cells} for order in ORDERS}
    return {order: frozenset(year for year in years if year is not None) for order, years in found.items()}


def are_dates(texts: Iterable[str]) -> list[bool]:
    """Return for each text whether alone it could be read as a date."""
    return [_cell(text) is not None for text in texts]


def _spelt(text: str, digits: int, thai: bool) -> str:
    """Return a date with its separators and a Gregorian year."""
    text = parted(text, digits) if digits else text
    return without_543(text) if thai else text


def _may_be_date(text: str) -> bool:
    return len(text) <= LONGEST and any(character.isdigit() for character in text)


def _cell(text: str) -> _Cell | None:
    if not _may_be_date(text):
        return None
    text = rewritten(text)
    match = _YEAR_FIRST.fullmatch(text)
    if match:
        numbers = (int(match["a"]), int(match["b"]), int(match["c"]))
        orders = [order for order in ("ymd", "ydm") if numbers[0] > 99 and _fits(numbers, order)]
        return _of(numbers, orders[:1], "", match)
    match = _YEAR_LAST.fullmatch(text)
    if match:
        numbers = (int(match["a"]), int(match["b"]), int(match["c"]))
        candidates = ORDERS if len(match["c"]) == 2 else ORDERS[:2]
        orders = [order for order in candidates if _fits(numbers, order)]
        if len(orders) > 1 and len({_moment(numbers, order) for order in orders}) == 1:
            return _of(numbers, orders[:1], "", match)
        return _of(numbers, orders, match["mark"], match)
    match = _COMPACT.fullmatch(text)
    if match:
        numbers = (int(match["a"]), int(match["b"]), int(match["c"]))
        return _of(numbers, ["ymd"] if _fits(numbers, "ymd") else [], "", match)
    match = _DAY_AND_MONTH.fullmatch(text)
    if match:
        numbers = (int(match["a"]), int(match["b"]), _LEAP_YEAR)
        return _of(numbers, ["dmy"] if _fits(numbers, "dmy") else [], "", match)
    for pattern in (_DAY_NAMED, _MONTH_NAMED):
        match = pattern.fullmatch(text)
        if match and match["name"].casefold() in MONTHS:
            numbers = (int(match["a"]), MONTHS[match["name"].casefold()], int(match["c"]))
            return _of(numbers, ["dmy"] if _fits(numbers, "dmy") else [], "", match)
    return None


def _of(numbers: tuple[int, int, int], orders: list[str], mark: str, match: re.Match[str]) -> _Cell | None:
    time = _time(match)
    zoned = None if match["hour"] is None else match["zone"] is not None
    return None if not orders or time is None else _Cell(numbers, tuple(orders), mark, time, zoned)


def _fits(numbers: tuple[int, int, int], order: str) -> bool:
    try:
        _moment(numbers, order)
    except ValueError:
        return False
    return True


def _moment(numbers: tuple[int, int, int], order: str, century: int = FIRST_OF_LAST) -> datetime:
    parts = dict(zip(order, numbers, strict=True))
    year = parts["y"]
    if year < 100:
        year += 2000 if year < century else 1900
    return datetime(year, parts["m"], parts["d"])


def _time(match: re.Match[str]) -> timedelta | None:
    if match["hour"] is None:
        return timedelta()
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match["half"][0] in "Pp" else 0)
    if (hour > 23 and (hour, minute, second) != (24, 0, 0)) or minute > 59 or second > 59:
        return None
    part = int((match["part"] or "0").ljust(6, "0")[:6])
    time = timedelta(hours=hour, minutes=minute, seconds=second, microseconds=part)
    zone = match["zone"]
    if zone and zone[0] not in "+-":
        if zone not in _ZONES:
            return None
        time -= timedelta(hours=_ZONES[zone])
    elif zone:
        ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].lstrip(":") or 0))
        time += -ahead if zone[0] == "+" else ahead
    return time
