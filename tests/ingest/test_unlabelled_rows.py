"""Rows without labels: encoded as the hold-out rows of a split, and refused or doubted where they are of another kind."""

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import read, split, split_beside


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    n = 120
    frame = pd.DataFrame(
        {
            "id": [f"r{i}" for i in rng.permutation(n)],
            "size": rng.normal(5, 2, n).round(3),
            "kind": rng.choice(["red", "green", "blue"], n),
            "day": pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d").to_numpy()[rng.permutation(n)],
            "label": rng.choice(["yes", "no"], n),
        }
    )
    frame.loc[rng.choice(n, 10, replace=False), "size"] = np.nan
    frame[:90].to_csv(tmp_path / "train.csv", index=False)
    frame[90:].to_csv(tmp_path / "held.csv", index=False)
    return tmp_path


def raw_of(files):
    return read(files / "train.csv", target="label", id_column="id")


def written(files, change):
    frame = pd.read_csv(files / "held.csv")
    change(frame).to_csv(files / "new.csv", index=False)
    return files / "new.csv"


def read_unlabelled(raw, source, *given, **options):
    return split_beside(raw, source, *given, **options)[2]


def test_the_hold_out_file_without_its_labels_becomes_the_features_of_the_hold_out(files):
    raw = raw_of(files)
    held = split(raw, files / "held.csv", seed=3)[1]
    new = written(files, lambda f: f.drop(columns=["label", "id"])[["day", "kind", "size"]])
    found = read_unlabelled(raw, new, files / "held.csv", seed=3)
    assert np.array_equal(found.x, held.x)
    assert found.notes == () and found.warnings == () and len(found) == 30


def test_a_drawn_hold_out_decides_the_same_scales(files):
    raw = raw_of(files)
    train, _ = split(raw, seed=1)
    new = written(files, lambda f: f.drop(columns="label"))
    assert read_unlabelled(raw, new, seed=1).x.shape[1] == train.x.shape[1]
    assert not np.array_equal(read_unlabelled(raw, new, seed=1).x, read_unlabelled(raw, new, seed=2).x)


def test_a_target_and_columns_of_no_use_are_ignored_and_said(files):
    raw = raw_of(files)
    plain = read_unlabelled(raw, written(files, lambda f: f.drop(columns="label")), seed=1)
    found = read_unlabelled(raw, written(files, lambda f: f.assign(label="maybe", extra=1)), seed=1)
    assert np.array_equal(found.x, plain.x)
    assert any("holds the target 'label': it is ignored" in note for note in found.notes)
    assert any("columns that training does not have are ignored: 'extra'" in note for note in found.notes)


def test_lost_missing_and_distant_cells_are_said_loudly(files):
    raw = raw_of(files)

    def odd(frame):
        frame.loc[:2, "kind"] = "violet"
        frame["size"] = frame["size"] * 40
        frame.loc[10:, "day"] = None
        return frame

    said = " | ".join(read_unlabelled(raw, written(files, odd), seed=1).warnings)
    assert (
        "unlabelled column 'kind': 3 of 30 cells cannot be read as in training, or are unknown there, such as 'violet'"
        in said
    )
    assert "unlabelled column 'day': 67% of the cells are missing, 0% in training" in said
    assert "'size' (" in said and "are they in another unit?" in said


def test_a_missing_column_a_wrong_kind_and_the_training_file_itself_are_refused(files):
    raw = raw_of(files)
    with pytest.raises(DataError, match=r"it lacks 'size'; .*did you mean 'sise'") as told:
        read_unlabelled(raw, written(files, lambda f: f.rename(columns={"size": "sise"})))
    assert "without the target" in str(told.value)
    with pytest.raises(DataError, match="cannot be read so") as told:
        read_unlabelled(raw, written(files, lambda f: f.assign(size="n/k?")))
    assert "numbers in column 'size' of the unlabelled file" in str(told.value)
    with pytest.raises(DataError, match="not the training rows"):
        read_unlabelled(raw, files / "train.csv")
    with pytest.raises(DataError, match="does not exist"):
        read_unlabelled(raw, files / "nothing.csv")
    np.savez(files / "new.npz", x=np.zeros((3, 2)))
    with pytest.raises(DataError, match="of the same kind as the training data"):
        read_unlabelled(raw, files / "new.npz")


def test_arrays_and_folders_of_images_need_no_labels(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 3)), rng.integers(2, size=40)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez(tmp_path / "b.npz", x=x[:7] + 0.5)
    raw = read(tmp_path / "a.npz")
    assert read_unlabelled(raw, tmp_path / "b.npz").x.shape == (7, 3)
    np.savez(tmp_path / "c.npz", x=np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"unlabelled samples of shape \[3\]"):
        read_unlabelled(raw, tmp_path / "c.npz")
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for k in range(6):
            picture = rng.integers(0, 255, (10, 10, 3), dtype=np.uint8)
            image.fromarray(picture).save(tmp_path / "train" / name / f"{k}.png")
    (tmp_path / "new").mkdir()
    for k in range(3):
        image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(tmp_path / "new" / f"{k}.png")
    assert read_unlabelled(read(tmp_path / "train"), tmp_path / "new").x.shape == (3, 3, 10, 10)
