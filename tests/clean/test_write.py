import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_decisions import decisions

from finfluence.clean import CleanOptions, Layout, write_clean
from finfluence.errors import ConfigError, DataError, StorageError
from four_parts import assert_parts

RAW = (
    b'\xef\xbb\xbfid,"text",value,label\r\n'
    b'7,"a ""quoted"", cell\nover two lines",1.50,cat\r\n'
    b"\r\n"
    b"8,=HYPERLINK(1),-1.5,cat\r\n"
    b"9,  spaces  ,1e5,dog\r\n"
    b'11,"@x",+3,"dog"\r\n'
    b"12,caf\xc3\xa9,,cat"
)


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(RAW)
    return path


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_csv_keeps_every_byte_of_every_kept_cell(csv, tmp_path):
    made = decisions([8, 9, 11], ["drop", "relabel", "relabel"], {9: "cat", 11: 'a "b"'})
    done = write_clean(made, csv, tmp_path / "out" / "cleaned.csv", target="label", id_column="id")
    expected = (
        RAW.replace(b"\r\n8,=HYPERLINK(1),-1.5,cat\r\n", b"", 1)
        .replace(b"1.50,cat\r\n", b"1.50,cat\r\n", 1)
        .replace(b"1e5,dog", b"1e5,cat")
        .replace(b'"dog"', b'"a ""b"""')
    )
    assert done.path.read_bytes() == expected
    assert csv.read_bytes() == RAW
    assert (done.kept, done.dropped, done.relabelled, done.review) == (4, 1, 2, 0)
    assert listing(tmp_path) == ["out", "out/cleaned.audit.csv", "out/cleaned.csv", "train.csv"]


def test_nothing_to_do_gives_the_same_bytes(csv, tmp_path):
    done = write_clean(decisions([7], ["keep"]), csv, tmp_path / "same.csv", id_column="id")
    assert done.path.read_bytes() == RAW
    assert len(pd.read_csv(done.audit_path)) == 0


def test_row_numbers_are_the_ids_where_no_column_is_named(csv, tmp_path):
    done = write_clean(decisions([0, 4], ["drop", "drop"]), csv, tmp_path / "c.csv", target="label")
    assert pd.read_csv(done.path)["id"].tolist() == [8, 9, 11]
    audit = pd.read_csv(done.audit_path)
    assert audit["line"].tolist() == [2, 8]
    assert audit["from_label"].tolist() == ["cat", "cat"]


def test_formula_cells_are_counted_left_alone_and_escaped_on_request(csv, tmp_path):
    plain = write_clean(decisions([7], ["keep"]), csv, tmp_path / "plain.csv", id_column="id")
    assert plain.formula_cells == 2
    assert plain.warnings[0].startswith("2 cells of plain.csv start like a formula")
    safe = write_clean(
        decisions([7], ["keep"]),
        csv,
        tmp_path / "safe.csv",
        id_column="id",
        options=CleanOptions(escape_formulas=True),
    )
    text = safe.path.read_bytes()
    assert b"8,'=HYPERLINK(1),-1.5,cat" in text and b'11,"\'@x",+3,' in text
    assert (safe.formula_cells, safe.warnings) == (0, ())


def test_what_we_add_cannot_inject_a_formula(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text("id,label\n=1+1,@cat\nb,cat\n-2.5,cat\n")
    made = decisions(["=1+1", "b", "-2.5"], ["drop", "relabel", "drop"], {"b": "=cmd()"})
    done = write_clean(made, source, tmp_path / "c.csv", target="label", id_column="id")
    audit = pd.read_csv(done.audit_path, dtype=str)
    assert audit["row_id"].tolist() == ["'=1+1", "b", "-2.5"]
    assert audit["from_label"].tolist() == ["'@cat", "cat", "cat"]
    assert audit["to_label"].tolist()[1] == "'=cmd()"


def test_other_delimiters_and_encodings(tmp_path):
    source = tmp_path / "t.csv"
    source.write_bytes("n;näme;label\n1;zürich;a\n2;x;b\n".encode("cp1252"))
    done = write_clean(
        decisions([1], ["relabel"], {1: "a;b"}),
        source,
        tmp_path / "c.csv",
        target="label",
        layout=Layout(delimiter=";"),
    )
    assert done.path.read_bytes() == 'n;näme;label\n1;zürich;a\n2;x;"a;b"\n'.encode("cp1252")
    tsv = tmp_path / "t.tsv"
    tsv.write_bytes("x\tlabel\n1\ta\n2\tb\n".encode("utf-16"))
    done = write_clean(decisions([0], ["drop"]), tsv, tmp_path / "d.tsv")
    assert done.path.read_bytes() == "x\tlabel\n2\tb\n".encode("utf-16")


def test_json_lines_keep_their_text(tmp_path):
    source = tmp_path / "t.jsonl"
    lines = ['{"x": 1e5, "y" : 3, "é": [1, {"y": 0}]}', "", '{"x":2.0,"y":1}', '{"y": 3, "x": null}']
    source.write_text("\n".join(lines) + "\n")
    made = decisions([0, 1], ["relabel", "drop"], {0: 1.0})
    done = write_clean(made, source, tmp_path / "c.jsonl", target="y")
    assert done.path.read_text() == lines[0].replace(": 3", ": 1") + "\n" + lines[2 + 1] + "\n"
    assert pd.read_csv(done.audit_path)["line"].tolist() == [1, 3]


def test_parquet_keeps_schema_and_metadata(tmp_path):
    schema = pa.schema(
        [("id", pa.int32()), ("y", pa.dictionary(pa.int8(), pa.string())), ("v", pa.list_(pa.float32()))],
        metadata={"made": "by hand"},
    )
    table = pa.table(
        {"id": [5, 6, 7], "y": pa.array(["a", "b", None]).dictionary_encode(), "v": [[1.0], None, []]}
    ).cast(pa.schema([*schema]))
    pq.write_table(table.replace_schema_metadata(schema.metadata), tmp_path / "t.parquet")
    made = decisions([6, 5], ["drop", "relabel"], {5: "b"})
    done = write_clean(made, tmp_path / "t.parquet", tmp_path / "c.parquet", target="y", id_column="id")
    after = pq.read_table(done.path)
    assert after.to_pylist() == [{"id": 5, "y": "b", "v": [1.0]}, {"id": 7, "y": None, "v": []}]
    assert after.schema.equals(pq.read_table(tmp_path / "t.parquet").schema, check_metadata=True)


def test_arrays(tmp_path):
    np.savez(
        tmp_path / "t.npz",
        x=np.arange(6.0).reshape(3, 2),
        y=np.array([0, 1, 1]),
        names=np.array(["no", "yes"]),
    )
    made = decisions([0, 2], ["drop", "relabel"], {2: 0})
    done = write_clean(made, tmp_path / "t.npz", tmp_path / "c.npz")
    with np.load(done.path, allow_pickle=False) as after:
        assert after["x"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
        assert after["y"].tolist() == [1, 0]
        assert after["names"].tolist() == ["no", "yes"]


def test_a_folder_of_images_gets_a_manifest_and_no_file_is_touched(tmp_path):
    ids = ["cat/1.png", "cat/2.png", "=dog/3.png"]
    for name in ids:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"picture")
    before = listing(tmp_path / "images")
    made = decisions(ids, ["drop", "relabel", "keep"], {"cat/2.png": "=dog"})
    done = write_clean(
        made,
        tmp_path / "images",
        tmp_path / "clean.csv",
        layout=Layout(ids=ids, labels=["cat", "cat", "=dog"]),
    )
    assert done.path.read_text() == "path,label\ncat/2.png,'=dog\n./=dog/3.png,'=dog\n"
    assert listing(tmp_path / "images") == before
    assert "No row of class 'cat' is left." not in done.warnings


def test_an_emptied_class_is_said(csv, tmp_path):
    done = write_clean(
        decisions([9, 11], ["drop", "drop"]), csv, tmp_path / "c.csv", id_column="id", target="label"
    )
    assert "No row of class 'dog' is left." in done.warnings


def test_a_long_cell_and_many_rows(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text(
        "x,label\n" + "".join(f"{'a' * (200_000 if i == 3 else 2)},{i % 2}\n" for i in range(5000))
    )
    done = write_clean(decisions([4999], ["drop"]), source, tmp_path / "c.csv")
    assert done.path.read_bytes() == source.read_bytes()[: -len("aa,1\n")]


def test_words_of_the_errors(csv, tmp_path):
    keep, new = decisions([7], ["keep"]), tmp_path / "c.csv"
    with pytest.raises(StorageError, match="the source is never overwritten"):
        write_clean(keep, csv, csv, id_column="id")
    (tmp_path / "mine.csv").write_text("precious")
    with pytest.raises(StorageError, match=r"a new file at .*mine.csv[\s\S]*mine.csv is there already"):
        write_clean(keep, csv, tmp_path / "mine.csv", id_column="id")
    assert (tmp_path / "mine.csv").read_text() == "precious"
    with pytest.raises(ConfigError, match=r"a name that ends in .csv or .tsv or .txt, the source's format"):
        write_clean(keep, csv, tmp_path / "c.parquet", id_column="id")
    with pytest.raises(DataError, match=r"1 of 1 ids are not, for instance \['99'\]"):
        write_clean(decisions([99], ["keep"]), csv, new, id_column="id")
    with pytest.raises(DataError, match="a column 'name'\n"):
        write_clean(keep, csv, new, id_column="name")
    with pytest.raises(DataError, match="FileNotFoundError"):
        write_clean(keep, tmp_path / "gone.csv", new)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"1 are gone, for instance \['a.png'\]"):
        write_clean(decisions(["a.png"], ["keep"]), tmp_path / "images", new, layout=Layout(ids=["a.png"]))
    with pytest.raises(ConfigError, match="a folder has no rows of its own"):
        write_clean(keep, tmp_path / "images", new)
    (tmp_path / "bad.csv").write_text('a,b\n1,"never closed\n')
    with pytest.raises(DataError, match="never closed, or text after a closing one"):
        write_clean(keep, tmp_path / "bad.csv", new)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="a header line and rows below it"):
        write_clean(keep, tmp_path / "empty.csv", new)
    (tmp_path / "noid.csv").write_text("id,b\n,1\n")
    with pytest.raises(DataError, match="an id in every row of column 'id'\n  got: 1 rows have none"):
        write_clean(keep, tmp_path / "noid.csv", new, id_column="id")
    assert not new.exists()


def test_an_earlier_cleaning_is_replaced_only_when_asked(csv, tmp_path):
    first = write_clean(decisions([7], ["drop"]), csv, tmp_path / "c.csv", id_column="id")
    before = {path: path.read_bytes() for path in (first.path, first.audit_path)}
    for gone in (None, first.audit_path, first.path):
        if gone is not None:
            gone.unlink()
        with pytest.raises(StorageError) as caught:
            write_clean(decisions([7], ["keep"]), csv, tmp_path / "c.csv", id_column="id")
        assert_parts(
            caught.value,
            "a new file at",
            "is there already",
            "nothing was changed",
            "--force (in Python force=True)",
        )
        for path in before:
            assert path == gone or path.read_bytes() == before[path]
        for path, content in before.items():
            path.write_bytes(content)
    again = write_clean(
        decisions([7], ["keep"]), csv, tmp_path / "c.csv", id_column="id", options=CleanOptions(force=True)
    )
    assert again.path.read_bytes() == RAW and again.audit_path.read_bytes() != before[first.audit_path]


def test_force_replaces_neither_the_source_nor_a_folder(csv, tmp_path):
    forced = CleanOptions(force=True)
    with pytest.raises(StorageError, match="the source is never overwritten"):
        write_clean(decisions([7], ["keep"]), csv, csv, id_column="id", options=forced)
    (tmp_path / "c.csv").mkdir()
    with pytest.raises(StorageError, match=r"c.csv is a folder[\s\S]*next step: choose another name$"):
        write_clean(decisions([7], ["keep"]), csv, tmp_path / "c.csv", id_column="id", options=forced)


def test_a_full_disk_while_replacing_loses_neither_file(csv, tmp_path, monkeypatch):
    first = write_clean(decisions([7], ["drop"]), csv, tmp_path / "c.csv", id_column="id")
    before = {path: path.read_bytes() for path in (first.path, first.audit_path)}
    write, written = Path.write_bytes, []

    def full(path, content):
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_clean(
            decisions([7], ["keep"]),
            csv,
            tmp_path / "c.csv",
            id_column="id",
            options=CleanOptions(force=True),
        )
    assert {path: path.read_bytes() for path in before} == before
    assert listing(tmp_path) == ["c.audit.csv", "c.csv", "train.csv"]


def test_a_crash_while_writing_leaves_no_half_file(csv, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_clean(decisions([7], ["drop"]), csv, tmp_path / "out" / "c.csv", id_column="id")
    assert listing(tmp_path / "out") == []


def test_json_values_survive(tmp_path):
    source = tmp_path / "t.jsonl"
    records = [{"id": f"r{i}", "y": "a", "z": i / 3} for i in range(10)]
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    done = write_clean(
        decisions(["r3"], ["relabel"], {"r3": "b"}), source, tmp_path / "c.jsonl", target="y", id_column="id"
    )
    records[3]["y"] = "b"
    assert [json.loads(line) for line in done.path.read_text().splitlines()] == records


@pytest.mark.parametrize("before", ["# by hand\n# again\n", "sep=,\n", "\ufeff# x\r\n", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_what_stands_before_the_header_stays(tmp_path, before, encoding):
    path = tmp_path / "a.csv"
    text = before + "x, label\n1,cat\n2,dog\n3,cat\n"
    path.write_bytes(text.encode(encoding))
    layout = Layout(delimiter=",", encoding=encoding)
    made = decisions([0, 1], ["drop", "relabel"], {1: "cat"})
    done = write_clean(made, path, tmp_path / "c.csv", target="label", layout=layout)
    assert done.path.read_bytes() == text.replace("1,cat\n", "").replace("dog", "cat").encode(encoding)
    assert pd.read_csv(done.audit_path)["line"].tolist() == [2 + before.count("\n"), 3 + before.count("\n")]


def test_the_label_is_found_behind_names_of_rows_without_a_header(tmp_path):
    rows = '"x","label"\n"1",2.50,"cat"\n"2",2.75,"dog"\n"3",3.00,"dog"\n'
    (tmp_path / "r.csv").write_text(rows)
    done = write_clean(
        decisions([1], ["relabel"], {1: "cat"}), tmp_path / "r.csv", tmp_path / "c.csv", target="label"
    )
    assert done.path.read_text() == rows.replace('2.75,"dog"', '2.75,"cat"')
