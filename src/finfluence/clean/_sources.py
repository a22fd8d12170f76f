"""Every kind of source behind one interface: ids and labels in order, and bytes of the cleaned version."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from finfluence.clean._delimited import Sheet, count_formulas, written
from finfluence.clean._formulas import neutralise
from finfluence.clean._json_lines import value_of, with_part, with_value, within
from finfluence.clean._plan import Plan, target_column
from finfluence.clean._spelling import spell
from finfluence.errors import DataError, explain


class Opened(Protocol):
    """A source that was read and can be written again without some rows."""

    ids: Sequence[Any]
    labels: Sequence[Any] | None
    lines: Sequence[int]

    def cleaned(self, plan: Plan, escape: bool) -> tuple[bytes, int]:
        """Return the bytes of the cleaned version, and how many formula-like cells they hold."""


@dataclass(eq=False)
class DelimitedSource:
    """A CSV or TSV file."""

    sheet: Sheet
    target: str | None
    id_column: str | None
    ids: Sequence[Any] = field(init=False)
    labels: Sequence[Any] | None = field(init=False)
    lines: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        records = self.sheet.records
        self.ids = (
            _ids(self._cells(self.id_column), self.id_column) if self.id_column else range(len(records))
        )
        self.labels = self._cells(self.target) if self.target else None
        self.lines = [record.line for record in records]

    def _cells(self, column: str) -> list[str]:
        at = self.sheet.index(column)
        return [record.cells[at] for record in self.sheet.records]

    def cleaned(self, plan: Plan, escape: bool) -> tuple[bytes, int]:
        """Return the kept records as they stand, the relabelled cell apart."""
        edits = {}
        if plan.to_label:
            column = self.sheet.index(target_column(self.target, self.sheet.header.cells))
            known = sorted(set(self.labels or ()))
            edits = {at: (column, str(spell(label, known))) for at, label in plan.to_label.items()}
        keep = plan.keep.tolist()
        count = count_formulas(self.sheet, keep)
        return written(self.sheet, keep, edits, escape), count


@dataclass(eq=False)
class JsonLinesSource:
    """A file of JSON objects, one per line."""

    text: str
    encoding: str
    target: str | None
    id_column: str | None
    ids: Sequence[Any] = field(init=False)
    labels: Sequence[Any] | None = field(init=False)
    lines: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self._mark = "\ufeff" if self.text.startswith("\ufeff") else ""
        self._rows, self._rest = _json_records(self.text.removeprefix(self._mark))
        self.lines = [number for number, _ in self._rows]
        records = [json.loads(line) for _, line in self._rows]
        self.ids = (
            _ids([value_of(record, self.id_column) for record in records], self.id_column)
            if self.id_column
            else range(len(records))
        )
        self.labels = [value_of(record, self.target) for record in records] if self.target else None

    def cleaned(self, plan: Plan, escape: bool) -> tuple[bytes, int]:
        """Return the kept lines as they stand, the target's value in relabelled ones apart."""
        known = list({repr(label): label for label in self.labels or ()}.values())
        kept = []
        for position, (_, line) in enumerate(self._rows):
            if position in plan.to_label:
                name = target_column(self.target, [self.target] if self.labels else [])
                line = with_value(line, name, spell(plan.to_label[position], known))
            if plan.keep[position]:
                kept.append(line)
        return (self._mark + "".join(kept) + self._rest).encode(self.encoding), 0


def _json_records(text: str) -> tuple[list[tuple[int, str]], str]:
    """Return number and text of each line that is not blank, with the blank ones above it, and those at the end."""
    rows, blank = [], ""
    for number, line in enumerate(io.StringIO(text), start=1):
        if line.strip():
            rows.append((number, blank + line))
            blank = ""
        else:
            blank += line
    return rows, blank


@dataclass(eq=False)
class ParquetSource:
    """A Parquet file; schema, types and metadata stay."""

    table: pa.Table
    target: str | None
    id_column: str | None
    ids: Sequence[Any] = field(init=False)
    labels: Sequence[Any] | None = field(init=False)
    lines: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = (
            _ids(self._values(self.id_column), self.id_column) if self.id_column else range(len(self.table))
        )
        self.labels = self._values(self.target) if self.target else None
        self.lines = range(1, len(self.table) + 1)

    def cleaned(self, plan: Plan, escape: bool) -> tuple[bytes, int]:
        """Return the kept rows under the same schema."""
        table = self.table
        if plan.to_label:
            name, part = self._place(self.target)
            values = table.column(name).to_pylist()
            known = list({repr(v): v for v in self._values(self.target)}.values())
            for position, label in plan.to_label.items():
                values[position] = with_part(values[position], part, spell(label, known))
            at = table.column_names.index(name)
            kind = table.schema.field(at)
            plain = kind.type.value_type if pa.types.is_dictionary(kind.type) else kind.type
            table = table.set_column(at, kind, pa.chunked_array([pa.array(values, plain)]).cast(kind.type))
        out = io.BytesIO()
        pq.write_table(_kept(table, plan.keep), out)
        return out.getvalue(), 0

    def _values(self, name: str | None) -> list[Any]:
        column, part = self._place(name)
        values: list[Any] = self.table.column(column).to_pylist()
        return [value_of(value, part) for value in values] if part else values

    def _place(self, name: str | None) -> tuple[str, str]:
        """Return a column, and the name of the part of its records that is meant; "" for the cells themselves."""
        names = self.table.column_names
        if name is not None and name not in names:
            for column in names:
                if rest := within(column, name):
                    return column, rest
        return target_column(name, names), ""


@dataclass(eq=False)
class ArraysSource:
    """An `.npz` file; every array whose first axis has one entry per row loses the dropped rows."""

    arrays: dict[str, np.ndarray]
    target: str | None
    id_column: str | None
    ids: Sequence[Any] = field(init=False)
    labels: Sequence[Any] | None = field(init=False)
    lines: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        labels = self.arrays[target_column(self.target or "y", list(self.arrays))]
        self.labels = labels.tolist()
        ids = (
            self.arrays[target_column(self.id_column, list(self.arrays))].tolist() if self.id_column else None
        )
        self.ids = range(len(labels)) if ids is None else _ids(ids, self.id_column)
        self.lines = range(1, len(labels) + 1)

    def cleaned(self, plan: Plan, escape: bool) -> tuple[bytes, int]:
        """Return the arrays with the kept rows."""
        arrays = dict(self.arrays)
        name = self.target or "y"
        if plan.to_label:
            known = np.unique(arrays[name]).tolist()
            new = {at: spell(label, known) for at, label in plan.to_label.items()}
            kind = np.result_type(arrays[name].dtype, np.asarray(list(new.values())).dtype)
            labels = arrays[name].astype(kind if arrays[name].dtype.kind in "US" else arrays[name].dtype)
            labels[list(new)] = list(new.values())
            arrays[name] = labels
        n = len(plan.keep)
        kept = {k: v[plan.keep] if v.ndim and len(v) == n else v for k, v in arrays.items()}
        out = io.BytesIO()
        np.savez(out, **kept)  # type: ignore[arg-type]
        return out.getvalue(), 0


@dataclass(eq=False)
class ManifestSource:
    """Files in a folder: no file is touched, the cleaned version is a table of path and label."""

    ids: Sequence[Any]
    labels: Sequence[Any] | None
    lines: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = range(1, len(self.ids) + 1)

    def cleaned(self, plan: Plan, escape: bool) -> tuple[bytes, int]:
        """Return the manifest; formula-like paths start with `./`, such labels with an apostrophe."""
        labels = list(self.labels if self.labels is not None else [""] * len(self.ids))
        for position, label in plan.to_label.items():
            labels[position] = label
        paths = [f"./{p}" if neutralise(str(p)) != str(p) else str(p) for p in self.ids]
        table = pd.DataFrame({"path": paths, "label": [neutralise(label) for label in labels]})[plan.keep]
        return table.to_csv(index=False, lineterminator="\n").encode("utf-8"), 0


def _kept(table: pa.Table, keep: np.ndarray) -> pa.Table:
    """Return the rows that stay; by whole stretches where Arrow cannot take single rows of a type (texts as views)."""
    try:
        return table.filter(pa.array(keep))
    except pa.ArrowNotImplementedError:
        edges = np.flatnonzero(np.diff(np.r_[False, keep, False]))
        return pa.concat_tables([table.slice(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)])


def _ids(values: list[Any], column: str | None) -> list[Any]:
    missing = sum(value is None or str(value).strip() == "" for value in values)
    if missing:
        raise DataError(
            explain(
                f"an id in every row of column {column!r}",
                f"{missing} rows have none",
                "rows added by hand since the scan",
                "restore the file that was scanned",
            )
        )
    return values
