import numpy as np
import pandas as pd
import pytest

from finfluence.errors import ConfigError, DataError
from finfluence.ingest import from_frame, plant_label_errors, read, split

TRAIN = "x,word,label\n" + "".join(f"{i * i},w{i % 3},{'ab'[i % 2]}\n" for i in range(30))


def test_each_class_gives_its_share():
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10 + ["rare"]
    frame = pd.DataFrame({"x": np.arange(101) ** 2, "label": labels})
    train, held = split(from_frame(frame, target="label"), holdout_fraction=0.2, seed=4)
    assert pd.Series(held.labels).value_counts().to_dict() == {"a": 12, "b": 6, "c": 2}
    said = "class of a single row in the target: 'rare'; it stays in training, and nothing can test it"
    assert said in train.warnings
    assert sorted([*train.ids, *held.ids]) == list(range(101))
    assert (np.diff(train.ids) > 0).all() and (np.diff(held.ids) > 0).all()
    for table in (train, held):
        np.testing.assert_array_equal(table.frame["x"].to_numpy(), table.ids**2)
        np.testing.assert_array_equal(table.labels, table.frame["label"].to_numpy(dtype=object))


def test_the_seed_decides(write):
    raw = read(write("a.csv", TRAIN), target="label")
    first, second, other = (split(raw, seed=seed)[1].ids for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert first.tolist() != other.tolist()


def test_hold_out_file(write):
    raw = read(write("a.csv", TRAIN), target="label")
    train, held = split(raw, write("b.csv", "label,word,x\nb,w1,4\nb,new,\n"))
    assert (len(train), len(held)) == (30, 2)
    assert held.y.tolist() == [1, 1] and held.features == train.features
    assert np.isfinite(held.x).all()
    values = np.arange(30.0) ** 2
    np.testing.assert_allclose(
        held.x[0, held.features.index("x")], (4 - values.mean()) / values.std(), rtol=1e-5
    )


def test_hold_out_with_other_columns(write, refused):
    raw = read(write("a.csv", TRAIN), target="label")
    with refused(
        DataError,
        "the 3 columns of the training file",
        "it lacks 'word' and has 'words', 'z' in addition; did you mean 'words'?",
        "two exports",
        "the same columns",
    ):
        split(raw, write("b.csv", "x,words,z,label\n1,a,2,a\n"))


def test_hold_out_with_unseen_classes(write, refused):
    raw = read(write("a.csv", TRAIN), target="label")
    with refused(
        DataError, "the 2 training classes: 'a', 'b'", "'A (2 rows)'; did you mean 'a'?", "spelling", "leave"
    ):
        split(raw, write("b.csv", "x,word,label\n1,a,A\n2,b,b\n3,a,A\n"))


def test_hold_out_target_with_gaps(write, refused):
    raw = read(write("a.csv", TRAIN), target="label")
    with refused(
        DataError,
        "the target 'label' in every row",
        "1 of 2 rows have none: rows 1",
        "labelled",
        "label them",
    ):
        split(raw, write("b.csv", "x,word,label\n1,a,a\n2,b,\n"))


def test_hold_out_of_another_kind(write, tmp_path, refused):
    np.savez(tmp_path / "b.npz", x=np.ones((4, 2)), label=np.arange(4) % 2)
    raw = read(write("a.csv", TRAIN), target="label")
    with refused(
        DataError, "same kind as the training data (table)", "arrays", "two data sets", "same format"
    ):
        split(raw, tmp_path / "b.npz")


def test_hold_out_that_is_the_training_file(write, refused):
    path = write("a.csv", TRAIN)
    with refused(
        DataError, "not the training rows", "the very content of", "given twice", "leave --holdout out"
    ):
        split(read(path, target="label"), path)


def test_hold_out_arrays_of_another_width(tmp_path, refused):
    y = np.arange(8) % 2
    np.savez(tmp_path / "a.npz", x=np.arange(16.0).reshape(8, 2), y=y)
    np.savez(tmp_path / "b.npz", x=np.ones((8, 3)), y=y)
    with refused(DataError, "samples of shape [2]", "shape [3]", "another preparation", "in the same way"):
        split(read(tmp_path / "a.npz"), tmp_path / "b.npz")


@pytest.mark.parametrize("fraction", [0, 1, 20, -0.5])
def test_fraction_out_of_range(write, refused, fraction):
    raw = read(write("a.csv", TRAIN), target="label")
    cause = "percentage" if fraction >= 1 else "no rows to hold out"
    with refused(ConfigError, "between 0 and 1", str(fraction), cause, "use 0.2"):
        split(raw, holdout_fraction=fraction)


def test_file_and_fraction(write, refused):
    raw = read(write("a.csv", TRAIN), target="label")
    with refused(
        ConfigError, "either a hold-out file or", "both (0.3 and a file)", "two commands", "leave one"
    ):
        split(raw, "b.csv", holdout_fraction=0.3)


def test_too_few_rows(write, refused):
    raw = read(write("a.csv", "x,label\n1,a\n3,b\n2,a\n"), target="label")
    with refused(DataError, "at least 4 rows", "3 rows", "a sample file", "--holdout"):
        split(raw)


def test_preview_shows_roles_first_and_cuts(write):
    wide = pd.DataFrame({f"c{i}": np.arange(20) * i for i in range(50)})
    wide["text"], wide["label"], wide["key"] = "y" * 1000, ["a", "b"] * 10, range(100, 120)
    train, _ = split(from_frame(wide, target="label", id_column="key"))
    cells = train.preview(0)["cells"]
    assert list(cells)[:3] == ["label", "key", "c0"] and len(cells) == 41
    assert cells["…"] == "and 13 more columns"
    cells = train.preview(0, max_cells=100)["cells"]
    assert len(cells["text"]) == 300 and cells["text"].endswith("…")


def test_take_keeps_rows_together(write):
    train, _ = split(read(write("a.csv", TRAIN), target="label"))
    some = train.take([5, 2])
    assert some.ids.tolist() == train.ids[[5, 2]].tolist()
    assert some.frame["x"].tolist() == train.frame["x"].iloc[[5, 2]].tolist()
    np.testing.assert_array_equal(some.x, train.x[[5, 2]])


@pytest.mark.parametrize("form", ["frame", "raw", "table"])
def test_planted_errors_are_where_they_are_said_to_be(form):
    frame = pd.DataFrame({"x": np.arange(200) ** 2, "label": [f"c{i % 4}" for i in range(200)]})
    before = frame.copy()
    data = {"frame": frame, "raw": from_frame(frame, target="label")}
    data["table"] = split(data["raw"])[0]
    changed, rows = plant_label_errors(data[form], 0.1, seed=5)
    again, same = plant_label_errors(data[form], 0.1, seed=5)
    _, others = plant_label_errors(data[form], 0.1, seed=6)
    np.testing.assert_array_equal(rows, same)
    for one, two in [(changed, again)] if form == "frame" else [(changed.frame, again.frame)]:
        pd.testing.assert_frame_equal(one, two)
    assert rows.tolist() != others.tolist()
    n = 160 if form == "table" else 200
    assert len(rows) == len(set(rows)) == n // 10
    now = changed["label"].to_numpy() if form == "frame" else changed.labels
    then = frame["label"].to_numpy() if form == "frame" else data[form].labels
    ids = np.arange(200) if form == "frame" else data[form].ids
    np.testing.assert_array_equal(np.sort(ids[now != then]), np.sort(rows))
    if form != "frame":
        np.testing.assert_array_equal(changed.frame["label"].to_numpy(), now)
    pd.testing.assert_frame_equal(frame, before)


def test_planting_needs_a_fraction_and_classes(refused):
    frame = pd.DataFrame({"x": np.arange(30) ** 2, "label": np.arange(30) / 7})
    with refused(ConfigError, "between 0 and 1", "fraction 10", "percentage", "use 0.1"):
        plant_label_errors(frame, 10)
    with refused(ConfigError, "a classification", "0.1 of a regression", "no other class", "use 0.1"):
        plant_label_errors(from_frame(frame, target="label"), 0.1)
    with refused(DataError, "the target column 'lable'", "did you mean 'label'?", "spelling", "as target"):
        plant_label_errors(frame, 0.1, target="lable")
