"""Delimited text, edited record by record: what is not asked for stays as it is, byte for byte."""

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from finfluence.clean._formulas import formula_like, neutralise
from finfluence.errors import DataError, explain
from finfluence.ingest import before_header, blank_before_quote, marked_encoding, with_row_names


@dataclass(frozen=True)
class Record:
    """One record: its text as it stands in the file, its cells, and the number of its first line."""

    text: str
    cells: list[str]
    line: int


@dataclass(frozen=True)
class Sheet:
    """A delimited file: what stands before the header, the header, records; blank lines belong to the record below.

    `blanks` tells whether quoted cells stand behind a blank.
    """

    mark: str
    encoding: str
    delimiter: str
    header: Record
    records: list[Record]
    rest: str
    blanks: bool = False

    @cached_property
    def names(self) -> list[str]:
        """The names of all cells, those of the rows included where the header has none for them."""
        return with_row_names(self.header.cells, [record.cells for record in self.records])

    def index(self, column: str) -> int:
        """Return the position of a column by name."""
        names = self.names if column in self.names else [name.strip() for name in self.names]
        if column not in names:
            raise DataError(
                explain(
                    f"a column {column!r}",
                    f"columns {self.header.cells[:20]}",
                    "a spelling mistake, or another file",
                    "name one of the columns above",
                )
            )
        return names.index(column)


def read_sheet(path: Path, delimiter: str, encoding: str | None = None) -> Sheet:
    """Read a delimited file without interpreting any cell."""
    data = path.read_bytes()
    text, encoding = decoded(data, encoding)
    start, _ = before_header(text, delimiter)
    mark = text[: max(start, int(text.startswith("\ufeff")))]
    blanks = blank_before_quote(text[len(mark) :], delimiter)
    records = list(_records(text[len(mark) :], delimiter, path, mark.count("\n"), blanks))
    if not records or not records[0].cells:
        raise DataError(
            explain(
                "a header line and rows below it",
                f"{path} is empty",
                "an export that did not finish, or the wrong file",
                "name the file that was scanned",
            )
        )
    rest = ""
    if not records[-1].cells:
        rest = records.pop().text
    return Sheet(mark, encoding, delimiter, records[0], records[1:], rest, blanks)


def written(sheet: Sheet, keep: list[bool], edits: dict[int, tuple[int, str]], escape: bool) -> bytes:
    """Return the bytes of the kept records; `edits` maps a position to (column, new cell)."""
    kept = [
        _edited(record, sheet, edits.get(position), escape)
        for position, record in enumerate(sheet.records)
        if keep[position]
    ]
    head = _edited(sheet.header, sheet, None, escape)
    return (sheet.mark + head + "".join(kept) + sheet.rest).encode(sheet.encoding)


def count_formulas(sheet: Sheet, keep: list[bool]) -> int:
    """Return how many cells of the header and the kept records a spreadsheet may run."""
    suspect = _suspect(sheet.delimiter)
    return sum(
        sum(map(formula_like, record.cells))
        for record, kept in zip([sheet.header, *sheet.records], [True, *keep], strict=True)
        if kept and suspect.search(record.text)
    )


def _edited(record: Record, sheet: Sheet, edit: tuple[int, str] | None, escape: bool) -> str:
    delimiter = sheet.delimiter
    changes = {edit[0]: edit[1]} if edit else {}
    if escape and _suspect(delimiter).search(record.text):
        cells = {i: changes.get(i, cell) for i, cell in enumerate(record.cells)}
        changes |= {i: neutralise(cell) for i, cell in cells.items() if formula_like(cell)}
    if not changes:
        return record.text
    text, spans = record.text, _spans(record.text, delimiter, sheet.blanks)
    for column in sorted(changes, reverse=True):
        start, end = spans[column]
        text = text[:start] + _quoted(changes[column], delimiter, text[start : start + 1] == '"') + text[end:]
    return text


def _quoted(cell: str, delimiter: str, always: bool) -> str:
    if always or any(c in cell for c in (delimiter, '"', "\n", "\r")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _spans(text: str, delimiter: str, blanks: bool) -> list[tuple[int, int]]:
    """Start and end of each cell in the text of a record, quotation marks included, blanks before them not."""
    spans, start = [], len(text) - len(text.lstrip("\r\n"))
    end_of_record = len(text.rstrip("\r\n"))
    while True:
        while blanks and text[start : start + 1] == " ":
            start += 1
        end = start
        if text[start : start + 1] == '"':
            end = start + 1
            while True:
                end = text.index('"', end) + 1
                if text[end : end + 1] != '"':
                    break
                end += 1
        while end < end_of_record and text[end] != delimiter:
            end += 1
        spans.append((start, end))
        if end >= end_of_record:
            return spans
        start = end + 1


def _suspect(delimiter: str) -> re.Pattern[str]:
    """Pattern of a record that may hold a formula-like cell; plain signed numbers, the common case, pass."""
    end = rf'["\r\n{re.escape(delimiter)}]'
    number = rf"[\d.]+(?:[eE][+-]?\d+)?(?:{end}|$)"
    return re.compile(rf"(?:^|{end})(?:[=@\t\r]|[+-](?!{number}))")


def _records(text: str, delimiter: str, path: Path, before: int, blanks: bool) -> Iterator[Record]:
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True, skipinitialspace=blanks)
    blank, first = "", before + 1
    with _long_cells():
        try:
            for cells in reader:
                piece, line = "".join(taken), first
                taken.clear()
                first = before + reader.line_num + 1
                if not cells:
                    blank += piece
                    continue
                yield Record(blank + piece, cells, line)
                blank = ""
        except csv.Error as error:
            raise DataError(
                explain(
                    "a well-formed table",
                    f"{path}, line {before + reader.line_num}: {error}",
                    "a quotation mark that is never closed, or text after a closing one",
                    "restore the file that was scanned",
                )
            ) from error
    if blank:
        yield Record(blank, [], first)


def decoded(data: bytes, encoding: str | None = None) -> tuple[str, str]:
    """Return the text and its encoding, so that encoding again gives the same bytes; a byte-order mark stays."""
    marked = marked_encoding(data)
    if marked.startswith(("utf-16", "utf-32")):
        little = marked.endswith("-le") or data.startswith(b"\xff\xfe")
        encoding = f"{marked[:6]}-{'le' if little else 'be'}"
    for name in (encoding or "utf-8", "utf-8", "cp1252"):
        name = "utf-8" if name == "utf-8-sig" else name
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(name), name
    return data.decode("latin-1"), "latin-1"


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
