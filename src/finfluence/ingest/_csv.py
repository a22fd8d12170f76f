"""CSV and its relatives: encoding and delimiter found out, every cell kept as the text it is in the file."""

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._dates import are_dates
from finfluence.ingest._messages import counted, listed
from finfluence.ingest._numerals import numeral
from finfluence.ingest._preface import (
    ROW_NAMES,
    before_header,
    blank_before_quote,
    marked_encoding,
    with_row_names,
)

DELIMITERS = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_PACKED = (
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet"),
    (b"BZh", "compressed (bzip2)"),
    (b"\xfd7zXZ", "compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of an old kind"),
)
SPREADSHEETS = "save a sheet of a spreadsheet as CSV"
_OLD = ("cp1252", "latin-1")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_SNIFFED_ROWS = 100
_FEW_ROWS, _LOOKED_AT = 8, 100
_MOSTLY = 0.9
_TOTALS = frozenset(
    {"total", "totals", "grand total", "sum", "subtotal", "average", "mean", "summe", "gesamt", "gesamtsumme",
     "insgesamt", "durchschnitt", "mittelwert", "somme", "total général", "moyenne", "suma", "totale", "media",
     "totaal", "итого", "всего", "合計", "合计", "总计"}
)  # fmt: skip
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
        start, named = before_header(text, delimiter or "")
        separator = delimiter or named or sniff(text[start:])
        rows = _rows(path, text[start:], separator, text.count("\n", 0, start))
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
    header, body, notes = _outline(header, body)
    stripped = [name.strip() for name in header]
    header = stripped if len(set(stripped)) == len(set(header)) else header
    for line, cells in body:
        if len(cells) != len(header):
            _refuse_ragged(path, line, len(header), len(cells), separator)
        if [cell.strip() for cell in cells] == stripped:
            _refuse_header_again(path, line)
    columns = zip(*(cells for _, cells in body), strict=True) if body else ([] for _ in header)
    frame = pd.DataFrame({i: pd.Series(column, dtype=object) for i, column in enumerate(columns)})
    frame.columns = pd.Index(header, dtype=object)
    found = {"encoding": encoding, "delimiter": separator}
    if not encoding.startswith("utf-8"):
        notes.append(f"the file is not UTF-8: it was read as {encoding}")
    if delimiter is None and separator != ",":
        notes.append(f"cells are separated by {_NAMES.get(separator, repr(separator))}")
    if start:
        notes.append(f"{text.count(chr(10), 0, start)} lines before the header were left out")
    return frame, found, notes


def _outline(
    header: list[str], body: list[tuple[int, list[str]]]
) -> tuple[list[str], list[tuple[int, list[str]]], list[str]]:
    """Return header and lines without empty columns at the end, and with a name for row names that have none."""
    named = with_row_names(header, [cells for _, cells in body])
    notes = []
    if named[0] == ROW_NAMES and named != header:
        notes.append(
            f"every line has one cell more than the header: the first was taken for the name of the row ({ROW_NAMES!r})"
        )
    header = named
    width = len(header)
    while (
        width > 1
        and not header[width - 1].strip()
        and all(len(cells) == len(header) and not cells[width - 1].strip() for _, cells in body)
    ):
        width -= 1
    if width < len(header):
        notes.append(f"{counted(len(header) - width, 'empty column')} at the end of every line left out")
        header, body = header[:width], [(line, cells[:width]) for line, cells in body]
    return header, body, notes


def doubts_of(frame: pd.DataFrame, encoding: str) -> tuple[str, ...]:
    """Return what of a text file is open to doubt: letters of an old encoding, a header that looks like data.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> doubts_of(pd.DataFrame({"5.1": ["4.9", "4.7"], "3.5": ["3.0", "3.2"], "a": ["a", "b"]}), "utf-8")
    ("the first line looks like data, and was taken for the names of columns ('5.1', '3.5', 'a'): add a header line",)
    """
    said = []
    if encoding in _OLD:
        said.append(
            f"the file is not UTF-8: it was read as {encoding}; if letters look wrong, save it as UTF-8 first"
        )
    names = [str(name) for name in frame.columns]
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    counted = sorted(int(name) for name in numbers if name.isdigit())
    in_steps = len(counted) > 1 and set(np.diff(counted)) == {1}
    dates = [name for name, one in zip(names, are_dates(names), strict=True) if one and name not in numbers]
    numbers += dates if len(dates) == 1 else []
    if len(numbers) >= max(1, len(names) / 2) and len(numbers) > (len(counted) if in_steps else 0):
        said.append(
            f"the first line looks like data, and was taken for the names of columns ({listed(names, 3)}): add a "
            "header line"
        )
    return (*said, *_lines_that_are_no_rows(frame))


def _lines_that_are_no_rows(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return notes on a first line of units or a second header, and on a last line of totals."""
    if len(frame) < _FEW_ROWS or not frame.columns.is_unique:
        return ()
    first, last, others = (frame.iloc[part] for part in (0, -1, slice(1, -1)))
    said = []
    worded = [name for name in frame.columns if str(first[name]).strip() and not _is_number(first[name])]
    looked_at = list(frame.columns) if len(worded) > 1 else []
    plain = [name for name in looked_at if others[name].iloc[:_LOOKED_AT].map(_is_number).mean() > _MOSTLY]
    words = [name for name in plain if name in worded]
    if len(words) > 1 and 2 * len(words) > len(plain):
        said.append(
            f"the first line below the header holds no numbers where all others do ({listed(first[words], 3)}): remove "
            "it if it is a second header"
        )
    total = [str(cell) for cell in last if str(cell).strip(" :").casefold() in _TOTALS]
    if total and not others.isin(total).to_numpy().any():
        said.append(f"the last line holds {total[0]!r}: remove it if it sums up the others")
    return tuple(said)


def _is_number(cell: object) -> bool:
    return numeral(str(cell).strip()) is not None


def decode(path: Path, data: bytes) -> tuple[str, str]:
    """Return the text and its encoding: by byte-order mark, else UTF-8, else cp1252, else latin-1."""
    _refuse_packed(path, data)
    encoding = marked_encoding(data)
    if encoding:
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
        blanks = blank_before_quote(text, delimiter)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=blanks)
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


def _rows(path: Path, text: str, delimiter: str, before: int) -> list[tuple[int, list[str]]]:
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=blank_before_quote(text, delimiter),
    )
    try:
        return [(before + reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(
            explain(
                "a well-formed table",
                f"{path}, line {before + reader.line_num}: {error}",
                "a quotation mark that is never closed, or text after a closing one",
                "double the quotation marks inside cells, or export the file again",
            )
        ) from error


def _refuse_ragged(path: Path, line: int, expected: int, got: int, delimiter: str) -> NoReturn:
    cause = (
        "lines of text before the table"
        if expected == 1
        else "a file cut off in the middle, or a line below the table that does not belong to it"
        if got < expected
        else "a delimiter inside a cell that is not quoted"
    )
    raise DataError(
        explain(
            f"{counted(expected, 'cell')} in every line, as in the header (separator: "
            f"{_NAMES.get(delimiter, repr(delimiter))})",
            f"{path}, line {line} has {got}",
            cause,
            "remove the lines before the header, or begin them with #"
            if expected == 1
            else "correct that line, or export the file again with quoted cells",
        )
    )


def _refuse_header_again(path: Path, line: int) -> NoReturn:
    raise DataError(
        explain(
            "one header line",
            f"{path}, line {line} has the names of the columns again",
            "files that were joined with their headers",
            "remove that line",
        )
    )


def _refuse_packed(path: Path, data: bytes) -> None:
    packed = next((what for mark, what in _PACKED if data.startswith(mark)), "")
    if packed:
        raise DataError(
            explain(
                "a text file",
                f"{path} is {packed}",
                "a file that was not unpacked, or that has the wrong extension",
                f"unpack it first, and name the file inside; {SPREADSHEETS}",
            )
        )


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
