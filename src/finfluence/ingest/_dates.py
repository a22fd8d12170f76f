"""Dates as people write them: the order of day and month is decided for a column by all of its cells."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from finfluence.ingest._date_spellings import MONTHS, rewritten
from finfluence.ingest._messages import counted

MOSTLY = 0.9
_ENOUGH = 10
LONGEST = 80
ORDERS = ("dmy", "mdy", "ymd")
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
_YEAR_FIRST = re.compile(r"(?P<a>\d{4})(?P<mark>[-/. ])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{1,2})" + _TIME)
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
    """A date whose order may be open: numbers in their order, which orders fit, and the time of day."""

    numbers: tuple[int, int, int]
    orders: tuple[str, ...]
    mark: str
    time: timedelta

    def moment(self, order: str) -> datetime:
        chosen = order if order in self.orders else self.orders[0]
        return _moment(self.numbers, chosen) + self.time


@dataclass(frozen=True)
class DateEvidence:
    """How many cells of a column have an order to be told, how many of them several orders fit, and each order.

    `serials` counts cells such as 44262 among the dates: days since 1899-12-30, as spreadsheets keep them.
    """

    ordered: int = 0
    open: int = 0
    fits: Mapping[str, int] = field(default_factory=dict)
    mark: str = ""
    serials: int = 0

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
    """

    order: str = "mdy"
    words: str = ""
    note: str = ""
    doubtful: bool = False
    serials: bool = False

    def read(self, cells: np.ndarray) -> pd.Series:
        """Return texts (None where missing) as datetimes without zone (in UTC), NaT where unreadable."""
        codes, uniques = pd.factorize(pd.Series(cells, dtype=object))
        moments = np.full(len(uniques) + 1, np.datetime64("NaT"), dtype="datetime64[us]")
        for at, text in enumerate(uniques):
            found = _cell(text)
            if found is not None:
                moments[at] = np.datetime64(found.moment(self.order), "us")
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
            The order in the other file (hold-out for training, training for hold-out), "" for none.
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
        if not own.serials:
            return reader
        note = (
            f"{counted(own.serials, 'cell')} among the dates with a number such as 44262: read as days since "
            "1899-12-30, as spreadsheets keep dates"
        )
        return replace(reader, serials=True, note="; ".join(filter(None, (reader.note, note))))

    def _reader(self, own: DateEvidence, name: str, other: str, comma: bool) -> DateReader:
        if own.order:
            odd = own.ordered - own.fits[own.order]
            others = f"another order than {_WORDS[own.order]}, as all others"
            note = f"{counted(odd, 'date', 'has have')} {others}: each was read by its own"
            return DateReader(own.order, _WORDS[own.order], note if odd else "")
        if not own.open:
            return DateReader()
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
    for text, count in counts.items():
        found = _cell(text)
        if found is None:
            serials += count * (_SERIAL.fullmatch(text) is not None)
            continue
        dates += count
        if found.mark:
            opened += count * (len(found.orders) > 1)
            marks[found.mark] += count
            fits.update(dict.fromkeys(found.orders, count))
    if serials > dates or dates + serials < MOSTLY * total:
        return None
    mark = max(marks, key=lambda mark: (marks[mark], mark), default="")
    return DateEvidence(sum(marks.values()), opened, dict(fits), mark, serials)


def compact_dates(cells: np.ndarray) -> bool:
    """Tell whether all cells are dates such as 20210304 or 20210304143000, enough of them that this is no chance."""
    counts = Counter(cell for cell in cells if cell is not None)
    if len(counts) < _ENOUGH or not all(_COMPACT.fullmatch(rewritten(text)) for text in counts):
        return False
    return all(_cell(text) is not None for text in counts)


def are_dates(texts: Iterable[str]) -> list[bool]:
    """Return for each text whether alone it could be read as a date."""
    return [_cell(text) is not None for text in texts]


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
    return None if not orders or time is None else _Cell(numbers, tuple(orders), mark, time)


def _fits(numbers: tuple[int, int, int], order: str) -> bool:
    try:
        _moment(numbers, order)
    except ValueError:
        return False
    return True


def _moment(numbers: tuple[int, int, int], order: str) -> datetime:
    parts = dict(zip(order, numbers, strict=True))
    year = parts["y"]
    if year < 100:
        year += 2000 if year < 69 else 1900
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
