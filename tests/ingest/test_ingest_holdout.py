"""A hold-out written otherwise than training means the same, or an error or a warning says that it does not."""

import csv

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import read, split

N, HELD = 200, 50
RNG = np.random.default_rng(3)
NUMBERS = RNG.normal(40, 900, N).round(2)
SHARES = RNG.uniform(0, 1, N).round(4)
TRUTH = RNG.random(N) < 0.5
DAYS = pd.date_range("2020-01-01", periods=N)[RNG.permutation(N)]


def german(value: float) -> str:
    return f"{value:,.2f}".translate(str.maketrans(".,", ",."))


def written(path, cells, separator=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter=separator)
        out.writerow(["a", "b", "label"])
        out.writerows([cell, (i * i) % 89, "xy"[i % 2]] for i, cell in enumerate(cells))
    return path


def parts(tmp_path, train, held, separator=",", other=","):
    raw = read(written(tmp_path / "t.csv", train, separator), target="label")
    return split(raw, written(tmp_path / "h.csv", held, other))


def same_encodings(train, held):
    """The hold-out repeats the first training rows: column by column, so must its features."""
    np.testing.assert_allclose(held.x, train.x[: len(held)], atol=2e-4)


def of(style, values):
    return [style(value) for value in values]


@pytest.mark.parametrize(
    ("ours", "theirs", "values", "separators"),
    [
        ("{:.2f}".format, german, NUMBERS, ",;"),
        (german, "{:.2f}".format, NUMBERS, ";,"),
        (german, "{:,.2f}".format, NUMBERS, ";,"),
        ("{:.2f}".format, lambda v: f"{german(v)} €", NUMBERS, ",;"),
        ("{:.2f}".format, lambda v: f"({-v:,.2f})" if v < 0 else f"{v:,.2f}", NUMBERS, ",,"),
        ("{:.3f}".format, lambda v: f"{v:.3f}".replace(".", ","), NUMBERS.round(0) % 9 + 1.234, ",;"),
        ("{:.2f} kg".format, lambda v: f"{1000 * v:.0f} g", NUMBERS, ",,"),
        ("{:.2f}".format, "{:.2f} kg".format, NUMBERS, ",,"),
        ("{}".format, lambda v: f"{100 * v:.2f} %", SHARES, ",,"),
        (lambda v: f"{100 * v:.2f}%", "{}".format, SHARES, ",,"),
        (lambda v: str(int(v)), lambda v: ("nein", "ja")[int(v)], TRUTH, ",,"),
        (lambda v: ("no", "yes")[int(v)], lambda v: str(int(v)), TRUTH, ",,"),
        (lambda v: ("no", "yes")[int(v)], lambda v: ("FALSE", "TRUE")[int(v)], TRUTH, ",,"),
        (lambda v: ("N", "Y")[int(v)], lambda v: ("✗", "✓")[int(v)], TRUTH, ",,"),
        (lambda v: ("Köln", "Rom")[int(v)], lambda v: ("KÖLN", "rom ")[int(v)], TRUTH, ",,"),
        (lambda v: ("01234", "04567")[int(v)], lambda v: ("1234", "4567")[int(v)], TRUTH, ",,"),
        (lambda v: f"{v:%Y-%m-%d}", lambda v: f"{v:%d.%m.%Y}", DAYS, ",,"),
        (lambda v: f"{v:%d/%m/%Y}", lambda v: f"{v:%Y-%m-%d}", DAYS, ",,"),
        (lambda v: f"{v:%m/%d/%Y}", lambda v: f"{v:%d %b %Y}", DAYS, ",,"),
        (lambda v: f"{v:%d/%m/%Y}", lambda v: f"{v:%m/%d/%Y}", DAYS, ",,"),
        (lambda v: f"{v:%Y-%m-%d}", lambda v: f"{v:%B %d, %Y}", DAYS, ",,"),
    ],
)
def test_the_same_values_give_the_same_features(tmp_path, ours, theirs, values, separators):
    train, held = parts(tmp_path, of(ours, values), of(theirs, values[:HELD]), *separators)
    assert "a" in train.used
    same_encodings(train, held)
    assert held.x[:, [i for i, name in enumerate(held.features) if name.startswith("a")]].std() > 0


def test_another_mark_is_said(tmp_path):
    train, _ = parts(tmp_path, of("{:.2f}".format, NUMBERS), of(german, NUMBERS[:HELD]), ",", ";")
    assert "hold-out column 'a': its numbers are written with decimal commas, and read so" in train.warnings


def test_open_dates_are_decided_by_the_hold_out(tmp_path):
    open_days = pd.date_range("2020-01-01", periods=900)
    open_days = open_days[open_days.day <= 12][:N]
    later = pd.date_range("2021-01-13", periods=4)
    train, held = parts(tmp_path, of("{:%d/%m/%Y}".format, open_days), of("{:%d/%m/%Y}".format, later))
    plain, plain_held = parts(tmp_path, of("{:%Y-%m-%d}".format, open_days), of("{:%Y-%m-%d}".format, later))
    np.testing.assert_allclose(train.x, plain.x, atol=1e-5)
    np.testing.assert_allclose(held.x, plain_held.x, atol=1e-5)
    assert (
        f"column 'a': {sum(d.day != d.month for d in open_days)} dates are open: read day first, as in the other file"
        in train.warnings
    )


def test_open_dates_are_said_where_nothing_decides(tmp_path):
    open_days = pd.date_range("2020-01-01", periods=900)
    open_days = open_days[open_days.day <= 12][:N]
    train, _ = split(read(written(tmp_path / "t.csv", of("{:%d/%m/%Y}".format, open_days)), target="label"))
    assert any(
        "could have the day or the month first, and nothing in the file decides" in w for w in train.warnings
    )


def test_open_dates_follow_the_other_dates_of_the_file(tmp_path):
    open_days = pd.date_range("2020-01-01", periods=900)
    open_days = open_days[open_days.day <= 12][:N]
    frame = pd.DataFrame(
        {
            "a": of("{:%d/%m/%Y}".format, open_days),
            "b": of("{:%d/%m/%Y}".format, DAYS),
            "label": ["x", "y"] * 100,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    train, _ = split(read(tmp_path / "t.csv", target="label"))
    assert any("read day first, by the other dates of the file" in warning for warning in train.warnings)


@pytest.mark.parametrize(
    ("ours", "theirs", "values", "what"),
    [
        ("{:.2f} kg".format, "{:.2f} lumps".format, NUMBERS, "numbers in column 'a' of the hold-out file"),
        ("{:.2f}".format, "about {:.2f} or so".format, NUMBERS, "numbers in column 'a' of the hold-out file"),
        ("{:.2f} $".format, "{:.2f} kg".format, NUMBERS, "numbers in column 'a' of the hold-out file"),
        ("{:%Y-%m-%d}".format, "week {:%U of %Y}".format, DAYS, "dates in column 'a' of the hold-out file"),
    ],
)
def test_what_cannot_be_mapped_is_refused(tmp_path, refused, ours, theirs, values, what):
    with refused(
        DataError, what, "50 of 50 cells that cannot be read so, such as", "another unit", "in the same way"
    ):
        parts(tmp_path, of(ours, values), of(theirs, values[:HELD]))


@pytest.mark.parametrize(
    ("train", "held", "words"),
    [
        (of("{:.2f}".format, NUMBERS), [*of("{:.2f}".format, NUMBERS[:45]), *["many"] * 5], "5 of 50 cells cannot be read as in training"),
        (of(lambda v: "uv"[int(v)], TRUTH), ["w"] * 10 + ["u"] * 40, "10 of 50 cells cannot be read as in training, or are unknown there, such as 'w'"),
        (of("{:.2f}".format, NUMBERS), of("{:.2f}".format, 1000 * NUMBERS[:HELD]), "are they in another unit?"),
    ],
)  # fmt: skip
def test_more_than_one_in_a_hundred_lost_is_said(tmp_path, train, held, words):
    found, _ = parts(tmp_path, train, held)
    assert any(words in warning for warning in found.warnings), found.warnings


def target_file(path, target, n):
    pd.DataFrame({"v": NUMBERS[:n], "y": target[:n]}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("{:.2f}".format, german),
        (german, "{:.2f}".format),
        ("${:,.2f}".format, "{:.2f}".format),
        ("{:.2f} kg".format, lambda v: f"{1000 * v:.0f} g"),
        ("{:.2f}".format, "{:,.2f}".format),
    ],
)
def test_regression_targets_are_mapped(tmp_path, ours, theirs):
    raw = read(target_file(tmp_path / "t.csv", of(ours, NUMBERS), N), target="y")
    train, held = split(raw, target_file(tmp_path / "h.csv", of(theirs, NUMBERS), HELD))
    assert train.task == "regression"
    np.testing.assert_allclose(train.labels, NUMBERS, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(held.y, train.y[:HELD], atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("no", "yes"), (0, 1)),
        ((0, 1), ("False", "True")),
        (("no", "yes"), ("No", "Yes")),
        (("N", "Y"), ("nein", "ja")),
        ((0, 1), (0.0, 1.0)),
    ],
)
def test_truth_labels_are_mapped(tmp_path, ours, theirs):
    raw = read(target_file(tmp_path / "t.csv", of(lambda v: ours[int(v)], TRUTH), N), target="y")
    train, held = split(raw, target_file(tmp_path / "h.csv", of(lambda v: theirs[int(v)], TRUTH), HELD))
    np.testing.assert_array_equal(held.y, train.y[:HELD])
    assert any("mapped" in warning for warning in train.warnings) == (str(theirs) != "(0.0, 1.0)")


def test_a_target_in_another_unit(tmp_path, refused):
    raw = read(target_file(tmp_path / "t.csv", of("{:.2f} kg".format, NUMBERS), N), target="y")
    with refused(
        DataError, "numbers in column 'y' of the hold-out", "50 of 50 cells", "another unit", "same way"
    ):
        split(raw, target_file(tmp_path / "h.csv", of("{:.2f} lumps".format, NUMBERS), HELD))
    raw = read(target_file(tmp_path / "t.csv", NUMBERS, N), target="y")
    train, _ = split(raw, target_file(tmp_path / "h.csv", 1000 * NUMBERS, HELD))
    assert any(
        "standard deviations from training's mean: is it in another unit?" in w for w in train.warnings
    )
