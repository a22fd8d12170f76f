"""Cells that a person reads as a number or a date although they are no plain numeral, and cells that stay words."""

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import TableEncoder, column_decisions, from_frame, split

N = 120
RNG = np.random.default_rng(3)
VALUES = RNG.uniform(10, 9_000, N).round(1)
HOURS = RNG.integers(0, 24 * 60, N)
FEET = RNG.integers(48, 84, N)
LABELS = ["a", "b"] * (N // 2)


def some(loose, plain="{:.1f}"):
    """Every ninth cell in one spelling, the others plain."""
    return [(loose if i % 9 == 0 else plain).format(v) for i, v in enumerate(VALUES)]


def every(loose):
    return [loose.format(v) for v in VALUES]


def expected(values):
    values = np.asarray(values, dtype=float)
    return np.clip((values - values.mean()) / values.std(), -3, 3)


def read_as(cells, **others):
    encoder = TableEncoder()
    x = encoder.fit_transform(pd.DataFrame({"a": list(cells), **others}))
    return encoder, x[:, 0]


LOW = RNG.integers(10, 90, N)
CASES = {
    "star": (some("{:.1f}*"), VALUES),
    "dagger, unit": (some("{:.1f} kg†", "{:.1f} kg"), VALUES),
    "bracketed note": (some("{:.1f}[3]"), VALUES),
    "raised note": (some("{:.1f}²"), VALUES),
    "unit and remark": (some("{:.1f} kg (net)", "{:.1f} kg"), VALUES),
    "remark everywhere": (every("{:.1f} kg (estimated)"), VALUES),
    "about": (some("about {:.1f}"), VALUES),
    "etwa, €": (some("etwa {:.1f} €", "{:.1f} €"), VALUES),
    "at least": (some("at least {:.1f}"), VALUES),
    "and over": (some("{:.1f} and over"), VALUES),
    "plus": (some("{:.1f}+"), VALUES),
    "≥": (some("≥ {:.1f}"), VALUES),
    "margin": (every("{:.1f} ± 0.2 mm"), VALUES),
    "margin in letters": (every("{:.1f} +/- 5"), VALUES),
    "Fortran": ([f"{v:.6E}".replace("E", "D") for v in VALUES], VALUES),
    "text sign": (every("'{:.1f}"), VALUES),
    "in quotation marks": (every('"{:.1f}"'), VALUES),
    "formula of a text": (every('="{:.1f}"'), VALUES),
    "range": ([f"{a}-{a + 10}" for a in LOW], LOW),
    "range, en dash, unit": ([f"{a}–{a + 10} kg" for a in LOW], LOW),
    "range in words": ([f"{a} to {a + 10}" for a in LOW], LOW),
    "range of amounts": ([f"${a},000 - ${a + 10},000" for a in LOW], LOW),
    "range, bis": ([f"{a} bis {a + 10} €" for a in LOW], LOW),
    "range among numbers": ([f"{a}-{a + 10}" if i % 4 == 0 else f"{a + 5}" for i, a in enumerate(LOW)], LOW),
    "few ranges": ([f"{a}-{a + 9}" for a in 10 * (LOW // 10)], 10 * (LOW // 10)),
    "time": ([f"{h // 60:02d}:{h % 60:02d}" for h in HOURS], HOURS),
    "time, one digit": ([f"{h // 60}:{h % 60:02d}" for h in HOURS], HOURS),
    "time with seconds": ([f"{h // 60:02d}:{h % 60:02d}:00" for h in HOURS], HOURS),
    "time, am and pm": (
        [f"{(h // 60 - 1) % 12 + 1}:{h % 60:02d} {'ap'[int(h >= 720)]}m" for h in HOURS],
        HOURS,
    ),
    "h and min": ([f"{h // 60} h {h % 60} min" for h in HOURS], HOURS),
    "hm": ([f"{h // 60}h{h % 60}m" for h in HOURS], HOURS),
    "minutes and seconds": ([f"{h // 60 + 20}:{h % 60:02d}" for h in HOURS], HOURS),
    "minutes, and hours": (
        [f"{h // 60}:{h % 60:02d}:00" if h >= 60 else f"{h}:00" for h in HOURS % 180],
        HOURS % 180,
    ),
    "days and time": ([f"{h // 60} days {h % 60 % 24:02d}:00:00" for h in HOURS], HOURS // 60 * 24 + HOURS % 60 % 24),
    "feet and inches": ([f"{f // 12}'{f % 12}\"" for f in FEET], FEET),
    "ft in": ([f"{f // 12} ft {f % 12} in" for f in FEET], FEET),
    "lb oz": ([f"{f // 16} lb {f % 16} oz" for f in FEET], FEET),
    "fractions": ([["1/2", "3/4", "1 1/2", "2"][i % 4] for i in range(N)], [[0.5, 0.75, 1.5, 2][i % 4] for i in range(N)]),
    "vulgar fractions": ([["½", "¾", "1½", "2"][i % 4] for i in range(N)], [[0.5, 0.75, 1.5, 2][i % 4] for i in range(N)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_person_reads_as_a_number_is_one(name):
    cells, values = CASES[name]
    encoder, x = read_as(cells)
    assert encoder.features == ("a",), encoder.columns
    np.testing.assert_allclose(x, expected(values), atol=2e-3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("star", "14 cells carry remarks such as"),
        ("about", "14 cells are bounds such as 'about"),
        ("plus", "14 cells are bounds such as"),
        ("range", "120 cells are ranges such as '10-20', read as their middle"),
        ("margin", "120 cells carry margins such as"),
    ],
)
def test_what_was_left_out_of_a_number_is_said(name, words):
    encoder, _ = read_as(CASES[name][0])
    assert encoder.columns[0].notes[0].startswith(words)


@pytest.mark.parametrize(
    "cells",
    [
        ["3-1", "0-2", "2-2", "1-0"],
        ["1.2.3", "1.10.0", "2.0.1"],
        ["120/80", "130/85", "141/90"],
        ["2021-Q1", "2021-Q2"],
        ["A-1", "A-2", "B-1"],
        ["00501", "10001-20", "90210"],
        ["'007", "'012", "'900"],
        ["16x9", "4x3"],
        ["12-2021", "11-2020", "10-2021"],
    ],
)
def test_what_is_no_number_stays_words(cells):
    encoder, _ = read_as((cells * N)[:N])
    assert encoder.columns[0].kind in ("category", "date")


@pytest.mark.parametrize(
    "word", ["unknown", "k.A.", "missing", "*", "not reported", "trace", "LOD", "неизвестно"]
)
@pytest.mark.parametrize("every_nth", [12, 4, 2])
def test_a_word_where_a_number_would_stand_is_missing(word, every_nth):
    cells = [word if i % every_nth == 0 else f"{v:.1f}" for i, v in enumerate(VALUES)]
    encoder, x = read_as(cells)
    gone = np.array([cell == word for cell in cells])
    assert encoder.columns[0].kind == "number"
    np.testing.assert_allclose(np.diff(x[~gone]) > 0, np.diff(VALUES[~gone]) > 0)
    said = [*encoder.columns[0].notes, encoder.columns[0].about]
    assert (
        any(word in note and "taken as missing" in note for note in said)
        or encoder.columns[0].unreadable == gone.sum()
    )


def test_words_for_no_value_are_known_in_the_hold_out_too():
    cells = ["unknown" if i % 5 == 0 else f"{v:.1f}" for i, v in enumerate(VALUES)]
    frame = pd.DataFrame({"a": cells, "label": LABELS})
    train, held = split(from_frame(frame, "label"), from_frame(frame.iloc[:60], "label"))
    np.testing.assert_allclose(held.x, train.x[:60])
    assert not any(warning.startswith("hold-out") for warning in train.warnings)
    assert any(
        "24 cells with 'unknown', and no number: taken as missing" in warning for warning in train.warnings
    )


@pytest.mark.parametrize(
    "cells", [["1", "2", "3", "other"], ["low", "12.5", "high", "medium", "n"], ["unknown", "12", "13"]]
)
def test_few_numbers_among_words_are_levels(cells):
    encoder, _ = read_as((cells * N)[:N])
    assert encoder.columns[0].kind == "category"


def test_words_among_dates_are_missing():
    days = pd.date_range("2020-01-01", periods=N, freq="9D")
    cells = ["ongoing" if i % 4 == 0 else f"{day:%Y-%m-%d}" for i, day in enumerate(days)]
    encoder, _ = read_as(cells)
    assert encoder.columns[0].kind == "date"
    assert "'ongoing', and no date" in encoder.columns[0].notes[0]


DAYS = pd.date_range("2019-03-01", periods=N, freq="37h")[np.random.default_rng(0).permutation(N)]
DATES = {
    "compact": "{:%Y%m%d}",
    "compact with time": "{:%Y%m%d %H:%M}",
    "CET": "{:%Y-%m-%d %H:%M:%S} CET",
    "EST, no seconds": "{:%m/%d/%Y %H:%M} EST",
    "MESZ": "{:%d.%m.%Y %H:%M} MESZ",
}


@pytest.mark.parametrize("name", DATES)
def test_dates_in_more_spellings(name):
    encoder, _ = read_as([DATES[name].format(day) for day in DAYS])
    assert encoder.columns[0].kind == "date"
    plain, _ = read_as([f"{day:%Y-%m-%d %H:%M:%S}" for day in DAYS])
    assert {"a month", "a day"} <= set(encoder.features) & set(plain.features)


def test_zones_shift_the_hour():
    both = ["2020-01-01 12:00:00 CET", "2020-01-01 11:00:00 UTC"] * 5 + [
        "2020-01-01 06:00:00 EST",
        "2020-01-02 00:00:00 UTC",
    ] * 5
    encoder = TableEncoder()
    x = encoder.fit_transform(pd.DataFrame({"a": both}))
    assert encoder.columns[0].kind == "date"
    seconds = x[:11, encoder.features.index("a total seconds")]
    assert np.unique(seconds).size == 1


@pytest.mark.parametrize("kind", ["text", "whole numbers", "nullable"])
def test_compact_dates_in_every_type(kind):
    cells = [f"{day:%Y%m%d}" for day in DAYS]
    series = {"text": pd.Series(cells), "whole numbers": pd.Series(map(int, cells)),
              "nullable": pd.Series(map(int, cells), dtype="Int64")}[kind]  # fmt: skip
    train, _ = split(from_frame(pd.DataFrame({"a": series, "label": LABELS}), "label"))
    assert train.column_decisions.set_index("column").loc["a", "read_as"] == "date"


def test_days_without_a_year_are_dates():
    encoder, _ = read_as([f"{day.day}.{day.month}." for day in DAYS])
    assert encoder.columns[0].kind == "date"
    assert "a month" in encoder.features
    assert "a year" not in encoder.features


@pytest.mark.parametrize("number", ["-1", "-9", "-99"])
def test_the_only_number_below_zero_is_said(number):
    encoder, _ = read_as([number if i % 10 == 0 else f"{v:.1f}" for i, v in enumerate(VALUES)])
    assert (
        f"12 cells hold {number}, the only number below 0" in encoder.columns[0].notes[0]
        or "far from" in encoder.columns[0].notes[0]
    )


@pytest.mark.parametrize("write_others", ["{:.2f}", "{:.0f}"])
def test_thousands_by_point_beside_decimal_points(write_others):
    values = np.random.default_rng(1).integers(1_000, 99_999, N)
    values[::7] //= 150
    cells = [f"{v:,}".replace(",", ".") for v in values]
    other = [write_others.format(v) for v in VALUES]
    frame = pd.DataFrame({"a": cells, "b": other, "label": LABELS})
    train, held = split(from_frame(frame, "label"), from_frame(frame[values > 999].iloc[:40], "label"))
    at = train.features.index("a")
    np.testing.assert_allclose(train.x[:, at], expected(values), atol=1e-4)
    np.testing.assert_allclose(held.x[:, at], train.x[values > 999][:40, at], atol=1e-4)
    assert any("could be decimals or thousands: read as thousands" in warning for warning in train.warnings)


def test_ranges_and_times_are_no_regression_targets(tmp_path):
    for cells in (["10-20", "20-30", "30-40"], ["12:30", "13:45", "09:10"], ["1/2", "3/4", "1/4"]):
        raw = from_frame(pd.DataFrame({"x": VALUES, "t": (cells * N)[:N]}), "t")
        assert raw.task == "classification"
    with pytest.raises(DataError, match="finite numbers in the target"):
        from_frame(pd.DataFrame({"x": VALUES, "t": (["10-20", "20-30"] * N)[:N]}), "t", task="regression")


def test_measures_of_two_numbers_are_no_identifiers(tmp_path):
    cells = [
        f"{a:.4f} N, {b:.4f} E" for a, b in zip(RNG.uniform(40, 60, N), RNG.uniform(0, 20, N), strict=True)
    ]
    path = tmp_path / "a.csv"
    pd.DataFrame({"a": cells, "b": [f"INV-{i:04d}-2021" for i in RNG.permutation(N)]}).to_csv(
        path, index=False
    )
    decided = column_decisions(path).set_index("column")
    assert "identifier" not in decided.loc["a", "used_as"]
    assert "identifier" in decided.loc["b", "used_as"]
