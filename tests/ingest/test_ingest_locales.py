"""Numbers, dates and marks of many countries and programs: the values that a person reads, and the words about doubts."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import TableEncoder, column_decisions, from_frame, read, split

N = 90
RNG = np.random.default_rng(5)
SIZES = RNG.uniform(1, 99, N).round(1)
SIGNED = RNG.uniform(-90, 90, N).round(4)
WHOLE = RNG.integers(1, 9_000, N)
DAYS = [dt.datetime(2019, 1, 1) + dt.timedelta(minutes=int(m)) for m in RNG.integers(0, 2_000_000, N)]
MIDNIGHTS = [day.replace(hour=0, minute=0) for day in DAYS]
FIRSTS = [day.replace(day=1) for day in MIDNIGHTS]
LABELS = ["a", "b"] * (N // 2)


def looked_at(cells):
    """Return the features of a column, and what was decided for it."""
    encoder, cells = TableEncoder(), list(cells)
    x = encoder.fit_transform(pd.DataFrame({"a": cells, "b": np.arange(len(cells)) % 7}, dtype=object))
    return x[:, [name != "b" for name in encoder.features]], encoder.columns[0]


def assert_same(cells, plain, kind):
    """Hold a column against the same values in their plain spelling."""
    found, column = looked_at(cells)
    assert column.kind == kind, column
    np.testing.assert_allclose(found, looked_at(plain)[0], atol=1e-4)


def side(value, positive, negative):
    return f"{abs(value):.4f}{positive if value > 0 else negative}"


NUMBERS = {
    "Swiss 12.--": ([f"{v}.--" for v in WHOLE], WHOLE),
    "German 12,--": ([f"{v},--" for v in WHOLE], WHOLE),
    "Swedish 12:-": ([f"{v}:-" for v in WHOLE], WHOLE),
    "Indian 12/-": ([f"Rs. {v}.50/-" for v in WHOLE], WHOLE + 0.5),
    "Turkish %12": ([f"%{v}".replace(".", ",") for v in SIZES], SIZES),
    "Australian dollars": ([f"AU${v}" for v in SIZES], SIZES),
    "millions of money": ([f"${v}m" if i % 2 else f"${v}k" for i, v in enumerate(SIZES)], SIZES * np.where(np.arange(N) % 2, 1e6, 1e3)),
    "Mio. beside Mrd.": ([f"{v} Mio. €" if i % 2 else f"{v} Mrd. €" for i, v in enumerate(SIZES)], SIZES * np.where(np.arange(N) % 2, 1e6, 1e9)),
    "万 beside 億": ([f"{v}万" if i % 2 else f"{v}億" for i, v in enumerate(SIZES)], SIZES * np.where(np.arange(N) % 2, 1e4, 1e8)),
    "million dollars": ([f"{v} million dollars" if i % 2 else f"{v} billion dollars" for i, v in enumerate(SIZES)], SIZES * np.where(np.arange(N) % 2, 1e6, 1e9)),
    "metres stay metres": ([f"{v} m" if i % 2 else f"{100 * v:.0f} cm" for i, v in enumerate(SIZES)], SIZES),
    "raised point": ([str(v).replace(".", "·") for v in SIZES], SIZES),
    "share beside": ([f"{v} ({i} %)" for i, v in enumerate(SIZES)], SIZES),
    "count beside": ([f"{v} (n={i})" for i, v in enumerate(SIZES)], SIZES),
    "°S and °N": ([side(v, "°N", "°S") for v in SIGNED], SIGNED),
    "W and E": ([side(v, " E", " W") for v in SIGNED], SIGNED),
    "credit and debit": ([side(v, " CR", " DR") for v in SIGNED], SIGNED),
    "degrees and minutes": ([f"{v % 80}°{v % 60}'{v % 59}\"{'NS'[v % 2]}" for v in WHOLE],
                            [(1 - 2 * (v % 2)) * (v % 80 + v % 60 / 60 + v % 59 / 3600) for v in WHOLE]),
    "Fahrenheit beside Celsius": ([f"{v} °C" if i % 3 else f"{1.8 * v + 32:.6f} °F" for i, v in enumerate(SIZES)], SIZES),
    "℃": ([f"{v}℃" for v in SIZES], SIZES),
    "square feet": ([f"{v:,} sq ft" for v in WHOLE], WHOLE),
    "m^2": ([f"{v} m^2" for v in SIZES], SIZES),
    "years old": ([f"{v % 80} years old" for v in WHOLE], WHOLE % 80),
    "ordinals": ([f"{v}{'th' if v % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(v % 10, 'th')}" for v in WHOLE], WHOLE),
    "negative times": ([f"{'-' if v < 0 else ''}{int(abs(v)) // 10}:{int(abs(v)) % 60:02d}" for v in SIGNED],
                       [np.sign(v) * (int(abs(v)) // 10 + int(abs(v)) % 60 / 60) for v in SIGNED]),
    "ISO durations": ([f"PT{v % 9}H{v % 60}M" for v in WHOLE], [v % 9 + v % 60 / 60 for v in WHOLE]),
    "14h30": ([f"{v % 24:02d}h{v % 60:02d}" for v in WHOLE], [v % 24 + v % 60 / 60 for v in WHOLE]),
    "14.30 Uhr": ([f"{v % 24:02d}.{v % 60:02d} Uhr" for v in WHOLE], [v % 24 + v % 60 / 60 for v in WHOLE]),
    "KG, Kg and kg": ([f"{v} {['KG', 'Kg', 'kg', 'kgs'][i % 4]}" for i, v in enumerate(SIZES)], SIZES),
    "days in weeks, months": ([f"{v} {['weeks', 'days'][i % 2]}" for i, v in enumerate(SIZES)], SIZES * np.where(np.arange(N) % 2, 1, 7)),
    "one year": ([["< 1 year", "1 year", "2 years", "10+ years"][i % 4] for i in range(N)], [[1, 1, 2, 10][i % 4] for i in range(N)]),
    "km and miles": ([f"{v} km" if i % 2 else f"{v} miles" for i, v in enumerate(SIZES)], SIZES * np.where(np.arange(N) % 2, 1, 1.609344)),
    "intervals": ([f"({v % 60}.5, {v % 60 + 1}.5]" for v in WHOLE], WHOLE % 60 + 1),
    "intervals to ten": ([f"[{10 * (v % 9)}-{10 * (v % 9) + 10})" for v in WHOLE], 10 * (WHOLE % 9) + 5),
    "Arabic percent": ([f"{v}٪".translate({ord(str(k)): chr(0x660 + k) for k in range(10)}).replace(".", "٫") for v in SIZES], SIZES),
    "six words for nothing": (
        [["n.d.", "k.A.", "not measured", "unknown", "missing", "refused"][i % 6] if i % 4 == 0 else str(v) for i, v in enumerate(SIZES)],
        [np.nan if i % 4 == 0 else v for i, v in enumerate(SIZES)],
    ),
    "marks of databases": (
        [["\\N", "<null>", "#NV", "1.#QNAN"][i % 4] if i % 5 == 0 else str(v) for i, v in enumerate(SIZES)],
        [np.nan if i % 5 == 0 else v for i, v in enumerate(SIZES)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_world(name):
    cells, values = NUMBERS[name]
    assert_same(cells, ["" if np.isnan(value) else repr(float(value)) for value in values], "number")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("°S and °N", "cells in °S are read as negative, those in °N as positive"),
        ("Fahrenheit beside Celsius", "cells in °F converted to °C"),
        ("share beside", "90 cells carry remarks such as"),
    ],
)
def test_what_a_unit_became_is_said(name, words):
    assert any(words in note for note in looked_at(NUMBERS[name][0])[1].notes)


def in_words(form, months):
    names = months.split()
    return [form.format(d=day.day, m=names[day.month - 1], y=day.year) for day in MIDNIGHTS]


def by(form):
    return [form.format(day) for day in DAYS]


DATES = {
    "French": (in_words("{d} {m} {y}", "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc."), MIDNIGHTS),
    "Spanish": (in_words("{d} de {m} de {y}", "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"), MIDNIGHTS),
    "Dutch": (in_words("{d} {m} {y}", "januari februari maart april mei juni juli augustus september oktober november december"), MIDNIGHTS),
    "Polish": (in_words("{d} {m} {y}", "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia"), MIDNIGHTS),
    "Russian": (in_words("{d} {m} {y} г.", "января февраля марта апреля мая июня июля августа сентября октября ноября декабря"), MIDNIGHTS),
    "Japanese": ([f"{d.year}年{d.month}月{d.day}日" for d in DAYS], MIDNIGHTS),
    "Korean": ([f"{d.year}년 {d.month}월 {d.day}일" for d in DAYS], MIDNIGHTS),
    "1er": ([f"{'1er' if d.day == 1 else d.day} mai {d.year}" for d in [*FIRSTS[:9], *MIDNIGHTS[9:]]],
            [d.replace(month=5) if d.day < 32 else d for d in [*FIRSTS[:9], *MIDNIGHTS[9:]]]),
    "month and year": (by("{:%B %Y}"), FIRSTS),
    "month and short year": (by("{:%b-%y}"), FIRSTS),
    "German month and year": (in_words("{m} {y}", "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"), FIRSTS),
    "01/2021": (by("{:%m/%Y}"), FIRSTS),
    "01.2021": (by("{:%m.%Y}"), FIRSTS),
    "Uhr": ([f"{d.day}.{d.month}.{d.year}, {d:%H:%M} Uhr" for d in DAYS], DAYS),
    "time first": (by("{:%H:%M %d.%m.%Y}"), DAYS),
    "order of C": (by("{:%a %b %d %H:%M:%S %Y}"), DAYS),
    "Java": (by("{0:%a %b %d %H:%M:%S} UTC {0:%Y}"), DAYS),
    "log of a server": (by("{:%d/%b/%Y:%H:%M:%S} +0000"), DAYS),
    "zone in brackets": (by("{:%Y-%m-%dT%H:%M:%S}+00:00[Europe/London]"), DAYS),
    "+02": (by("{:%Y-%m-%d %H:%M:%S}+02"), [d - dt.timedelta(hours=2) for d in DAYS]),
    "compact, T and Z": (by("{:%Y%m%dT%H%M%SZ}"), DAYS),
    "fourteen digits": (by("{:%Y%m%d%H%M%S}"), DAYS),
    "with a word before the time": (by("{:%d.%m.%Y um %H:%M} Uhr"), DAYS),
    "at": (by("{:%B %d, %Y at %I:%M %p}"), DAYS),
    "weekday before": (by("Mo {:%d.%m.%Y}"), MIDNIGHTS),
    "weekday behind": (by("{:%d.%m.%Y} (Mo)"), MIDNIGHTS),
    "T without colons": (by("{:%Y-%m-%dT%H%M}"), DAYS),
    "UTC+1": (by("{:%Y-%m-%d %H:%M:%S} UTC+1"), [d - dt.timedelta(hours=1) for d in DAYS]),
    "JavaScript": (by("{:%a %b %d %Y %H:%M:%S} GMT+0100 (Central European Standard Time)"), [d - dt.timedelta(hours=1) for d in DAYS]),
    "Oracle": ([f"{d:%d-%b-%y %I.%M.%S %p}".upper() for d in DAYS], DAYS),
    "slashes around the month": (by("{:%d/%b/%Y}"), MIDNIGHTS),
    "weeks": (by("{:%G-W%V}"), [d - dt.timedelta(days=d.weekday()) for d in MIDNIGHTS]),
    "quarters": ([f"Q{(d.month + 2) // 3} {d.year}" for d in DAYS], [d.replace(month=(d.month + 2) // 3 * 3 - 2) for d in FIRSTS]),
    "24:00": ([f"{d:%Y-%m-%d} {'24:00' if i % 9 == 0 else '10:00'}" for i, d in enumerate(DAYS)],
              [d + dt.timedelta(hours=24 if i % 9 == 0 else 10) for i, d in enumerate(MIDNIGHTS)]),
    "full width": ([f"{d:%Y/%m/%d}".translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789/"}) for d in DAYS], MIDNIGHTS),
    "no date at all": ([["0000-00-00", "0001-01-01"][i % 2] if i % 8 == 0 else f"{d:%Y-%m-%d}" for i, d in enumerate(DAYS)],
                       [None if i % 8 == 0 else d for i, d in enumerate(MIDNIGHTS)]),
    "days of a spreadsheet": ([str((d - dt.datetime(1899, 12, 30)).days) if i % 3 == 0 else f"{d:%d.%m.%Y}" for i, d in enumerate(DAYS)], MIDNIGHTS),
    "dates beside moments": ([d.date() if i % 2 else d for i, d in enumerate(DAYS)],
                             [d.replace(hour=0, minute=0) if i % 2 else d for i, d in enumerate(DAYS)]),
}  # fmt: skip


@pytest.mark.parametrize("name", DATES)
def test_dates_of_the_world(name):
    cells, moments = DATES[name]
    assert_same(
        cells, ["" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments], "date"
    )


def test_days_of_a_spreadsheet_are_said():
    note = looked_at(DATES["days of a spreadsheet"][0])[1].notes[0]
    assert note == (
        "30 cells among the dates with a number such as 44262: read as days since 1899-12-30, as spreadsheets keep dates"
    )


@pytest.mark.parametrize("day", ["9999-12-31", "1900-01-01"])
def test_a_date_far_from_all_others_is_said(day):
    cells = [day if i % 8 == 0 else f"{d:%Y-%m-%d}" for i, d in enumerate(DAYS)]
    words = f"12 cells hold {day}, far from all other dates: leave them empty if that means a missing value"
    assert words in looked_at(cells)[1].notes
    assert words in column_of_dates(cells).notes
    assert not looked_at(by("{:%Y-%m-%d}"))[1].notes


@pytest.mark.parametrize(
    "cells",
    [
        ["1.1", "1.9", "1.10", "1.11", "2.0"],
        ["+49 377 562 391", "+49 301 234 567", "+1 212 555 019"],
        ["1/3", "2/7", "5/9"],
    ],
)
def test_versions_and_phones_stay_words(cells):
    _, column = looked_at((cells * N)[:N])
    assert column.kind == "category"


def test_versions_are_said():
    _, column = looked_at((["1.1", "1.9", "1.10"] * N)[:N])
    assert column.notes[0] == (
        "cells such as '1.1' and '1.10' are one number, but count on as versions do: read as words"
    )
    assert looked_at((["0.5", "0.50", "0.25", "0.10", "0.1"] * N)[:N])[1].kind == "number"


def test_words_that_could_be_more_are_said():
    mixed = [
        ["low", "high", "odd", "even", "none of it"][i % 5] if i % 3 == 0 else str(v)
        for i, v in enumerate(SIZES)
    ]
    assert looked_at(mixed)[1].notes[0] == (
        "60 of 90 cells could be numbers, but 30 cells are none, such as 'even': read as text"
    )
    assert "60 of 90 cells could be dates, but 30 cells are none" in looked_at(
        [["before", "after", "soon", "never", "late"][i % 5] if i % 3 == 0 else f"{d:%d.%m.%Y}" for i, d in enumerate(DAYS)]
    )[1].notes[0]  # fmt: skip
    assert looked_at([f"<<{v}>>" for v in SIZES])[1].notes == (
        f"cells such as {min(f'<<{v}>>' for v in SIZES)!r} differ in their digits alone: read as text; if they are "
        "numbers or dates, write them plainly",
    )
    assert looked_at((["Berlin", "BERLIN", "Paris"] * N)[:N])[1].notes == (
        "3 levels, of which 'BERLIN' and 'Berlin' look alike: they are levels of their own",
    )
    assert (
        looked_at([f"{v} kg" if i % 2 else f"{v} km" for i, v in enumerate(SIZES)])[1]
        .notes[0]
        .startswith("all cells could be numbers, but not of one kind, such as")
    )
    assert not looked_at((["Berlin", "Paris", "1", "2"] * N)[:N])[1].notes


def column_of_dates(cells):
    encoder = TableEncoder()
    encoder.fit_transform(pd.DataFrame({"a": np.array(cells, dtype="datetime64[us]")}))
    return encoder.columns[0]


def held(ours, theirs):
    made = [
        pd.DataFrame(
            {"a": list(cells), "b": WHOLE[: len(cells)] % 7, "label": LABELS[: len(cells)]}, dtype=object
        )
        for cells in (ours, theirs)
    ]
    return split(from_frame(made[0], "label"), from_frame(made[1], "label"))


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ([f"{v} °C" for v in SIZES], [str(v) for v in SIZES[:40]], "its numbers carry no unit, those of training are in °C"),
        ([str(v) for v in SIZES], [""] * 40, "hold-out cells are missing, more than in training, and were replaced by its median: 'a' (40 of 40)"),
        ([f"{d:%Y-%m-%d}" for d in DAYS], ["" if i % 3 else f"{d:%Y-%m-%d}" for i, d in enumerate(DAYS[:40])], "'a' (26 of 40)"),
    ],
)  # fmt: skip
def test_what_a_hold_out_lacks_is_said(ours, theirs, words):
    train, _ = held(ours, theirs)
    assert any(words in warning for warning in train.warnings), train.warnings


def test_gaps_as_in_training_are_not_said_again():
    cells = ["" if i % 3 == 0 else str(v) for i, v in enumerate(SIZES)]
    assert not any("hold-out cells are missing" in warning for warning in held(cells, cells[:40])[0].warnings)


def test_one_letter_in_two_ways_is_one_level():
    ours = ["Zürich" if i % 2 else "Genève" for i in range(N)]
    theirs = ["Zu\u0308rich" if i % 2 else "Gene\u0300ve" for i in range(40)]
    train, other = held(ours, theirs)
    np.testing.assert_array_equal(train.x[:40], other.x)


def lines(header, rows, end=""):
    return header + "\n" + "".join(row + end + "\n" for row in rows)


ROWS = [f"{v},{label}" for v, label in zip(SIZES, LABELS, strict=True)]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (lines("x,label,,", ROWS, ",,"), "2 empty columns at the end of every line left out"),
        (lines("x,label", ROWS, ","), "1 empty column at the end of every line left out"),
        (lines("x,label", [f'"{i + 1}",{row}' for i, row in enumerate(ROWS)]), "the first was taken for the name of the row"),
    ],
)  # fmt: skip
def test_one_cell_more_than_the_header(write, content, note):
    path = write("a.csv", content)
    raw = read(path, target="label")
    assert any(note in one for one in raw.notes), raw.notes
    train, _ = split(raw)
    assert train.features == ("x",)


def test_another_separator_is_named_as_the_cause(write, refused):
    path = write("a.csv", lines("x^label", [row.replace(",", "^") for row in ROWS]))
    with refused(DataError, "the target column 'label'", "columns 'x^label'", "separated by something else", "write the file with commas"):  # fmt: skip
        read(path, target="label")


def test_a_date_in_the_header_is_data(write):
    path = write(
        "a.csv", lines("2020-01-01,0.5,a", [f"2020-01-{i % 28 + 1:02d},{row}" for i, row in enumerate(ROWS)])
    )
    assert any("the first line looks like data" in doubt for doubt in read(path, target="a").doubts)


def test_half_of_a_character_is_replaced_and_said(write):
    path = write("a.jsonl", "\n".join(f'{{"x": {v}, "t": "w\\ud800 {i % 5}", "label": "{LABELS[i]}"}}' for i, v in enumerate(SIZES)))  # fmt: skip
    train, _ = split(read(path, target="label"))
    assert "90 lines hold half of a character (such as \\ud800 alone): replaced by \ufffd" in train.warnings
    assert "t = w\ufffd 0" in train.features


def test_a_target_of_dates_is_said(write):
    path = write("a.csv", lines("x,label", [f"{v},2020-01-{i % 4 + 1:02d}" for i, v in enumerate(SIZES)]))
    train, _ = split(read(path, target="label"))
    words = "the target 'label' holds dates, such as '2020-01-01': each is a class of its own"
    assert words in train.warnings


def test_columns_show_it_all(write):
    path = write("a.csv", lines("price,since,label", [f"{v} Mio. €,{d.day}. Mai {d.year},{label}" for v, d, label in zip(SIZES, DAYS, LABELS, strict=True)]))  # fmt: skip
    table = column_decisions(path, "label").set_index("column")
    assert table["read_as"].tolist() == ["number", "date", "label"]
    assert table.loc["price", "format"].startswith("in €, decided by")


def test_points_beside_long_whole_numbers_are_said():
    cells = [f"{v + 1000:,}".replace(",", ".") if i % 2 else str(v + 1000) for i, v in enumerate(WHOLE)]
    assert (
        "45 cells such as 2.155 could be decimals or thousands: read as decimals"
        in looked_at(cells)[1].notes[0]
    )
