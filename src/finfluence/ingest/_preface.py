"""What stands in a delimited file before and beside its table: comments, a line that names the separator, encodings."""

import contextlib
import csv
import io
import re

ROW_NAMES = "row_names"
"""What the first cells are called where every line has one cell more than the header, as R writes them."""
_SEPARATOR_LINE = re.compile(r"[ \t]*sep=(?P<mark>.)[ \t]*(?:\r\n|\r|\n)", re.IGNORECASE)
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SAMPLE = 4096
_MOSTLY = 0.4


def marked_encoding(data: bytes) -> str:
    r"""Return the encoding that a byte-order mark, or zeros in every other byte, tell; "" for none.

    Returns
    -------
    str

    Examples
    --------
    >>> marked_encoding(b"\xff\xfea\x00"), marked_encoding("a,b".encode("utf-16-le")), marked_encoding(b"a,b")
    ('utf-16', 'utf-16-le', '')
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    start = data[:_SAMPLE]
    half = len(start) // 2
    if half and b"\0" in start and len(data) % 2 == 0:
        for encoding, at in (("utf-16-le", 1), ("utf-16-be", 0)):
            if start[at::2].count(0) > 2 * _MOSTLY * half and start[1 - at :: 2].count(0) == 0:
                return encoding
    return ""


def before_header(text: str, delimiter: str = "") -> tuple[int, str]:
    r"""Return how many characters stand before the header line, and the separator that they name.

    These are a line `sep=;`, and lines that begin with `#`. A last such line with as many cells as the line after it is
    the header itself (`#id,x,y`).

    Parameters
    ----------
    text
        The file.
    delimiter
        The separator; "" for one that is not known yet: then a header behind `#` is looked for with each of the usual.

    Returns
    -------
    tuple of (int, str)

    Examples
    --------
    >>> before_header("# made by hand\nx;y\n1;2\n"), before_header("sep=;\nx;y\n"), before_header("#x,y\n1,2\n")
    ((15, ''), (6, ';'), (0, ''))
    """
    start = 1 if text.startswith("\ufeff") else 0
    named = ""
    match = _SEPARATOR_LINE.match(text, start)
    if match:
        start, named = match.end(), match["mark"]
    at, last = start, start
    while text.startswith("#", at):
        last, at = at, _next_line(text, at)
    if at == start or at >= len(text):
        return at, named
    marks = [mark for mark in (delimiter or named, ",", ";", "\t", "|") if mark]
    return (
        last if any(_alike(text, last, at, mark) for mark in marks[: 1 if delimiter else None]) else at
    ), named


def blank_before_quote(text: str, delimiter: str) -> bool:
    r"""Tell whether quoted cells stand behind a blank, as in `1, "a, b", 2`, and the whole file can be read so.

    Returns
    -------
    bool

    Examples
    --------
    >>> blank_before_quote('x, t\n1, "a, b"\n', ","), blank_before_quote('x,t\n1, "a" is said\n', ",")
    (True, False)
    """
    if not re.search(rf'(?:^|{re.escape(delimiter)}) +"', text, re.MULTILINE):
        return False
    lines = io.StringIO(text, newline="")
    with contextlib.suppress(csv.Error):
        for _ in csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True):
            pass
        return True
    return False


def with_row_names(header: list[str], lines: list[list[str]]) -> list[str]:
    """Return the names of all cells where every line has one cell more than the header.

    The first cell then names the row, as R writes it; where every last cell is empty, lines only end in a separator.

    Parameters
    ----------
    header
        Names as they are in the file.
    lines
        Cells of the lines below it.

    Returns
    -------
    list of str

    Examples
    --------
    >>> with_row_names(["x", "label"], [["1", "2.5", "a"], ["2", "2.7", "b"]])
    ['row_names', 'x', 'label']
    >>> with_row_names(["x", "label"], [["2.5", "a", ""], ["2.7", "b", ""]])
    ['x', 'label', '']
    """
    if not lines or any(len(cells) != len(header) + 1 for cells in lines):
        return header
    if all(not cells[-1].strip() for cells in lines):
        return [*header, ""]
    different = len({cells[0] for cells in lines}) == len(lines)
    return [ROW_NAMES, *header] if different and ROW_NAMES not in header else header


def _next_line(text: str, at: int) -> int:
    ends = [end for end in (text.find("\n", at), text.find("\r", at)) if end >= 0]
    if not ends:
        return len(text)
    end = min(ends)
    return end + (2 if text.startswith("\r\n", end) else 1)


def _alike(text: str, first: int, second: int, mark: str) -> bool:
    widths = []
    for at in (first, second):
        with contextlib.suppress(csv.Error, StopIteration):
            widths.append(len(next(csv.reader(io.StringIO(text[at:]), delimiter=mark))))
    return len(widths) == 2 and widths[0] == widths[1] > 1
