"""What the rest of the library sees of a data set: numbers for the model, original rows for the reader."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._messages import listed, nearest
from finfluence.ingest._values import class_keys_of

Task = Literal["classification", "regression"]
Kind = Literal["table", "images", "arrays"]

TEXT_LIMIT = 300
CELL_LIMIT = 40


@dataclass(frozen=True)
class Source:
    """Where a table came from, and everything needed to read it again (`reread`)."""

    name: str
    """Absolute path, or the name of a built-in data set, or `"memory"`."""
    format: str
    """`csv`, `tsv`, `parquet`, `jsonl`, `npz`, `folder`, `builtin` or `memory`."""
    digest: str
    """SHA-256 of the content, in hex."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `read` that were used, resolved (task, image size)."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What was found out while reading: encoding and delimiter of a CSV file, the part of a built-in set."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML or JSON."""
        return asdict(replace(self, options=dict(self.options), details=dict(self.details)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Source":
        """Return the source that `to_dict` described."""
        return cls(**values)


@dataclass(frozen=True)
class Target:
    """How original target values and the model's targets translate into each other.

    Classification: `y` is the index into `classes` (original values, numbers first, sorted).
    Regression: `y = (value - mean) / scale` with mean and standard deviation of the training part; `written` is the
    unit or currency that all values carry, "" for none.

    Examples
    --------
    >>> target = Target("species", classes=("cat", "dog"))
    >>> target.encode(["dog", "cat"]).tolist(), target.decode([0, 1]).tolist()
    ([1, 0], ['cat', 'dog'])
    """

    name: str
    classes: tuple[Any, ...] | None = None
    mean: float = 0.0
    scale: float = 1.0
    written: str = ""

    @property
    def unit(self) -> str:
        """What the value 1 of an encoded target means."""
        if self.classes is not None:
            return f"class of {self.name!r}"
        size = f"{self.scale:.4g} {self.written}".strip()
        return f"{size} of {self.name!r} (one standard deviation in the training rows)"

    def encode(self, values: Sequence[Any] | np.ndarray | pd.Series) -> np.ndarray:
        """Return model targets: int64 class indices, or float32 standardised numbers.

        Returns
        -------
        np.ndarray

        Raises
        ------
        DataError
            A value is no known class.
        """
        if self.classes is None:
            return ((np.asarray(values, dtype=np.float64) - self.mean) / self.scale).astype(np.float32)
        index = {key: position for position, key in enumerate(class_keys_of(self.classes))}
        given = list(values)
        keys = class_keys_of(given)
        wrong = {key: value for key, value in zip(keys, given, strict=True) if key not in index}
        if wrong:
            unknown = [value for value in wrong.values() if not _is_missing(value)]
            first = str(unknown[0]) if unknown else "a missing value"
            raise DataError(
                explain(
                    f"values of {self.name!r} among the {len(self.classes)} training classes: "
                    f"{listed(self.classes, 10)}",
                    f"{listed(unknown) or first}{nearest(first, self.classes)}",
                    "a spelling that differs, or a class that the training part does not hold",
                    "correct the spelling, leave those rows out, or add the class to the training data",
                )
            )
        return np.array([index[key] for key in keys], dtype=np.int64)

    def decode(self, y: Sequence[int] | Sequence[float] | np.ndarray) -> np.ndarray:
        """Return original values: an object array of class names, or float64 numbers."""
        if self.classes is None:
            return np.asarray(y, dtype=np.float64) * self.scale + self.mean
        names = np.empty(len(self.classes), dtype=object)
        names[:] = self.classes
        return names[np.asarray(y, dtype=np.int64)]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows ready for a model, tied to the original rows: position `i` means the same row everywhere.

    `x` is float32 `[n, features]` or `[n, channels, height, width]`, finite, and scaled by numbers taken from
    the training part only. `y` is int64 (class index) or float32 (standardised), see `target`.
    """

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    """Unique row ids: the id column, else 0-based row numbers, or relative paths of image files."""
    groups: np.ndarray | None
    task: Task
    target: Target
    frame: pd.DataFrame | None
    """The original rows with all their columns as read; None for arrays and images."""
    kind: Kind
    source: Source
    features: tuple[str, ...]
    """Names of the columns of `x` (of its channels for images)."""
    used: Mapping[str, str]
    """Original column -> how it became features."""
    dropped: Mapping[str, str]
    """Original column -> why it is no feature."""
    notes: tuple[str, ...] = ()
    """Everything that was decided while reading, one sentence each."""
    warnings: tuple[str, ...] = ()
    """Those notes that a reader must see on the screen: columns left out, cells lost, filled or cut, doubts."""
    column_decisions: pd.DataFrame | None = None
    """One line a column of the file: how it was read, and what for (see `decision_table`); None without columns."""
    pictures: np.ndarray | None = None
    """uint8 `[n, height, width, channels]` to look at; None for tables and arrays."""
    shown_first: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def labels(self) -> np.ndarray:
        """The target of every row as an original value."""
        return self.target.decode(self.y)

    def take(self, positions: Sequence[int] | np.ndarray) -> "Table":
        """Return the rows at `positions`, in that order."""
        at = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            x=self.x[at],
            y=self.y[at],
            ids=self.ids[at],
            groups=None if self.groups is None else self.groups[at],
            frame=None if self.frame is None else self.frame.iloc[at].reset_index(drop=True),
            pictures=None if self.pictures is None else self.pictures[at],
        )

    def followed_by(self, other: "Table") -> "Table":
        """Return the rows of this table, then those of `other`, which must be scaled and named alike."""
        parts = (self, other)
        frames = [t.frame for t in parts if t.frame is not None]
        pictures = [t.pictures for t in parts if t.pictures is not None]
        groups = [t.groups for t in parts if t.groups is not None]
        return replace(
            self,
            x=np.concatenate([t.x for t in parts]),
            y=np.concatenate([t.y for t in parts]),
            ids=np.concatenate([t.ids for t in parts]),
            groups=np.concatenate(groups) if len(groups) == 2 else None,
            frame=pd.concat(frames, ignore_index=True) if len(frames) == 2 else None,
            pictures=np.concatenate(pictures) if len(pictures) == 2 else None,
        )

    def preview(self, i: int, max_cells: int = CELL_LIMIT, max_text: int = TEXT_LIMIT) -> dict[str, Any]:
        """Return what a reader should see of row `i`.

        Returns
        -------
        dict
            `{"image": uint8 array [height, width] or [height, width, 3]}` for images, else
            `{"cells": {column: text}}`: target, id and group first, long texts and wide rows cut.
        """
        if self.pictures is not None:
            picture = self.pictures[i]
            return {"image": picture[..., 0] if picture.shape[-1] == 1 else picture}
        if self.frame is None:
            cells = {
                self.target.name: self.labels[i : i + 1][0],
                **dict(zip(self.features, self.x[i], strict=True)),
            }
        else:
            row = self.frame.iloc[i]
            order = [
                *self.shown_first,
                *(name for name in self.frame.columns if name not in self.shown_first),
            ]
            cells = {str(name): row[name] for name in order}
        shown = {name: _cut(value, max_text) for name, value in list(cells.items())[:max_cells]}
        if len(cells) > max_cells:
            shown["…"] = f"and {len(cells) - max_cells} more columns"
        return {"cells": shown}


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or value != value


def _cut(value: Any, limit: int) -> str:
    text = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
