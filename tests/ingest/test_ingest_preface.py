"""Comments, separators and encodings before a table; names with spaces; headers that are data; packed files."""

import bz2
import gzip
import io
import zipfile

import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.ingest import before_header, column_decisions, marked_encoding, read, split

ROWS = [f"{i * 7 % 11}.5,{i * 3 % 13},{'ab'[i % 2]}" for i in range(60)]
TABLE = "p,q,label\n" + "\n".join(ROWS) + "\n"


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("# made by hand\n", 1),
        ("#a\n# b, c\n", 2),
        ("sep=,\n", 1),
        ("SEP=,\n# x\n", 2),
        ("\ufeff# x\n", 1),
        ("", 0),
    ],
)
def test_what_stands_before_the_header_is_left_out_and_noted(write, before, lines):
    raw = read(write("a.csv", before + TABLE), "label")
    assert list(raw.frame.columns) == ["p", "q", "label"]
    assert len(raw) == 60
    assert (f"{lines} lines before the header were left out" in raw.notes) == (lines > 0)


def test_the_named_separator_counts(write):
    raw = read(write("a.csv", "sep=|\n" + TABLE.replace(",", "|")), "label")
    assert list(raw.frame.columns) == ["p", "q", "label"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_header_behind_a_hash_is_a_header(write, mark):
    raw = read(write("a.csv", ("# from there\n#" + TABLE).replace(",", mark)), "label")
    assert list(raw.frame.columns) == ["#p", "q", "label"]


def test_names_lose_their_spaces(write):
    raw = read(write("a.csv", TABLE.replace("p,q,label", " p , q, label")), "label")
    assert list(raw.frame.columns) == ["p", "q", "label"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_wide_encodings(write, encoding):
    data = TABLE.replace("a\n", "ä\n").encode(encoding)
    raw = read(write("a.csv", data), "label")
    assert sorted(set(raw.labels)) == ["b", "ä"]
    assert raw.source.details["encoding"] == encoding


def test_zeros_in_other_places_are_no_encoding():
    assert marked_encoding(TABLE.encode() + b"\0\0") == ""
    assert marked_encoding(np.arange(100, dtype=np.int32).tobytes()) == ""
    assert before_header("#only\n#comments\n") == (16, "")


def test_an_old_encoding_is_seen_on_the_screen(write):
    train, _ = split(read(write("a.csv", TABLE.replace("a\n", "ä\n").encode("latin-1")), "label"))
    assert any(
        "not UTF-8: it was read as cp1252; if letters look wrong" in warning for warning in train.warnings
    )


@pytest.mark.parametrize("header", ["5.1,3.5,a", "1.5,7,b", "0.5,12,label"])
def test_a_header_of_numbers_is_said(write, header):
    train, _ = split(read(write("a.csv", TABLE.replace("p,q,label", header)), header.split(",")[2]))
    assert any(warning.startswith("the first line looks like data") for warning in train.warnings)


@pytest.mark.parametrize(
    "header", ["0,1,label", "1,2,label", "2019,2020,label", "p1,2,label", "x 0.5,q,label"]
)
def test_a_header_with_counted_columns_is_one(write, header):
    train, _ = split(read(write("a.csv", TABLE.replace("p,q,label", header)), "label"))
    assert not any("looks like data" in warning for warning in train.warnings)


def test_a_header_in_the_middle_is_refused(write, refused):
    text = TABLE + TABLE
    with refused(
        DataError,
        "one header line",
        "line 62 has the names of the columns again",
        "joined",
        "remove that line",
    ):
        read(write("a.csv", text), "label")


@pytest.mark.parametrize(
    ("extra", "cause"), [("Sales report\n\n", "lines of text before"), ("", "below the table")]
)
def test_lines_that_are_no_rows_are_told_from_broken_ones(write, refused, extra, cause):
    text = extra + TABLE + ("" if extra else "sum\n")
    with refused(
        DataError,
        "in every line, as in the header",
        "has",
        cause,
        "that line" if not extra else "begin them with #",
    ):
        read(write("a.csv", text), "label")


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", TABLE)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [(gzip.compress(TABLE.encode()), "gzip"), (bz2.compress(TABLE.encode()), "bzip2"), (zipped(), "a zip archive or a spreadsheet")],
    ids=["gzip", "bzip2", "zip"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_packed_files_under_a_wrong_name(write, refused, data, what, name):
    with refused(DataError, "a text file", what, "not unpacked", "unpack it first"):
        read(write(name, data), "label")


@pytest.mark.parametrize(
    ("name", "step"), [("a.csv.gz", "name 'a.csv'"), ("a.zip", "unpack it"), ("a.json", "one object a line")]
)
def test_packed_and_other_extensions(write, refused, name, step):
    with refused(DataError, "a file ending in", "ends in", "", step):
        read(write(name, TABLE), "label")


def test_a_key_that_stands_twice_is_refused(write, refused):
    with refused(
        DataError,
        "one JSON object",
        "line 1: the key 'p' stands in it more than once",
        "",
        "one object per line",
    ):
        read(write("a.jsonl", '{"p": 1, "p": 2, "label": "a"}\n' * 4), "label")


def test_columns_say_it_too(write):
    assert list(column_decisions(write("a.csv", "# x\n" + TABLE))["column"]) == ["p", "q", "label"]
