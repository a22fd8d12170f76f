"""A data set as read: original values, nothing scaled, nothing split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._marks import Marks
from finfluence.ingest._messages import listed
from finfluence.ingest._reading import FileReading
from finfluence.ingest._table import Kind, Source, Task


@dataclass(frozen=True, eq=False, kw_only=True)
class RawTable:
    """What `read` returns and `split` takes. Exactly one of `frame`, `pixels` and `array` is given."""

    kind: Kind
    labels: np.ndarray
    """Original target values, object array."""
    ids: np.ndarray
    groups: np.ndarray | None = None
    task: Task
    task_reason: str
    target_name: str
    source: Source
    frame: pd.DataFrame | None = None
    """The table as in the file (cells of CSV files are texts)."""
    pixels: np.ndarray | None = None
    """Images `[n, height, width, channels]`, uint8 or float64."""
    array: np.ndarray | None = None
    """Features `[n, features]` of an `.npz` file, float64."""
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """What a reader must see of how the file was read."""
    official: "RawTable | None" = None
    """The hold-out part that belongs to a built-in set (Fashion-MNIST's 10,000 test images)."""
    id_column: str | None = None
    group_column: str | None = None
    reading: FileReading = field(default_factory=FileReading)
    """How the file spells its numbers and dates, gathered from all of its rows."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Sequence[int] | np.ndarray) -> "RawTable":
        """Return the rows at `positions`; an official hold-out part stays whole."""
        at = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            frame=None if self.frame is None else self.frame.iloc[at].reset_index(drop=True),
            pixels=None if self.pixels is None else self.pixels[at],
            array=None if self.array is None else self.array[at],
            labels=self.labels[at],
            ids=self.ids[at],
            groups=None if self.groups is None else self.groups[at],
        )

    def with_labels(self, labels: Sequence[Any] | np.ndarray) -> "RawTable":
        """Return a copy with other target values, in the frame too."""
        values = as_objects(labels)
        if self.frame is None:
            return replace(self, labels=values)
        frame = self.frame.copy()
        frame[self.target_name] = pd.Series(values, index=frame.index, dtype=object).astype(
            frame[self.target_name].dtype
        )
        return replace(self, labels=values, frame=frame)

    @property
    def marks(self) -> Marks:
        """The decimal mark of the target."""
        return self.reading.number_marks(self.target_name)

    def marks_beside(self, train: "RawTable") -> Marks:
        """Return the decimal mark of a hold-out target: its own file's, or training's where that does not decide."""
        return self.reading.number_marks(self.target_name, train.marks)

    @property
    def summary(self) -> Mapping[str, Any]:
        """Rows, kind, task and source in plain values."""
        return {
            "rows": len(self),
            "kind": self.kind,
            "task": self.task,
            "task_reason": self.task_reason,
            "target": self.target_name,
            "source": self.source.name,
            "format": self.source.format,
        }


def as_objects(values: Any) -> np.ndarray:
    """Return a one-dimensional object array of plain Python values."""
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    result = np.empty(len(plain), dtype=object)
    for i, value in enumerate(plain):
        result[i] = value
    return result


def row_ids(values: np.ndarray, name: str) -> np.ndarray:
    """Return ids as int64 where all are plain integers, else as texts, after checking that they are unique.

    Returns
    -------
    np.ndarray

    Raises
    ------
    DataError
        Two rows have one id, or an id is missing.
    """
    cells = pd.Series(values, dtype=object)
    missing = np.flatnonzero(cells.isna() | (cells.astype(str).str.strip() == ""))
    if len(missing):
        raise DataError(
            explain(
                f"an id in every row of column {name!r}",
                f"{len(missing)} rows have none: rows {listed(missing)} (the first is 0)",
                "rows added by hand, or a column that is no id",
                "fill the column, name another by --id, or leave --id out to use row numbers",
            )
        )
    ids = cells.astype(str).to_numpy(dtype=object)
    repeated = cells.astype(str).value_counts()
    repeated = repeated[repeated > 1]
    if len(repeated):
        raise DataError(
            explain(
                f"a different id in every row of column {name!r}",
                f"{len(repeated)} ids stand in more than one row: "
                + listed(f"{key} ({count} times)" for key, count in repeated.sort_index().items()),
                "rows that were appended twice, or a column that names a group and not a row",
                "remove the duplicates, name another column by --id, or leave --id out to use row numbers",
            )
        )
    try:
        whole = np.array([int(value) for value in ids], dtype=np.int64)
    except (ValueError, OverflowError):
        return ids.astype(str)
    return (
        whole
        if all(str(number) == text for number, text in zip(whole, ids, strict=True))
        else ids.astype(str)
    )
