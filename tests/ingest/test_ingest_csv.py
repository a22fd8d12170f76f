import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import read, sniff, split

ROWS = [("é", 1, "a"), ("ü", 2, "b"), ("ß", 3, "a"), ("ø", 4, "b")]


@pytest.mark.parametrize(
    ("encoding", "found"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("latin-1", "cp1252")],
)
def test_encodings_give_the_same_cells(write, encoding, found):
    text = "word,n,label\n" + "".join(f"{a},{b},{c}\n" for a, b, c in ROWS)
    raw = read(write("a.csv", text.encode(encoding)), target="label")
    assert raw.frame["word"].tolist() == ["é", "ü", "ß", "ø"]
    assert list(raw.frame.columns) == ["word", "n", "label"]
    assert raw.source.details["encoding"] == found
    assert any("not UTF-8: it was read as cp1252" in note for note in raw.notes) == (found == "cp1252")


def test_bytes_that_cp1252_lacks_are_read_as_latin_1(write):
    raw = read(write("a.csv", b"word,label\n\x81,a\n\xe9,b\n"), target="label")
    assert raw.frame["word"].tolist() == ["\x81", "é"]
    assert raw.source.details["encoding"] == "latin-1"
    assert "the file is not UTF-8: it was read as latin-1" in raw.notes


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", None), (";", "semicolon"), ("\t", "tab"), ("|", "bar")]
)
def test_delimiters_are_found(write, delimiter, name):
    lines = ["x", "text", "label"], ["1", '"a, b; c | d"', "u"], ["2", "e", "v"]
    raw = read(write("a.csv", "\n".join(delimiter.join(line) for line in lines)), target="label")
    assert raw.frame["text"].tolist() == ["a, b; c | d", "e"]
    assert raw.source.details["delimiter"] == delimiter
    assert any(note == f"cells are separated by {name}" for note in raw.notes) == (name is not None)


def test_tsv_is_not_sniffed(write):
    raw = read(write("a.tsv", "a,b\tlabel\n1,2\tu\n3,4\tv\n"), target="label")
    assert list(raw.frame.columns) == ["a,b", "label"]


def test_sniff_prefers_agreement_over_width():
    assert sniff("a;b\n1,5,6;2\n1,7;3\n") == ";"


def test_cells_pass_through_unharmed(write):
    cells = [
        "<script>alert(1)</script>",
        '=HYPERLINK("x")',
        "../../etc/passwd",
        " 007 ",
        "1.50",
        "NA",
        "a\nb",
        "x" * 200_000,
    ]
    text = "cell,label\n" + "".join(
        '"' + cell.replace('"', '""') + f'",{i % 2}\n' for i, cell in enumerate(cells)
    )
    raw = read(write("a.csv", text), target="label")
    assert raw.frame["cell"].tolist() == cells
    train, held = split(raw)
    back = dict(zip([*train.ids, *held.ids], [*train.frame["cell"], *held.frame["cell"]], strict=True))
    assert [back[i] for i in range(len(cells))] == cells


def test_decimal_commas_in_semicolon_files(write):
    text = "size;label\n" + "".join(f"1.00{i},{i}5;{'ab'[i % 2]}\n" for i in range(8))
    train, _ = split(read(write("a.csv", text), target="label"))
    assert train.used["size"] == "number, decimal comma"
    values = np.array([float(f"100{i}.{i}5") for i in train.ids])
    np.testing.assert_allclose(train.x[:, 0], (values - values.mean()) / values.std(), rtol=1e-5)


def test_blank_lines_are_no_rows(write):
    assert len(read(write("a.csv", "x,label\n1,a\n\n2,b\n\n"), target="label")) == 2


def test_ragged_line(write, refused):
    path = write("a.csv", "x,y,label\n1,2,a\n3,4,b\n5,6\n")
    with refused(
        DataError, "3 cells in every line", "line 4 has 2", "cut off in the middle", "correct that line"
    ):
        read(path, target="label")
    path = write("b.csv", "x,label\n1,a\n2,3,b\n")
    with refused(DataError, "(separator: comma)", "line 3 has 3", "not quoted", "quoted cells"):
        read(path, target="label")


def test_open_quotation_mark(write, refused):
    with refused(DataError, "well-formed table", "line 3", "never closed", "double the quotation marks"):
        read(write("a.csv", 'x,label\n1,a\n"2,b\n'), target="label")


def test_binary_file(write, refused):
    with refused(DataError, "a text file", "zero bytes", "wrong extension", "export the table as CSV"):
        read(write("a.csv", b"\x7fELF\x02\0\0\0\x01"), target="label")


def test_empty_file(write, refused):
    with refused(
        DataError, "a header line and at least one line", "is empty", "did not finish", "name another"
    ):
        read(write("a.csv", ""), target="label")
    with refused(DataError, "at least one row of data", "2 columns and no rows", "kept nothing", "export"):
        read(write("b.csv", "x,label\n"), target="label")


def test_duplicate_column_names(write, refused):
    with refused(DataError, "names that differ", "'x' more than once (columns 1, 3)", "joined", "rename"):
        read(write("a.csv", "x,label,x\n1,a,2\n3,b,4\n"), target="label")


def test_one_row(write, refused):
    with refused(DataError, "at least two different values", "one: 'a'", "filtered", "add rows"):
        read(write("a.csv", "x,label\n1,a\n"), target="label")


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    n = 100_000
    frame = pd.DataFrame({f"x{i}": rng.normal(size=n).round(3) for i in range(6)})
    frame["label"] = rng.choice(["a", "b"], n)
    frame.to_csv(tmp_path / "big.csv", index=False)
    train, held = split(read(tmp_path / "big.csv", target="label"))
    assert train.x.shape == (80_000, 6)
    assert held.x.shape == (20_000, 6)
