"""Hold-outs written otherwise than training: read right, or said; and what a file says of itself."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import column_decisions, from_frame, read, split

N, HELD = 80, 40
RNG = np.random.default_rng(4)
SHARES = RNG.uniform(0.01, 1, N).round(4)
WHOLE = RNG.integers(1_000, 99_999, N)
FEW = RNG.integers(1, 100, N)
DAYS = [dt.datetime(2015, 1, 1) + dt.timedelta(minutes=int(m)) for m in RNG.integers(0, 4_000_000, N)]
LABELS = ["a", "b"] * (N // 2)


def table(cells, **more):
    cells, n = list(cells), len(cells)
    columns = {"x": list(cells), "z": [f"{v:.3f}" for v in SHARES[:n] * 3], "y": LABELS[:n]}
    return from_frame(pd.DataFrame({**columns, **more}, dtype=object), "y")


def both(ours, theirs):
    """Return the features of a column in training and in the hold-out, and what was said of the latter."""
    train, held = split(table(ours), table(list(theirs)[:HELD]))
    at = [not name.startswith("z") for name in train.features]
    return (
        train.x[:HELD][:, at],
        held.x[:, at],
        " / ".join(note for note in train.warnings if "hold-out" in note),
    )


def days(form):
    return [day.strftime(form) for day in DAYS]


def every(cells, other):
    return [other if i % 5 == 0 else str(cell) for i, cell in enumerate(cells)]


SAME = {
    "thousands by points in a file of decimal points": (WHOLE, [f"{v:,}".replace(",", ".") for v in WHOLE], "by the sizes in training"),
    "per cent in words": ([f"{v}%" for v in FEW], [f"{v} percent" for v in FEW], ""),
    "growth in per cent": ([f"{3 * v:.4f}" for v in SHARES], [f"{300 * v:.2f}%" for v in SHARES], "per cent and shares"),
    "small shares": ([f"{v / 2:.3f}%" for v in SHARES], [f"{v / 200:.5f}" for v in SHARES], "per cent and shares"),
    "no level for nothing": (every(("uvw" * N)[:N], ""), every(("uvw" * N)[:N], "Unknown"), "'Unknown' was taken as missing"),
    "day first, then six digits": (days("%d.%m.%Y"), days("%y%m%d"), "210315 for 15 March 2021"),
    "six digits, then day first": (days("%y%m%d"), days("%d.%m.%y"), "day first"),
    "eight digits, then six": (days("%d%m%Y"), days("%y%m%d"), "210315 for 15 March 2021"),
    "months": ([d.strftime("%b %Y") for d in DAYS], days("%Y-%m"), ""),
    "minutes without separators": (days("%Y-%m-%d %H:%M"), days("%Y%m%d%H%M"), ""),
    "as cameras write": (days("%Y-%m-%d %H:%M:%S"), days("%Y:%m:%d %H:%M:%S"), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_a_hold_out_in_another_spelling_has_the_same_features(case):
    ours, theirs, words = SAME[case]
    expected, found, said = both([str(one) for one in ours], [str(one) for one in theirs])
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert words in said, said


SAID = {
    "shares in per cent": ([f"{100 * v:.2f}" for v in SHARES], [f"{v:.4f}" for v in SHARES], "are they in another unit?"),
    "a constant": (FEW, [7] * N, "all of its numbers are 7, half of training's lie between"),
    "a mark for nothing": (every(FEW, ""), every(FEW, "-999"), "8 cells hold -999, far from all others"),
    "times without their zone": (days("%Y-%m-%dT%H:%M+02:00"), days("%Y-%m-%dT%H:%M"), "no zone, those of training do"),
    "times with a zone": (days("%Y-%m-%dT%H:%M"), days("%Y-%m-%dT%H:%MZ"), "carry a zone, those of training none"),
    "constant in training": (["5"] * N, FEW, "constant in training; the hold-out file holds '1"),
    "empty in training": ([""] * N, FEW, "every cell is missing in training; the hold-out file holds '1"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_a_hold_out_of_another_kind_is_said(case):
    ours, theirs, words = SAID[case]
    _, _, said = both([str(one) for one in ours], [str(one) for one in theirs])
    assert words in said, said


def test_yes_and_no_are_no_numbers_of_a_code_of_1_and_2(refused):
    with refused(
        DataError,
        "numbers in column 'x' of the hold-out file",
        "such as 'no'",
        "another spelling",
        "write both",
    ):
        both([str(1 + i % 2) for i in range(N)], ["yes", "no"] * HELD)


def test_numbers_of_the_target_are_read_by_the_sizes_in_training():
    frames = [
        pd.DataFrame({"z": [f"{v:.2f}" for v in SHARES], "y": cells}, dtype=object)
        for cells in (list(map(str, WHOLE)), [f"{v:,}".replace(",", ".") for v in WHOLE])
    ]
    train, held = split(from_frame(frames[0], "y"), from_frame(frames[1], "y"))
    np.testing.assert_allclose(held.y, train.y)
    assert any("hold-out target 'y': thousands or decimals" in note for note in train.warnings)


def test_a_hold_out_needs_no_ids_and_groups(write):
    rows = [f"{i},{'uvw'[i % 3]},{v},{'ab'[i % 2]}\n" for i, v in enumerate(FEW)]
    source = write("train.csv", "key,source,x,y\n" + "".join(rows))
    held = write("held.csv", "x,y\n" + "".join(row.split(",", 2)[2] for row in rows[:9]))
    train, part = split(read(source, "y", "key", "source"), held)
    assert (
        set(train.groups) == {"u", "v", "w"} and part.groups is None and part.ids.tolist() == list(range(9))
    )


def noted(cells, **more):
    train, _ = split(table(cells, **more))
    return " / ".join(train.warnings)


def test_times_of_which_some_carry_a_zone_are_said():
    cells = [day + ("+05:30" if i % 2 else "") for i, day in enumerate(days("%Y-%m-%dT%H:%M"))]
    assert f"{HELD} times carry no zone, {HELD} others do: taken to be in UTC" in noted(cells)


def test_internet_addresses_are_no_thousands():
    cells = [f"192.168.100.{100 + i}" for i in range(N)]
    assert "a different word in every row: an identifier" in noted(cells)


def test_whole_numbers_beyond_2_to_53_are_told_apart_by_their_spelling():
    assert "9 whole numbers beyond 2^53, which as numbers would be one another: read as words" in noted(
        [str(2**60 + i % 9) for i in range(N)]
    )


def test_truth_values_are_no_numbers_in_cells_of_any_kind():
    cells = ([True, "yes", 1, 0, "no", False] * N)[:N]
    train, held = split(table(cells))
    assert not any("cannot be read as in training" in note for note in train.warnings)
    levels = [name.startswith("x = ") for name in train.features]
    assert sum(levels) == 2 and (held.x[:, levels].sum(axis=1) == 1).all()


def test_columns_of_arrow_types():
    frame = pd.DataFrame({"x": [1.5, None, 2.0, 3.25] * 20, "k": [1, 2, None, 4] * 20, "y": LABELS})
    train, _ = split(from_frame(frame.convert_dtypes(dtype_backend="pyarrow"), "y"))
    assert dict(train.used)["x"].startswith("number") and dict(train.used)["k"].startswith("number")


GROUPS = {
    "holds 'Lab A' and 'lab a', which look alike": ["Lab A", "lab a", "Lab B"],
    "holds '1' and '1.0', which look alike": ["1", "1.0", "2"],
    "holds 'nan': taken for the name of a group": ["u", "nan", "v"],
}


@pytest.mark.parametrize("words", GROUPS)
def test_groups_that_look_alike_or_mean_none_are_said(words):
    frame = pd.DataFrame({"x": FEW, "y": LABELS, "g": (GROUPS[words] * N)[:N]}, dtype=object)
    assert any(words in doubt for doubt in from_frame(frame, "y", group_column="g").doubts)


TARGETS = {
    "holds 4 spellings of true and false": ["0", "1", "no", "yes"] * 20,
    "numbers that are not written alike, such as '1 kg', '1000 g'": [f"{i // 2 + 1} kg" if i % 4 < 2 else f"{1000 + i // 4} g" for i in range(N)],
    "class of a single row in the target: 'c'": [*LABELS[1:], "c"],
}  # fmt: skip


@pytest.mark.parametrize("words", TARGETS)
def test_doubts_of_the_target(words):
    frame = pd.DataFrame({"x": FEW, "z": WHOLE, "y": TARGETS[words]}, dtype=object)
    train, _ = split(from_frame(frame, "y"))
    assert any(words in note for note in train.warnings), train.warnings


def test_a_mark_for_nothing_among_numbers_of_the_target():
    frame = pd.DataFrame({"x": FEW, "y": every((SHARES * 100).round(2), "-999")}, dtype=object)
    train, _ = split(from_frame(frame, "y"))
    assert any(
        "target 'y'" in n and "leave these rows out if that means a missing value" in n
        for n in train.warnings
    )


LINES = "".join(f"{v},{w},{label}\n" for v, w, label in zip(FEW, WHOLE, LABELS, strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "x,k,y\n(cm),(kg),a\n" + LINES,
            "the first line below the header holds no numbers where all others do",
        ),
        (
            "x,k,y\n" + LINES + "Total,1234,a\n",
            "the last line holds 'Total': remove it if it sums up the others",
        ),
    ],
)
def test_lines_that_are_no_rows_are_said(text, words, write):
    assert any(words in doubt for doubt in read(write("t.csv", text), "y").doubts)
    assert not read(write("u.csv", "x,k,y\n" + LINES), "y").doubts


def test_numbers_in_single_quotes(write):
    lines = "".join(f"'{v}','{label}'\n" for v, label in zip(WHOLE, LABELS, strict=True))
    assert column_decisions(write("q.csv", "x,y\n" + lines), "y")["read_as"].tolist() == ["number", "label"]


def read_as(cells):
    from_x = split(table(cells))[0].column_decisions.set_index("column").loc["x"]
    return f"{from_x['read_as']} {from_x['used_as']} {from_x['note']}"


def test_a_dash_behind_a_year_among_ranges_is_no_minus():
    cells = [f"{1990 + i % 9}-" if i % 3 else f"{1990 + i % 9}-{2000 + i % 9}" for i in range(N)]
    train, _ = split(table(cells))
    assert "bounds such as '1991-', read as the number itself" in " / ".join(train.warnings)
    x = train.x[:, train.features.index("x")]
    years = np.array([1990 + i % 9 + (0 if i % 3 else 5) for i in train.ids])
    assert np.corrcoef(x, years)[0, 1] > 0.9999


def test_numbers_in_brackets_of_their_own_are_said_where_they_are_left_out():
    cells = [f"[{v}.5]" if i % 3 == 0 else f"{v}.5" for i, v in enumerate(WHOLE)]
    assert "an identifier; 42 of 64 cells could be numbers, but 22 cells are none, such as '[" in read_as(
        cells
    )


def test_minutes_seconds_and_thousandths():
    assert read_as([f"{i % 9:02d}:{i * 7 % 60:02d}.{i * 37 % 1000:03d}" for i in range(N)]).startswith(
        "number"
    )
