"""Labels and ids are texts unless every spelling is canonical; no two become one by accident."""

import json

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import from_frame, read, split

X = np.random.default_rng(0).normal(size=210)


def classes(path_or_frame, **options):
    raw = (
        from_frame(path_or_frame, "label", **options)
        if isinstance(path_or_frame, pd.DataFrame)
        else read(path_or_frame, "label", **options)
    )
    return split(raw)[0]


@pytest.mark.parametrize(
    "names",
    [
        [9007199254740992, 9007199254740993, 5],
        [2**63 + 5, 2**63 + 6, 2**64],
        ["3.1", "3.10", "3.9"],
        ["1.0", "1.00", "2"],
        ["01", "1", "2"],
        ["1e3", "1000", "7"],
        ["0.1", "0.10000000000000001", "0.2"],
        ["a", "A", "b"],
        ["1.2.3", "1.2.30", "1.20.3"],
        ["0x10", "16", "020"],
    ],
)
@pytest.mark.parametrize("task", ["auto", "classification"])
def test_three_spellings_are_three_classes(tmp_path, names, task):
    pd.DataFrame({"a": X, "label": [names[i % 3] for i in range(210)]}).to_csv(
        tmp_path / "d.csv", index=False
    )
    train = classes(tmp_path / "d.csv", task=task)
    if task == "auto" and train.task == "regression":
        assert "0.10000000000000001" in names
        return
    assert sorted(train.target.classes) == sorted(map(str, names))
    assert len(set(train.y)) == 3


def test_parquet_keeps_64_bits(tmp_path):
    names = [9007199254740992, 9007199254740993, 5]
    pd.DataFrame({"a": X, "label": [names[i % 3] for i in range(210)]}).to_parquet(tmp_path / "d.parquet")
    assert classes(tmp_path / "d.parquet").target.classes == (5, 9007199254740992, 9007199254740993)


def test_true_beside_one_is_said(write):
    records = [{"a": i % 7, "label": [True, 1, False, 0][i % 4]} for i in range(80)]
    train = classes(write("d.jsonl", "\n".join(map(json.dumps, records))))
    assert train.target.classes == (0, 1, False, True)
    assert [type(name) for name in train.target.classes] == [int, int, bool, bool]
    assert (
        "the target 'label' mixes true or false with 0 or 1: they are classes of their own" in train.warnings
    )


def test_whole_numbers_and_their_zeros_are_one_class(tmp_path):
    pd.DataFrame({"a": X, "label": [("1", "1.0", "2")[i % 3] for i in range(210)]}).to_csv(
        tmp_path / "d.csv", index=False
    )
    assert classes(tmp_path / "d.csv").target.classes == ("1", "2")


@pytest.mark.parametrize(
    ("label", "what"),
    [
        (lambda i: ["x", "y"] if i % 2 else ["x"], "lists in 60 of 60 rows, such as ['x'] in row 0"),
        (lambda i: {"x": i % 2}, "records in 60 of 60 rows, such as {'x': 0} in row 0"),
        (lambda i: [] if i == 7 else "xy"[i % 2], "lists in 1 of 60 rows, such as [] in row 7"),
        (lambda i: [[i % 2]], "lists in 60 of 60 rows, such as [[0]] in row 0"),
    ],
)
def test_several_labels_per_row_are_refused(write, refused, label, what):
    records = [{"a": i % 7, "label": label(i)} for i in range(60)]
    path = write("d.jsonl", "\n".join(map(json.dumps, records)))
    with refused(DataError, "one label per row in the target 'label'", what, "multi-label", "one by one"):
        read(path, "label")


def test_lists_in_parquet_and_frames_are_refused(tmp_path, refused):
    frame = pd.DataFrame({"a": range(60), "label": [[1, 2] if i % 2 else [1] for i in range(60)]})
    frame.to_parquet(tmp_path / "d.parquet")
    with refused(
        DataError, "one label per row", "lists in 60 of 60 rows", "not supported", "one label per row"
    ):
        read(tmp_path / "d.parquet", "label")
    with refused(
        DataError, "one label per row", "lists in 60 of 60 rows", "not supported", "one label per row"
    ):
        from_frame(frame, "label")


def test_versions_are_classes_and_prices_are_numbers(tmp_path):
    for cells, task in (
        (["3.1", "3.10", "3.9"], "classification"),
        (["3.10", "4.50", "12.99"], "regression"),
    ):
        pd.DataFrame({"a": X, "label": [cells[i % 3] for i in range(210)]}).to_csv(
            tmp_path / "d.csv", index=False
        )
        assert read(tmp_path / "d.csv", "label").task == task


@pytest.mark.parametrize("ids", [[1, "1", 2], [True, "True", 0], [1.5, "1.5", 3]])
def test_ids_that_collide_as_texts_are_refused(write, refused, ids):
    records = [{"key": ids[i] if i < 3 else 10 + i, "a": i % 7, "label": "ab"[i % 2]} for i in range(60)]
    with refused(
        DataError, "a different id in every row", "(2 times)", "appended twice", "remove the duplicates"
    ):
        read(write("d.jsonl", "\n".join(map(json.dumps, records))), "label", id_column="key")


def test_ids_of_64_bits_stay_apart(write):
    rows = "".join(f"{9007199254740990 + i},{i % 7},{'ab'[i % 2]}\n" for i in range(20))
    raw = read(write("d.csv", "key,a,label\n" + rows), "label", id_column="key")
    assert raw.ids.tolist() == [9007199254740990 + i for i in range(20)]


@pytest.mark.parametrize(
    "pair",
    [
        ("yes", "yes\u200b"),
        ("yes", "\ufeffyes"),
        ("yes", " yes"),
        ("yes", "yes\u00a0"),
        ("café", "cafe\u0301"),
        ("Å", "\u212b"),
    ],
)
def test_spellings_that_nobody_can_see_are_one_class(tmp_path, pair):
    names = (*pair, "no")
    frame = pd.DataFrame({"a": X, "label": [names[i % 3] for i in range(210)]})
    frame.to_csv(tmp_path / "d.csv", index=False)
    for train in (classes(frame), classes(tmp_path / "d.csv")):
        assert len(train.target.classes) == 2
        assert np.bincount(train.y).tolist() == ([56, 112] if train.target.classes[0] == "no" else [112, 56])


def test_a_hold_out_with_other_code_points_for_one_letter(tmp_path):
    frame = pd.DataFrame({"a": X, "label": [("café", "thé")[i % 2] for i in range(210)]})
    other = frame.assign(a=X[::-1], label=frame["label"].str.replace("é", "e\u0301"))
    train, held = split(from_frame(frame, "label"), from_frame(other, "label"))
    assert held.y.tolist() == train.y.tolist()


@pytest.mark.parametrize("pair", [("spam", "sр\u0430m"), ("A", "\uff21"), ("no 1", "no\u3000１")])
def test_classes_that_look_alike_are_said(pair):
    frame = pd.DataFrame({"a": X, "label": [(*pair, "other")[i % 3] for i in range(210)]})
    train = classes(frame)
    assert len(train.target.classes) == 3
    assert f"{pair[1]!a}, which look alike: they are classes" in " ".join(train.warnings) or (
        f"{pair[0]!a}, which look alike" in " ".join(train.warnings)
    )


@pytest.mark.parametrize("word", ["?", "unknown", "Unlabelled", "-", "TBD"])
def test_classes_that_may_be_no_labels_are_said(word):
    train = classes(pd.DataFrame({"a": X, "label": [("a", "b", word)[i % 3] for i in range(210)]}))
    assert any(
        f"holds {word!r}: a class of its own; leave those rows out" in warning for warning in train.warnings
    )
    two = classes(pd.DataFrame({"a": X, "label": [("known", word)[i % 2] for i in range(210)]}))
    assert not any("leave those rows out" in warning for warning in two.warnings)
