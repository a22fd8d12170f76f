"""Whatever can be scanned can be cleaned: nested labels, byte-order marks, blank lines, quoted cells behind blanks."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_decisions import decisions

from finfluence.clean import Layout, write_clean
from finfluence.errors import ConfigError, DataError
from finfluence.ingest import read
from four_parts import assert_parts

ROWS = 6
WORDS = ["a" if i % 2 else "b" for i in range(ROWS)]
PLAN = decisions(list(range(ROWS)), ["keep", "drop", "keep", "relabel", "keep", "keep"], {3: "b"})


def cleaned(raw, suffix, tmp_path, target="label"):
    source, goal = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    source.write_bytes(raw)
    write_clean(PLAN, source, goal, target)
    return goal.read_bytes()


LINES = [f'{{"n": {i}, "m": {{"label": "x"}}, "label": {{"k": ["{w}", 1]}}}}\n' for i, w in enumerate(WORDS)]


def test_a_label_within_records_of_json_lines(tmp_path):
    found = cleaned("".join(LINES).encode(), ".jsonl", tmp_path, "label.k[0]").decode()
    assert found.splitlines(keepends=True) == [LINES[0], LINES[2], LINES[3].replace('"a"', '"b"'), *LINES[4:]]


def test_json_lines_keep_mark_encoding_and_blank_lines(tmp_path):
    text = "\ufeff" + "".join(f'{{"label": "{w}", "t": "é"}}\n\n' for w in WORDS) + "\n"
    lines = [f'{{"label": "{w}", "t": "é"}}\n\n' for w in WORDS]
    wanted = "\ufeff" + "".join([lines[0], lines[2], lines[3].replace('"a"', '"b"'), *lines[4:]]) + "\n"
    for encoding in ("utf-8", "utf-16-le"):
        assert cleaned(text.encode(encoding), ".jsonl", tmp_path) == wanted.encode(encoding)
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_line_without_the_label_to_replace(tmp_path):
    lines = [json.dumps({"n": i} if i == 3 else {"label": w}) + "\n" for i, w in enumerate(WORDS)]
    with pytest.raises(DataError) as caught:
        cleaned("".join(lines).encode(), ".jsonl", tmp_path)
    assert_parts(caught.value, "the key 'label' in every line that gets a new label", '{"n": 3}', "a key that is left out", 'action="drop"')  # fmt: skip


def test_a_label_within_records_of_parquet(tmp_path):
    table = pa.table(
        {"label": pa.array([{"k": w, "j": i} for i, w in enumerate(WORDS)]), "n": list(range(ROWS))}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    write_clean(PLAN, tmp_path / "in.parquet", tmp_path / "out.parquet", "label.k")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema == table.schema and found["n"].to_pylist() == [0, 2, 3, 4, 5]
    assert found["label"].to_pylist()[2] == {"k": "b", "j": 3}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_quoted_cells_behind_a_blank(mark, tmp_path):
    lines = [f'{i}{mark} "{w}"{mark} "x{mark} ""{i}"""\n' for i, w in enumerate(WORDS)]
    raw = f"n{mark} label{mark} t\n" + "".join(lines)
    (tmp_path / "in.csv").write_text(raw)
    table = read(tmp_path / "in.csv", target="label")
    assert table.labels.tolist() == WORDS and table.frame["t"].iloc[1].strip() == f'x{mark} "1"'
    write_clean(PLAN, tmp_path / "in.csv", tmp_path / "out.csv", "label", layout=Layout(delimiter=mark))
    wanted = [lines[0], lines[2], lines[3].replace('"a"', '"b"'), *lines[4:]]
    assert (tmp_path / "out.csv").read_text() == f"n{mark} label{mark} t\n" + "".join(wanted)


def test_a_quotation_mark_within_a_cell_stays_one(tmp_path):
    raw = "t,label\n" + "".join(f' "big" one {i},{w}\n' for i, w in enumerate(WORDS))
    (tmp_path / "in.csv").write_text(raw)
    assert read(tmp_path / "in.csv", target="label").frame["t"].iloc[0] == ' "big" one 0'


@pytest.mark.parametrize("name", ["", "."])
def test_a_folder_is_no_name_of_a_file(name, tmp_path):
    (tmp_path / "in.csv").write_text("label\na\nb\n")
    (tmp_path / "new").mkdir()
    with pytest.raises(ConfigError) as caught:
        write_clean(decisions([0], ["keep"]), tmp_path / "in.csv", tmp_path / "new" / name, "label")
    assert_parts(caught.value, "the name of a new file", "the folder '", "a folder was named", "cleaned.csv")


def test_texts_that_arrow_keeps_as_views(tmp_path):
    table = pa.table({"label": pa.array(WORDS, pa.string_view()), "n": list(range(ROWS))})
    pq.write_table(table, tmp_path / "in.parquet")
    write_clean(PLAN, tmp_path / "in.parquet", tmp_path / "out.parquet", "label")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema == table.schema and found["n"].to_pylist() == [0, 2, 3, 4, 5]
    assert found["label"].to_pylist() == [*WORDS[:1], WORDS[2], "b", *WORDS[4:]]
