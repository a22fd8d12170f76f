import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import BUCKETS, TableEncoder, TextEncoder, from_frame, split


def column(table, name):
    return table.x[:, table.features.index(name)]


@pytest.fixture
def tables(mixed):
    return split(from_frame(mixed, target="label", id_column="key", group_column="annotator"))


def test_every_column_is_used_or_dropped_with_a_reason(tables, mixed):
    train, held = tables
    assert train.dropped == {
        "empty": "every cell is missing", "same": "constant",
        "review": "text that tells nothing about the target: its words predict rows left out no better than a constant",
    }  # fmt: skip
    assert set(train.used) == {"age", "income", "city", "member", "joined", "zip"}
    assert train.used["age"] in ("number", "number, 1 cells that are no number taken as missing")
    assert train.used["income"].startswith("number, ") and train.used["income"].endswith(
        "replaced by the median"
    )
    assert train.used["city"].startswith("category of 3 levels, ")
    assert train.used["member"] == "category of 2 levels"
    assert train.used["zip"] == "category of 10 levels"
    assert train.used["joined"].startswith("date")
    (said,) = (note for note in train.notes if "'same'" in note)
    assert said.startswith("columns not used: ") and "'same' (constant)" in said
    for table in (train, held):
        assert table.x.dtype == np.float32 and np.isfinite(table.x).all()
        assert table.x.shape == (len(table), len(table.features))


def test_target_id_and_group_are_no_features(tables):
    train, _ = tables
    assert not any(name.split(" ")[0] in ("label", "key", "annotator") for name in train.features)
    assert set(train.groups) == {"ann", "bob", "(none)"}


def test_numbers_are_standardised_and_gaps_marked(tables, mixed):
    train, held = tables
    cells = mixed.set_index("key")["income"]
    values = pd.to_numeric(cells.loc[train.ids]).to_numpy()
    gaps = np.isnan(values)
    filled = np.where(gaps, np.nanmedian(values), values)
    standardised = np.clip((filled - filled.mean()) / filled.std(), -3, 3)
    np.testing.assert_allclose(column(train, "income"), standardised, atol=1e-6)
    marked = np.clip((gaps - gaps.mean()) / gaps.std(), -3, 3)
    np.testing.assert_allclose(column(train, "income is missing"), marked, atol=1e-6)
    others = pd.to_numeric(cells.loc[held.ids]).to_numpy()
    others = np.where(np.isnan(others), np.nanmedian(values), others)
    np.testing.assert_allclose(column(held, "income"), (others - filled.mean()) / filled.std(), atol=1e-6)


def test_categories_are_indicators_and_missing_is_a_level(tables, mixed):
    train, _ = tables
    cells = mixed.set_index("key")["city"].loc[train.ids].to_numpy()
    np.testing.assert_array_equal(column(train, "city = 東京"), (cells == "東京").astype(np.float32))
    np.testing.assert_array_equal(column(train, "city = (missing)"), (cells == "NA").astype(np.float32))


def test_dates_become_numbers_in_order(tables, mixed):
    train, _ = tables
    days = pd.to_datetime(mixed.set_index("key")["joined"].loc[train.ids].replace("", None))
    seen = days.notna().to_numpy()
    seconds = column(train, "joined total seconds")[seen]
    np.testing.assert_array_equal(np.argsort(seconds), np.argsort(days[seen].to_numpy()))
    assert "joined hour" in train.features


def test_nothing_is_learned_from_the_hold_out(mixed):
    train, _ = split(from_frame(mixed, target="label", id_column="key"))
    changed = mixed.copy()
    outside = ~changed["key"].isin(train.ids)
    changed.loc[outside, ["age", "income", "city", "review"]] = [
        "5",
        "1000000",
        "Rome",
        "entirely new words in here",
    ]
    again, held = split(from_frame(changed, target="label", id_column="key"))
    np.testing.assert_array_equal(again.ids, train.ids)
    np.testing.assert_array_equal(again.x, train.x)
    assert np.abs(held.x[:, held.features.index("income")]).max() == 3.0
    assert held.x[:, [i for i, name in enumerate(held.features) if name.startswith("city")]].sum() == 0


def test_hold_out_with_unreadable_numbers_and_dates(mixed):
    train_part, held_part = mixed.iloc[:100], mixed.iloc[100:].copy()
    held_part.iloc[0, held_part.columns.get_loc("age")] = "?"
    held_part.iloc[1, held_part.columns.get_loc("age")] = "many"
    held_part.iloc[2, held_part.columns.get_loc("joined")] = "yesterday"
    _, held = split(from_frame(train_part, target="label"), from_frame(held_part, target="label"))
    assert np.isfinite(held.x).all()


def test_infinite_cell_names_column_and_row(refused):
    frame = pd.DataFrame({"x": ["1", "2", "inf", "4"] * 5, "y": range(0, 40, 2), "label": ["a", "b"] * 10})
    with refused(
        DataError, "finite numbers in column 'x'", "inf in the row with id", "division by zero", "empty"
    ):
        split(from_frame(frame, target="label"))
    frame["x"] = [1.0, -np.inf, *range(18)]
    frame["key"] = [f"k{i}" for i in range(20)]
    with refused(
        DataError, "column 'x'", "-inf in the row with id k1, 1 such cells", "division", "correct it"
    ):
        split(from_frame(frame, target="label", id_column="key"))


def test_no_feature_left(refused):
    frame = pd.DataFrame({"x": [1] * 8, "label": ["a", "b"] * 4})
    with refused(
        DataError, "at least one column to learn from", "none: 'x': constant", "without its", "add the"
    ):
        split(from_frame(frame, target="label"))


def test_row_numbers_and_identifiers_are_no_features():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"Unnamed: 0": range(100), "uuid": [f"{v:x}" for v in rng.integers(2**60, 2**63, 100)]}
    )
    frame["x"], frame["label"] = rng.normal(size=100), ["a", "b"] * 50
    train, _ = split(from_frame(frame, target="label"))
    assert train.dropped == {
        "Unnamed: 0": "it numbers the rows",
        "uuid": "a different word in every row: an identifier",
    }


def test_a_constant_with_gaps_keeps_only_the_mark():
    frame = pd.DataFrame({"x": ["3", "", "3", "3", ""] * 8, "label": ["a", "b"] * 20})
    train, _ = split(from_frame(frame, target="label"))
    assert train.features == ("x is missing",)


def test_mixed_cells_below_nine_tenths_numbers_are_words():
    frame = pd.DataFrame({"x": ["1", "2", "low", "high"] * 10, "label": ["a", "b"] * 20})
    train, _ = split(from_frame(frame, target="label"))
    assert train.used == {"x": "category of 4 levels"}


def test_one_typing_error_is_cut_at_three():
    frame = pd.DataFrame({"x": [*np.linspace(0, 1, 999), 1e12], "label": ["a", "b"] * 500})
    encoded = TableEncoder().fit_transform(frame[["x"]])
    assert encoded.max() == 3.0


@pytest.mark.slow
def test_text_width_is_bounded_whatever_the_vocabulary():
    rng = np.random.default_rng(0)
    cells = np.array(
        [" ".join(f"w{v}" for v in rng.integers(0, 10**6, 12)) for _ in range(2000)], dtype=object
    )
    encoder = TextEncoder(200, seed=1).fit(cells)
    block = encoder.transform(cells)
    assert block.shape == (2000, 200)
    assert encoder._projection.components_.shape == (200, BUCKETS)
    np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(block.var(axis=0).mean(), 1, rtol=1e-4)


@pytest.mark.slow
def test_many_text_columns_share_a_budget():
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(300)])
    frame = pd.DataFrame({f"t{j}": [" ".join(rng.choice(words, 8)) for _ in range(300)] for j in range(20)})
    assert TableEncoder().fit_transform(frame).shape == (300, 400)


def test_text_tells_topics_apart():
    rng = np.random.default_rng(0)
    topics = [["goal", "match", "team", "coach", "cup"], ["bank", "share", "rate", "bond", "loan"]]
    cells = np.array([" ".join(rng.choice(topics[i % 2], 6)) for i in range(200)], dtype=object)
    block = TextEncoder(10, seed=0).fit(cells).transform(cells)
    side = block @ (block[0::2].mean(axis=0) - block[1::2].mean(axis=0)) > 0
    assert (side == (np.arange(200) % 2 == 0)).all()


PROGRAM = """
import hashlib, sys, pandas as pd
from finfluence.ingest import read, split
train, held = split(read(sys.argv[1], target="label", id_column="key"), seed=3)
print(hashlib.sha256(train.x.tobytes() + held.x.tobytes() + str(train.ids).encode()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(tmp_path, mixed):
    mixed.to_csv(tmp_path / "a.csv", index=False)
    prints = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "a.csv")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(prints) == 1
    assert len(prints.pop().strip()) == hashlib.sha256().digest_size * 2


def test_importing_the_library_does_not_import_ingest():
    code = "import sys, finfluence; assert 'finfluence.ingest' not in sys.modules; " + (
        "import finfluence.ingest; assert not {'torch', 'sklearn', 'skrub', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("letters", ["abcdefgh", "!?;.,", "😀😃😄😁"])
def test_text_without_long_words(letters):
    rng = np.random.default_rng(0)
    cells = np.array([" ".join(rng.choice(list(letters), 8)) for _ in range(60)], dtype=object)
    block = TextEncoder(20, seed=0).fit(cells).transform(cells)
    assert block.shape[1] >= 2 and np.isfinite(block).all()


def test_a_declared_category_of_digits_is_a_category():
    frame = pd.DataFrame({"x": pd.Categorical([str(i % 5) for i in range(40)]), "label": ["a", "b"] * 20})
    assert split(from_frame(frame, target="label"))[0].used == {"x": "category of 5 levels"}


def test_a_text_that_tells_nothing_about_the_target_is_left_out():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    said = np.where(y == 1, "the screen is bright", "the box came late")
    filler = [" ".join(rng.choice(["one", "two", "three", "four", "five", "six"], 6)) for _ in y]
    frame = pd.DataFrame(
        {"told": [f"{a} {b}" for a, b in zip(said, filler, strict=True)], "empty talk": filler,
         "label": np.where(y == 1, "good", "bad")}
    )  # fmt: skip
    train, held = split(from_frame(frame, target="label"))
    told = [name for name in train.features if name.startswith("told text")]
    assert 1 <= len(told) < 60 and train.x.shape[1] == held.x.shape[1] == len(told)
    assert "tells nothing about the target" in train.dropped["empty talk"]
    assert any("'empty talk' (text that tells nothing" in text for text in train.warnings)
    alone, _ = split(from_frame(frame[["empty talk", "label"]], target="label"))
    assert alone.used["empty talk"] == "text" and 1 <= alone.x.shape[1] <= 4
