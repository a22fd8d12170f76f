"""Records and lists in cells become columns of numbers; what cannot is said to be text."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finfluence.errors import DataError
from finfluence.ingest import column_decisions, from_frame, read, split

N = 80
VALUES = np.random.default_rng(0).normal(size=N).round(3)
LABELS = ["ab"[i % 2] for i in range(N)]


def lines(write, record):
    return write("d.jsonl", "\n".join(json.dumps({**record(i), "label": LABELS[i]}) for i in range(N)))


def plain(path):
    train, _ = split(read(path, "label"))
    return train


def test_records_become_columns(write):
    train = plain(lines(write, lambda i: {"p": {"a": VALUES[i], "b": {"c": i % 3}}, "q": i % 5}))
    assert train.features == ("p.a", "p.b.c", "q")
    seen = VALUES[train.ids]
    np.testing.assert_allclose(train.x[:, 0], (seen - seen.mean()) / seen.std(), atol=1e-4)
    assert "column 'p' holds records: read as 2 columns, such as 'p.a'" in train.warnings
    assert train.column_decisions["column"].tolist() == ["p.a", "p.b.c", "q", "label"]


def test_missing_keys_and_records_are_missing_cells(write):
    train = plain(
        lines(
            write,
            lambda i: {"p": None if i % 9 == 0 else {"a": VALUES[i], **({"b": i % 7} if i % 2 else {})}},
        )
    )
    assert {"p.a", "p.b", "p.a is missing", "p.b is missing"} <= set(train.features)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "frame"])
def test_lists_of_one_length_become_columns(write, tmp_path, form):
    cells = [[float(VALUES[i]), float(i * 7 % 11)] for i in range(N)]
    if form == "jsonl":
        raw = read(lines(write, lambda i: {"v": cells[i]}), "label")
    elif form == "parquet":
        pq.write_table(pa.table({"v": cells, "label": LABELS}), tmp_path / "d.parquet")
        raw = read(tmp_path / "d.parquet", "label")
    else:
        raw = from_frame(pd.DataFrame({"v": cells, "label": LABELS}), "label")
    train, _ = split(raw)
    assert train.features == ("v[0]", "v[1]")


def test_structs_of_parquet(tmp_path):
    cells = [{"a": float(VALUES[i]), "b": str(i % 3)} for i in range(N)]
    pq.write_table(pa.table({"v": cells, "label": LABELS}), tmp_path / "d.parquet")
    assert plain(tmp_path / "d.parquet").features[:2] == ("v.a", "v.b")
    assert column_decisions(tmp_path / "d.parquet")["column"].tolist() == ["v.a", "v.b", "label"]


@pytest.mark.parametrize(
    "cell",
    [lambda i: ["x"] * (1 + i % 3), lambda i: [{"a": 1}, i % 5], lambda i: {f"k{i}{j}": 1 for j in range(5)}],
    ids=["lengths", "mixed", "too many keys"],
)
def test_other_lists_are_said_to_be_text(write, cell):
    train = plain(lines(write, lambda i: {"v": cell(i), "q": i % 5}))
    assert "column 'v' holds lists or records: read as text" in train.warnings


def test_a_name_that_there_is_stays_its_own(write):
    train = plain(lines(write, lambda i: {"p": {"a": i % 4, "b": i % 3}, "p.a": VALUES[i]}))
    assert "p.a" in train.features
    assert "column 'p' holds lists or records: read as text" in train.warnings


def test_a_target_of_records_is_refused_as_such(refused):
    frame = pd.DataFrame({"x": VALUES, "label": [{"v": label} for label in LABELS]})
    with refused(
        DataError, "one label per row", "records in 80 of 80 rows", "several labels", "one label per row"
    ):
        from_frame(frame, "label")


def test_a_hold_out_is_flattened_alike(write):
    record = lambda i: {"p": {"a": float(VALUES[i])}, "q": i % 5}  # noqa: E731
    path = lines(write, record)
    other = write("h.jsonl", "\n".join(path.read_text().splitlines()[:40][::-1]))
    train, held = split(read(path, "label"), other)
    np.testing.assert_allclose(held.x, train.x[:40][::-1])
