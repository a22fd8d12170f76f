"""Files that hold a table: CSV, TSV, Parquet and JSON lines, each read into a frame of untouched cells."""

import io
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from finfluence.errors import DataError, explain
from finfluence.ingest._csv import decode, doubts_of, read_csv
from finfluence.ingest._messages import counted, listed
from finfluence.ingest._values import whole

TABLE_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

_HALF = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


@dataclass(frozen=True)
class Sheet:
    """A table as it is in its file."""

    frame: pd.DataFrame
    details: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: tuple[str, ...] = ()


def read_sheet(path: Path, format: str, data: bytes) -> Sheet:
    """Read the bytes of a table file and check its outline: some rows, and column names that differ."""
    if format in ("csv", "tsv"):
        frame, details, notes = read_csv(path, data, "\t" if format == "tsv" else None)
        sheet = Sheet(frame, details, notes, doubts_of(frame, details["encoding"]))
    elif format == "parquet":
        sheet = Sheet(_read_parquet(path, data))
    else:
        sheet = _read_json_lines(path, data)
    check_outline(sheet.frame, str(path))
    return sheet


def check_outline(frame: pd.DataFrame, name: str) -> None:
    """Refuse a frame without rows or with two columns of one name."""
    repeated = [str(column) for column, count in Counter(map(str, frame.columns)).items() if count > 1]
    if repeated:
        places = [i + 1 for i, column in enumerate(frame.columns) if str(column) == repeated[0]]
        raise DataError(
            explain(
                "column names that differ",
                f"{name} has {listed(repeated)} more than once (columns {listed(places)})",
                "tables joined side by side, or a first line that is data and no header",
                "rename the columns, or add a header line",
            )
        )
    if len(frame) == 0:
        raise DataError(
            explain(
                "at least one row of data",
                f"{name} has {counted(len(frame.columns), 'column')} and no rows",
                "a filter that kept nothing, or a file without its header line",
                "export the file again, or name another",
            )
        )


def _read_parquet(path: Path, data: bytes) -> pd.DataFrame:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            explain(
                "a Parquet file",
                f"{path} cannot be read: {str(error).splitlines()[0]}",
                "a download or a copy that did not finish, or another format under this extension",
                "write the file again",
            )
        ) from error
    if len(set(table.column_names)) < len(table.column_names):
        names = pd.DataFrame(columns=pd.Index(table.column_names, dtype=object))
        check_outline(names, str(path))
    return table.to_pandas(ignore_metadata=True, integer_object_nulls=True)


def _read_json_lines(path: Path, data: bytes) -> Sheet:
    text, _ = decode(path, data)
    records: list[dict[str, Any]] = []
    halves = 0
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_members)
            if _HALF.search(line):
                record, halves = _whole(record), halves + 1
        except (json.JSONDecodeError, RecursionError, _Repeated) as error:
            raise _bad_line(path, number, str(error)) from error
        if not isinstance(record, dict):
            raise _bad_line(path, number, f"the line holds a {type(record).__name__}")
        records.append(record)
    broken = f"{counted(halves, 'line', 'holds hold')} half of a character (such as \\ud800 alone): replaced by \ufffd"
    return Sheet(pd.DataFrame(records, dtype=object), doubts=(broken,) if halves else ())


def _whole(value: Any) -> Any:
    """Return a value of JSON with all of its texts made of whole characters."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {whole(name): _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value


class _Repeated(ValueError):
    """A key stands twice in one object."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise _Repeated(f"the key {name!r} stands in it more than once")
    return record


def _bad_line(path: Path, number: int, got: str) -> DataError:
    return DataError(
        explain(
            "one JSON object in every line",
            f"{path}, line {number}: {got}",
            "one large JSON document instead of JSON lines, or a file cut off in the middle",
            "write one object per line; with pandas: frame.to_json(path, orient='records', lines=True)",
        )
    )
