"""Dates without separators and Buddhist years: read as dates where all cells fit, and said; numbers stay numbers."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from finfluence.ingest import TableEncoder, from_frame, split

N = 90
RNG = np.random.default_rng(8)
DAYS = [dt.datetime(2019, 1, 1) + dt.timedelta(days=int(d)) for d in RNG.integers(0, 1_500, N)]
EARLY = [dt.datetime(2003, 1, 1) + dt.timedelta(days=int(d)) for d in RNG.integers(0, 1_500, N)]
LABELS = ["a", "b"] * (N // 2)


def looked_at(cells):
    encoder = TableEncoder()
    frame = pd.DataFrame({"a": pd.Series(cells), "b": np.arange(len(cells)) % 7})
    x = encoder.fit_transform(frame)
    return x[:, [name != "b" for name in encoder.features]], encoder.columns[0]


def thai(day, form):
    return form.format(y=day.year + 543, m=day.month, d=day.day)


SPELT = {
    "yymmdd": (DAYS, [f"{d:%y%m%d}" for d in DAYS]),
    "yymmdd as a number": (EARLY, [int(f"{d:%y%m%d}") for d in EARLY]),
    "ddmmyy": (DAYS, [f"{d:%d%m%y}" for d in DAYS]),
    "mmddyy": (DAYS, [f"{d:%m%d%y}" for d in DAYS]),
    "ddmmyyyy": (DAYS, [f"{d:%d%m%Y}" for d in DAYS]),
    "ddmmyyyy as a number": (DAYS, [int(f"{d:%d%m%Y}") for d in DAYS]),
    "mmddyyyy": (DAYS, [f"{d:%m%d%Y}" for d in DAYS]),
    "yyyymmdd as fractions": (DAYS, [float(f"{d:%Y%m%d}") for d in DAYS]),
    "Buddhist, year first": (DAYS, [thai(d, "{y}-{m:02d}-{d:02d}") for d in DAYS]),
    "Buddhist, day first": (DAYS, [thai(d, "{d}/{m}/{y}") for d in DAYS]),
    "Buddhist, digits": (DAYS, [int(thai(d, "{y}{m:02d}{d:02d}")) for d in DAYS]),
    "Buddhist, digits, day first": (DAYS, [thai(d, "{d:02d}{m:02d}{y}") for d in DAYS]),
}  # fmt: skip


@pytest.mark.parametrize(("days", "cells"), SPELT.values(), ids=SPELT)
def test_a_column_of_dates_in_digits_is_read_as_dates(days, cells):
    found, column = looked_at(cells)
    assert column.kind == "date", column
    np.testing.assert_allclose(found, looked_at([f"{d:%Y-%m-%d}" for d in days])[0], atol=1e-4)
    assert column.unreadable == 0


def test_how_they_were_read_is_said():
    said = " ".join(looked_at(SPELT["yymmdd"][1])[1].notes)
    assert "dates without separators, 210315 for 15 March 2021" in said
    said = " ".join(looked_at(SPELT["Buddhist, day first"][1])[1].notes)
    assert "years such as 2564 are those of the Buddhist calendar: read 543 years earlier" in said


def test_the_day_of_february_that_only_the_gregorian_year_has_is_not_lost():
    cells = [thai(d, "{d}/{m}/{y}") for d in DAYS[:-1]] + ["29/2/2563"]
    assert looked_at(cells)[1].unreadable == 0


NO_DATES = {
    "any six digits": RNG.integers(100_000, 999_999, N),
    "numbers that count on": np.arange(210_101, 210_101 + 28).repeat(4)[:N],
    "hundreds": RNG.integers(1_000, 9_999, N) * 100,
    "times of day": [f"{h:02d}{m:02d}{s:02d}" for h, m, s in zip(RNG.integers(10, 24, N), RNG.integers(0, 60, N), RNG.integers(0, 60, N), strict=True)],
    "eight digits": RNG.integers(10_000_000, 99_999_999, N),
    "nearly all": [*(int(f"{d:%y%m%d}") for d in DAYS[:-1]), 219_999],
    "few": [210_315, 220_416, 230_517] * (N // 3),
    "years with months": [f"{y}{m:02d}" for y, m in zip(RNG.integers(2001, 2013, N), RNG.integers(1, 13, N), strict=True)],
    "years with months, of the last century": [190_101 + 100 * (k % 12) + k % 7 for k in range(N)],
    "hundreds that count on": [100_100 + 100 * (k % 11) for k in range(N)],
    "years of a far future": RNG.integers(2450, 2600, N),
}  # fmt: skip


@pytest.mark.parametrize("cells", NO_DATES.values(), ids=NO_DATES)
def test_numbers_that_are_no_dates_stay_numbers(cells):
    assert looked_at(list(cells))[1].kind == "number"


def test_a_hold_out_of_few_rows_is_read_as_training_is():
    x = np.arange(N) % 5
    raw = from_frame(pd.DataFrame({"when": SPELT["ddmmyy"][1], "x": x, "label": LABELS}), target="label")
    days = [dt.datetime(2021, 3, 4), dt.datetime(2020, 12, 30), dt.datetime(2019, 5, 6)] * 2
    few = from_frame(
        pd.DataFrame({"when": [f"{d:%d%m%y}" for d in days], "x": np.arange(6), "label": ["a", "b"] * 3}),
        target="label",
    )
    other = from_frame(
        pd.DataFrame({"when": [f"{d:%Y-%m-%d}" for d in days], "x": np.arange(6), "label": ["a", "b"] * 3}),
        target="label",
    )
    np.testing.assert_allclose(split(raw, holdout=few)[1].x, split(raw, holdout=other)[1].x, atol=1e-4)


def test_the_table_of_columns_shows_it():
    frame = pd.DataFrame({"when": SPELT["ddmmyyyy as a number"][1], "x": RNG.normal(size=N), "label": LABELS})
    table = split(from_frame(frame, target="label"))[0].column_decisions.set_index("column")
    assert (
        table.loc["when", "read_as"] == "date" and "15032021 for 15 March 2021" in table.loc["when", "note"]
    )


BIRTHS = [dt.datetime(1945, 1, 1) + dt.timedelta(days=int(d)) for d in RNG.integers(0, 21_000, N)]


@pytest.mark.parametrize("form", ["%d/%m/%y", "%d.%m.%y", "%y%m%d", "%d-%b-%y", "%m/%d/%y"])
def test_years_of_two_digits_follow_each_other(form):
    found, column = looked_at([f"{d:{form}}" for d in BIRTHS])
    np.testing.assert_allclose(found, looked_at([f"{d:%Y-%m-%d}" for d in BIRTHS])[0], atol=1e-4)
    assert "years of two digits from 4" in " ".join(column.notes) and "are read as 194" in " ".join(
        column.notes
    )


def test_years_of_this_century_and_of_both_stay_as_they_were():
    for first, days in (((2019, 1, 1)), 1_500), ((1975, 1, 1), 18_000):
        dates = [dt.datetime(*first) + dt.timedelta(days=int(d)) for d in np.linspace(0, days, N)]
        found, column = looked_at([f"{d:%d/%m/%y}" for d in dates])
        np.testing.assert_allclose(found, looked_at([f"{d:%Y-%m-%d}" for d in dates])[0], atol=1e-4)
        assert not any("two digits" in note for note in column.notes)
