"""The table of decisions, names of features that never collide, truth values in many spellings, and dates."""

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import ConfigError
from finfluence.ingest import TableEncoder, column_decisions, from_frame, split

N = 200
RNG = np.random.default_rng(1)
DAYS = pd.date_range("2018-01-01", periods=N, freq="5D")[RNG.permutation(N)]
YEARS = RNG.integers(1900, 1950, N)


def fitted(columns):
    encoder = TableEncoder()
    x = encoder.fit_transform(pd.DataFrame(columns))
    return encoder, x


@pytest.mark.parametrize(
    ("columns", "n_features"),
    [
        ({"sold": DAYS.astype(str), "sold year": YEARS}, 6),
        ({"sold year": YEARS, "sold": DAYS.astype(str)}, 6),
        ({"a_b": DAYS.astype(str), "a b": DAYS[::-1].astype(str)}, 10),
        ({"a": ["", *map(str, YEARS[1:])], "a is missing": YEARS[::-1]}, 3),
        ({"a": ["u", "v"] * (N // 2), "a = u": YEARS}, 3),
        ({"d": DAYS.astype(str), "'d': year": YEARS, "d year": YEARS[::-1]}, 7),
        ({"d": DAYS.astype(str), "d year": "same"}, 5),
    ],
)
def test_features_have_names_of_their_own(columns, n_features):
    encoder, x = fitted(columns)
    assert len(set(encoder.features)) == len(encoder.features) == x.shape[1] == n_features
    for name, values in columns.items():
        if values is YEARS:
            z = (YEARS - YEARS.mean()) / YEARS.std()
            np.testing.assert_allclose(x[:, encoder.features.index(name)], z, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "levels"),
    [
        (["yes", "Yes", "no"], 2),
        (["ja", "nein", "yes", "NO"], 2),
        (["true", "FALSE", "T", "f"], 2),
        (["✓", "✗", "✔"], 2),
        (["1", "0", "yes", "no"], 2),
        (["Y", "N", "oui", "non"], 2),
        (["yes", "no", "maybe"], 3),
        (["yes", "Yes"], 2),
        (["on", "off"], 2),
    ],
)
def test_truth_values_in_several_spellings_are_two_levels(words, levels):
    encoder, x = fitted({"a": [words[i % len(words)] for i in range(N)]})
    assert encoder.columns[0].kind == "category" and x.shape[1] == levels
    merged = len(words) > 2 and levels == 2
    assert (
        any("spellings of true and false read as two levels" in note for note in encoder.columns[0].notes)
        == merged
    )


@pytest.mark.parametrize(
    "style",
    ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%y", "%B %d, %Y", "%a, %d %b %Y",
     "%d.%m.%y", "%Y-%m-%dT00:00:00Z", "%Y-%m-%d 00:00:00+00:00", "%d/%m/%Y 12:00 AM"],
)  # fmt: skip
def test_every_order_of_dates_gives_the_same_features(style):
    _, plain = fitted({"d": DAYS.strftime("%Y-%m-%d")})
    encoder, x = fitted({"d": DAYS.strftime(style)})
    assert encoder.columns[0].kind == "date"
    np.testing.assert_allclose(x, plain, atol=1e-5)


def test_two_styles_of_dates_in_one_column():
    cells = [f"{day:%d.%m.%Y}" if i % 3 else f"{day:%Y-%m-%d}" for i, day in enumerate(DAYS)]
    np.testing.assert_allclose(fitted({"d": cells})[1], fitted({"d": DAYS.astype(str)})[1], atol=1e-5)


def test_dates_of_the_wrong_order_are_said():
    cells = [f"{day:%d/%m/%Y}" for day in DAYS]
    cells[0] = "05/23/2020"
    encoder, _ = fitted({"d": cells})
    assert encoder.columns[0].notes == (
        "1 date has another order than day first, as all others: each was read by its own",
    )


def test_one_line_a_column():
    frame = pd.DataFrame(
        {
            "n": RNG.permutation(N),
            "price": [f"{v:,.2f} €".translate(str.maketrans(".,", ",.")) for v in RNG.uniform(0, 9999, N)],
            "day": DAYS.strftime("%d/%m/%Y"),
            "gap": [None if i % 4 == 0 else float(i % 17) for i in range(N)],
            "city": RNG.choice(["Rom", "Köln", "Oslo"], N),
            "same": "x",
            "who": RNG.choice(["ann", "bob"], N),
            "label": ["a", "b"] * (N // 2),
        }
    )
    train, held = split(from_frame(frame, "label", group_column="who"))
    table = train.column_decisions.set_index("column")
    assert list(train.column_decisions.columns) == [
        "column", "read_as", "format", "missing", "unreadable", "holdout_lost", "used_as", "note",
    ]  # fmt: skip
    assert list(table.index) == list(frame.columns)
    assert table["read_as"].tolist() == ["name", "number", "date", "number", "category", "", "name", "label"]
    assert table.loc["price", "format"] == "decimal comma, thousands by point, in €, decided by its own cells"
    assert table.loc["day", "format"] == "day first"
    assert abs(table.loc["gap", "missing"] - 0.25) < 0.05
    assert table.loc["same", "used_as"] == "not used: constant"
    assert (table.loc["who", "used_as"], table.loc["label", "used_as"]) == ("group", "target")
    assert any(
        w.startswith("missing cells were replaced by the median, with a mark: 'gap'") for w in train.warnings
    )
    assert held.warnings == train.warnings
    pd.testing.assert_frame_equal(held.column_decisions, train.column_decisions)


def test_columns_can_be_looked_at_without_a_target(tmp_path):
    pd.DataFrame({"n": RNG.permutation(N), "x": RNG.normal(size=N), "word": ["a", "b"] * (N // 2)}).to_csv(
        tmp_path / "d.csv", index=False
    )
    table = column_decisions(tmp_path / "d.csv").set_index("column")
    assert table["read_as"].tolist() == ["name", "number", "category"]
    assert table.loc["n", "used_as"].startswith("not used: it numbers the rows")


@pytest.mark.parametrize("source", ["digits", "folder", "a.npz"])
def test_images_and_arrays_have_no_columns(tmp_path, refused, source):
    (tmp_path / "folder").mkdir()
    name = source if source == "digits" else str(tmp_path / source)
    with refused(ConfigError, "a table for --columns", source, "no columns", "leave --columns out"):
        column_decisions(name)


def test_clean_numbers_say_nothing():
    frame = pd.DataFrame(
        {"x": RNG.uniform(size=N), "y": RNG.integers(0, 9, N), "label": ["a", "b"] * (N // 2)}
    )
    assert split(from_frame(frame, "label"))[0].warnings == ()
