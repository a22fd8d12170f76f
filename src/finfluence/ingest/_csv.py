"""CSV and its relatives: encoding and delimiter found out, every cell kept as the text it is in the file."""

import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pandas as pd

from finfluence.errors import DataError, explain

DELIMITERS = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SNIFFED_ROWS = 100
_FIELD_LIMIT = 2**31 - 1


def read_csv(
    path: Path, data: bytes, delimiter: str | None = None
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Return the table with every cell as text, what was found out (encoding, delimiter), and notes.

    Returns
    -------
    tuple[pd.DataFrame, dict[str, str], list[str]]

    Raises
    ------
    DataError
        The file is binary, has no line of data, or a line has more or fewer cells than the header.
    """
    text, encoding = decode(path, data)
    with _long_cells():
        separator = delimiter or sniff(text)
        rows = _rows(path, text, separator)
    if not rows:
        raise DataError(
            explain(
                "a header line and at least one line of data",
                f"{path} is empty",
                "an export that did not finish, or the wrong file",
                "export the file again, or name another",
            )
        )
    header, body = rows[0][1], rows[1:]
    for line, cells in body:
        if len(cells) != len(header):
            _refuse_ragged(path, line, len(header), len(cells), separator)
    columns = zip(*(cells for _, cells in body), strict=True) if body else ([] for _ in header)
    frame = pd.DataFrame({i: pd.Series(column, dtype=object) for i, column in enumerate(columns)})
    frame.columns = pd.Index(header, dtype=object)
    found = {"encoding": encoding, "delimiter": separator}
    notes = []
    if not encoding.startswith("utf-8"):
        notes.append(f"the file is not UTF-8: it was read as {encoding}")
    if delimiter is None and separator != ",":
        notes.append(f"cells are separated by {_NAMES[separator]}")
    return frame, found, notes


def decode(path: Path, data: bytes) -> tuple[str, str]:
    """Return the text and its encoding: by byte-order mark, else UTF-8, else cp1252, else latin-1."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            with contextlib.suppress(UnicodeDecodeError):
                return data.decode(encoding), encoding
    if b"\0" in data:
        raise DataError(
            explain(
                "a text file",
                f"{path} holds zero bytes, as binary files do",
                "a spreadsheet, an archive or a Parquet file with the wrong extension",
                "export the table as CSV in UTF-8, or give the file its right extension",
            )
        )
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding), encoding
    return data.decode("latin-1"), "latin-1"


def sniff(text: str) -> str:
    r"""Return the delimiter that cuts the first lines into the most columns of one same number.

    Returns
    -------
    str

    Examples
    --------
    >>> sniff("a;b\n1,5;2\n")
    ';'
    """

    def score(delimiter: str) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        widths = []
        with contextlib.suppress(csv.Error):
            for cells in reader:
                if cells:
                    widths.append(len(cells))
                if len(widths) == _SNIFFED_ROWS:
                    break
        if not widths or widths[0] == 1:
            return 0.0, 1
        return sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(DELIMITERS, key=score)


def _rows(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(
            explain(
                "a well-formed table",
                f"{path}, line {reader.line_num}: {error}",
                "a quotation mark that is never closed, or text after a closing one",
                "double the quotation marks inside cells, or export the file again",
            )
        ) from error


def _refuse_ragged(path: Path, line: int, expected: int, got: int, delimiter: str) -> NoReturn:
    raise DataError(
        explain(
            f"{expected} cells in every line, as in the header (separator: {_NAMES[delimiter]})",
            f"{path}, line {line} has {got}",
            "a file cut off in the middle"
            if got < expected
            else "a delimiter inside a cell that is not quoted",
            "correct that line, or export the file again with quoted cells",
        )
    )


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
