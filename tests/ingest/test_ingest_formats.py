import datetime
import json

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import ConfigError, DataError
from finfluence.ingest import Source, from_frame, read, reread, split


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "n": [1, 2, 3, 4, 5, 6],
            "gap": pd.array([1, None, 3, 4, 5, 6], dtype="Int64"),
            "flag": [True, False, True, True, False, False],
            "when": pd.date_range("2024-01-01", periods=6, freq="D", tz="UTC"),
            "word": pd.Categorical(["u", "v", "u", "v", "u", "v"]),
            "label": ["a", "b", "a", "b", "a", "b"],
        }
    )


def test_parquet_keeps_values_and_types(tmp_path, frame):
    frame.to_parquet(tmp_path / "a.parquet")
    raw = read(tmp_path / "a.parquet", target="label")
    assert raw.frame["gap"].tolist() == [1, None, 3, 4, 5, 6]
    assert raw.frame["n"].dtype == np.int64
    assert raw.frame["word"].dtype == "category"
    train, held = split(raw, holdout_fraction=0.34)
    assert set(train.used) | set(train.dropped) == {"n", "gap", "flag", "when", "word"}
    assert train.dropped == {"n": "it numbers the rows"}
    assert train.x.dtype == np.float32 and np.isfinite(train.x).all() and np.isfinite(held.x).all()


def test_json_lines_keep_every_cell(write):
    records = [
        {"a": i, "b": None if i == 2 else f"t{i % 2}", "tags": ["p", "q"][: 1 + i % 2], "label": bool(i % 2)}
        for i in range(8)
    ]
    raw = read(
        write("a.jsonl", "\n".join(json.dumps(r, ensure_ascii=False) for r in records)), target="label"
    )
    assert raw.frame.to_dict("records") == records
    assert raw.task == "classification" and set(raw.labels) == {True, False}
    train, _ = split(raw)
    assert train.target.classes == (False, True)
    assert "tags" in train.used


def test_formats_agree(tmp_path, mixed):
    mixed.to_csv(tmp_path / "a.csv", index=False)
    mixed.to_parquet(tmp_path / "a.parquet", index=False)
    mixed.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    tables = [
        split(read(tmp_path / f"a.{end}", target="label", id_column="key"))[0]
        for end in ("csv", "parquet", "jsonl")
    ]
    for table in tables[1:]:
        assert table.features == tables[0].features
        np.testing.assert_array_equal(table.x, tables[0].x)
        np.testing.assert_array_equal(table.ids, tables[0].ids)


def test_corrupt_parquet(write, refused):
    with refused(DataError, "a Parquet file", "cannot be read", "did not finish", "write the file again"):
        read(write("a.parquet", b"PAR1 and then nothing"), target="label")


def test_corrupt_json_line(write, refused):
    with refused(
        DataError, "one JSON object in every line", "line 2:", "one large JSON document", "lines=True"
    ):
        read(write("a.jsonl", '{"x": 1}\n{"x": \n'), target="x")
    with refused(DataError, "one JSON object in every line", "holds a list", "one large JSON", "lines=True"):
        read(write("b.jsonl", "[1, 2]\n"), target="x")


def test_missing_file_names_a_neighbour(write, refused):
    path = write("train.csv", "x,label\n1,a\n2,b\n")
    with refused(
        DataError, "a file, a folder", "did you mean 'train.csv'?", "a spelling mistake", "check the path"
    ):
        read(path.with_name("trian.csv"), target="label")
    with refused(
        DataError, "built-in data set", "did you mean 'digits'?", "spelling", "'digits', 'fashion-mnist'"
    ):
        read("digit")


def test_unknown_extension(write, refused):
    with refused(DataError, "a file ending in '.csv'", "ends in '.xlsx'", "another format", "save as CSV"):
        read(write("a.xlsx", b"x"), target="label")
    with refused(
        DataError, "or a folder of images", "did you mean '.parquet'?", "another format", "convert it"
    ):
        read(write("a.parquets", b"x"), target="label")


def test_missing_column_lists_all_and_the_nearest(write, refused):
    path = write("a.csv", "x,Label \n1,a\n2,b\n")
    with refused(
        DataError, "the target column 'label'", "'x', 'Label'; did you mean 'Label'?", "header", "name one"
    ):
        read(path, target="label")
    with refused(DataError, "the id column 'row'", "columns 'x', 'Label'", "spelling mistake", "as id"):
        read(path, target="Label ", id_column="row")
    with refused(ConfigError, "the column to predict", "columns 'x', 'Label'", "does not say", "--target"):
        read(path)
    with refused(ConfigError, "different columns", "'x' in two of these roles", "copied", "another column"):
        read(path, target="x", group_column="x")


def test_ids_must_be_unique_and_present(write, refused):
    path = write("a.csv", "id,other,label\n1,,a\n2,q,b\n2,r,b\n7,s,a\n7,t,a\n7,u,b\n")
    with refused(
        DataError, "a different id in every row", "'2 (2 times)', '7 (3 times)'", "appended twice", "--id"
    ):
        read(path, target="label", id_column="id")
    with refused(
        DataError, "an id in every row of column 'other'", "1 rows have none: rows 0", "no id", "--id"
    ):
        read(path, target="label", id_column="other")


def test_ids_are_integers_only_if_nothing_is_lost(write):
    rows = "".join(f"{{}},{label}\n" for label in "abab")
    plain = read(write("a.csv", "id,label\n" + rows.format(10, 11, 12, -3)), target="label", id_column="id")
    assert plain.ids.dtype == np.int64 and plain.ids.tolist() == [10, 11, 12, -3]
    padded = read(
        write("b.csv", "id,label\n" + rows.format("01", "02", 3, 4)), target="label", id_column="id"
    )
    assert padded.ids.tolist() == ["01", "02", "3", "4"]


def test_source_reads_again_and_notices_a_change(write, refused):
    path = write("a.csv", "x;label\n1;a\n2;b\n")
    raw = read(path, target="label")
    source = Source.from_dict(json.loads(json.dumps(raw.source.to_dict())))
    assert reread(source).frame.equals(raw.frame)
    assert source.options["task"] == "classification" and source.format == "csv" and len(source.digest) == 64
    path.write_text("x;label\n1;a\n3;b\n")
    with refused(DataError, source.digest[:12], "SHA-256", "was changed", "restore the file"):
        reread(source)


def test_frames_in_memory(frame, refused):
    raw = from_frame(frame, target="label", group_column="word")
    assert raw.groups.tolist() == ["u", "v", "u", "v", "u", "v"]
    assert raw.source.format == "memory"
    with refused(DataError, "a file, a folder", "in memory", "from Python", "with that frame"):
        reread(raw.source)


def test_objects_that_are_dates(frame):
    frame["day"] = [datetime.date(2024, 1, day) for day in (1, 2, 3, 5, 8, 13)]
    train, _ = split(from_frame(frame, target="label"), holdout_fraction=0.34)
    assert train.used["day"] == "date"
