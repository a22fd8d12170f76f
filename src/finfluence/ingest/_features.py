"""Table rows as float32 features: everything that is estimated comes from the training part."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from finfluence._seeds import torch_seed
from finfluence.errors import DataError, explain
from finfluence.ingest._columns import Column, describe
from finfluence.ingest._decisions import Cut
from finfluence.ingest._messages import require
from finfluence.ingest._parts import Account, date_part, level_part, number_part
from finfluence.ingest._reading import FileReading, file_reading
from finfluence.ingest._text import TextEncoder
from finfluence.ingest._values import texts

CLIP = 3.0
"""Standardised numbers are cut here, so that one typing error cannot burst a training."""
LEVEL_BUDGET = 1000
TEXT_BUDGET, LEAST_TEXT = 400, 4
SAYS_NOTHING = (
    "text that tells nothing about the target: its words predict rows left out no better than a constant"
)

Key = tuple[str, str]
"""Column, and which part of it: "" for the number itself."""
Block = tuple[list[Key], np.ndarray]
"""Features, and their columns."""


@dataclass(eq=False)
class TableEncoder:
    """Features of a table: fitted once on the training part, then applied to any part.

    Numbers and dates: missing cells replaced by the median and marked by a column of their own, then
    standardised and cut at ±3. Categories: one 0/1 column a level (at most 40 levels). Text: hashed words or
    character n-grams, TF-IDF, truncated SVD (at most 200 columns, as many as tell about the target). Constant and empty
    columns are left out.
    The frame's index names the rows in messages.

    Attributes
    ----------
    seed
        Of the projection of texts.
    reading
        How the training file spells numbers and dates; None gathers it from the frame that is fitted.
    columns
        What was decided for each column.
    features
        Names of the features, all different whatever the columns are called.
    owners
        For each feature, its column.
    left_out
        Column -> why it was no candidate, for messages.
    accounts
        Column -> what became of its cells in the part that was encoded last.
    cuts
        Feature -> numbers cut at ±3, in training and in the part that was encoded last.
    """

    seed: int = 0
    reading: FileReading | None = None
    columns: list[Column] = field(default_factory=list)
    features: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    cuts: dict[str, Cut] = field(default_factory=dict)
    _varying: list[Key] = field(default_factory=list)
    _gaps: list[Key] = field(default_factory=list)
    _dates: dict[str, Any] = field(default_factory=dict)
    _scaling: Any = None
    _levels: Any = None
    _texts: dict[str, TextEncoder] = field(default_factory=dict)

    def fit_transform(
        self, frame: pd.DataFrame, other: FileReading | None = None, y: np.ndarray | None = None
    ) -> np.ndarray:
        """Decide how each column is used, estimate what that takes, and return float32 `[n, features]`.

        Parameters
        ----------
        frame
            The training rows.
        other
            How a hold-out file spells its cells, for dates whose order the training file leaves open.
        y
            Class indices or numbers: a text then becomes as many columns as help to predict them, and is left out where
            it tells nothing.

        Returns
        -------
        np.ndarray
        """
        if self.reading is None:
            self.reading = file_reading(frame)
        max_levels = most_levels(frame)
        self.columns = [describe(frame[name], max_levels, self.reading, other) for name in frame.columns]
        self._check_any_left()
        for column in self._of("date"):
            encoder = require("skrub", "turns dates into numbers").DatetimeEncoder(add_weekday=True)
            moments, _ = date_part(column, frame[column.name], None)
            self._dates[column.name] = encoder.fit(moments)
        self._fit_texts(frame, y)
        blocks = [*self._fit_numbers(frame), *self._fit_levels(frame), *self._transform_texts(frame)]
        keys = [key for keys, _ in blocks for key in keys]
        self.owners = tuple(name for name, _ in keys)
        self.features = _different(keys, list(map(str, frame.columns)))
        return _joined([block for _, block in blocks], len(frame))

    def transform(self, frame: pd.DataFrame, reading: FileReading | None = None) -> np.ndarray:
        """Return float32 `[n, features]` of another part, encoded as the training part was.

        Parameters
        ----------
        frame
            The rows.
        reading
            How their own file spells numbers and dates; None for rows of the training file.

        Returns
        -------
        np.ndarray

        Raises
        ------
        DataError
            A number is infinite, or most cells of a column of numbers or dates cannot be read.
        """
        blocks: list[np.ndarray] = []
        self.accounts = {}
        if self._scaling is not None:
            blocks.append(self._scaled(self._measured(frame, reading), training=False))
        if self._levels is not None:
            blocks.append(self._levels.transform(self._words(frame, reading is not None)))
        blocks += [block for _, block in self._transform_texts(frame)]
        return _joined(blocks, len(frame))

    @property
    def used(self) -> Mapping[str, str]:
        """Column -> how it became features."""
        return {column.name: column.about for column in self.columns if column.kind != "dropped"}

    @property
    def dropped(self) -> Mapping[str, str]:
        """Column -> why it is no feature."""
        return dict(self.left_out) | {
            column.name: column.about for column in self.columns if column.kind == "dropped"
        }

    def _of(self, kind: str) -> list[Column]:
        return [column for column in self.columns if column.kind == kind]

    def _measured(self, frame: pd.DataFrame, reading: FileReading | None) -> dict[Key, np.ndarray]:
        """Return numbers and parts of dates, by column and part."""
        found: dict[Key, np.ndarray] = {}
        assert self.reading is not None
        for column in self._of("number"):
            values, account = number_part(column, frame[column.name], reading, self.reading)
            found[column.name, ""], self.accounts[column.name] = values, account
        for column in self._of("date"):
            moments, account = date_part(column, frame[column.name], reading)
            self.accounts[column.name] = account
            parts = self._dates[column.name].transform(moments)
            for part in parts.columns:
                what = str(part).removeprefix(f"{column.name}_").replace("_", " ")
                found[column.name, what] = parts[part].to_numpy(dtype=np.float64)
        return found

    def _fit_numbers(self, frame: pd.DataFrame) -> list[Block]:
        measured = self._measured(frame, None)
        self._varying = [key for key, values in measured.items() if np.nanmin(values) < np.nanmax(values)]
        masks: dict[bytes, Key] = {}
        for key, values in measured.items():
            if np.isnan(values).any():
                masks.setdefault(np.isnan(values).tobytes(), key)
        self._gaps = list(masks.values())
        keys = [*self._varying, *((name, f"{part} is missing".strip()) for name, part in self._gaps)]
        if not keys:
            return []
        imputer = require("sklearn.impute", "fills gaps").SimpleImputer(strategy="median")
        scaler = require("sklearn.preprocessing", "scales features").StandardScaler()
        self._scaling = require("sklearn.pipeline", "scales features").make_pipeline(imputer, scaler)
        self._scaling.fit(self._with_gaps(measured))
        return [(keys, self._scaled(measured, training=True))]

    def _with_gaps(self, measured: dict[Key, np.ndarray]) -> np.ndarray:
        marks = [np.isnan(measured[key]).astype(np.float64) for key in self._gaps]
        return np.column_stack([*(measured[key] for key in self._varying), *marks])

    def _scaled(self, measured: dict[Key, np.ndarray], training: bool) -> np.ndarray:
        scaled = self._scaling.transform(self._with_gaps(measured))
        beyond = (np.abs(scaled[:, : len(self._varying)]) > CLIP).sum(axis=0)
        for key, count in zip(self._varying, beyond.tolist(), strict=True):
            name = " ".join(part for part in key if part)
            self.cuts[name] = Cut(count, 0) if training else Cut(self.cuts[name].training, count)
        return np.clip(scaled, -CLIP, CLIP)

    def _words(self, frame: pd.DataFrame, foreign: bool = False) -> np.ndarray:
        known = [None] * len(self._of("category")) if self._levels is None else self._levels.categories_
        blocks = []
        for column, levels in zip(self._of("category"), known, strict=True):
            cells, account = level_part(column, frame[column.name], levels, foreign)
            blocks.append(cells)
            self.accounts[column.name] = account
        return np.column_stack(blocks)

    def _fit_levels(self, frame: pd.DataFrame) -> list[Block]:
        if not self._of("category"):
            return []
        preprocessing = require("sklearn.preprocessing", "encodes categories")
        encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        block = encoder.fit_transform(self._words(frame))
        self._levels = encoder
        keys = [
            (column.name, f"= {level}")
            for column, levels in zip(self._of("category"), encoder.categories_, strict=True)
            for level in levels
        ]
        return [(keys, block)]

    def _fit_texts(self, frame: pd.DataFrame, y: np.ndarray | None) -> None:
        wordy = self._of("text")
        size = int(np.clip(TEXT_BUDGET // max(len(wordy), 1), 4, 200))
        for column in wordy:
            self._texts[column.name] = self._text_encoder(column, size).fit(texts(frame[column.name]), y)
        silent = [column for column in wordy if y is not None and not self._texts[column.name].width]
        if len(silent) == sum(column.kind != "dropped" for column in self.columns):
            first = silent.pop(0)  # something has to be learned from
            self._texts[first.name] = self._text_encoder(first, LEAST_TEXT).fit(texts(frame[first.name]))
        for column in silent:
            del self._texts[column.name]
            self._drop(column, SAYS_NOTHING)

    def _text_encoder(self, column: Column, size: int) -> TextEncoder:
        return TextEncoder(size, torch_seed(self.seed, f"text of {column.name}") % 2**32)

    def _drop(self, column: Column, why: str) -> None:
        at = self.columns.index(column)
        self.columns[at] = replace(column, kind="dropped", about=why)

    def _transform_texts(self, frame: pd.DataFrame) -> list[Block]:
        blocks: list[Block] = []
        for name, encoder in self._texts.items():
            block = encoder.transform(texts(frame[name]))
            blocks.append(([(name, f"text {i}") for i in range(block.shape[1])], block))
        return blocks

    def _check_any_left(self) -> None:
        if all(column.kind == "dropped" for column in self.columns):
            reasons = "; ".join(f"{name!r}: {why}" for name, why in list(self.dropped.items())[:5])
            raise DataError(
                explain(
                    "at least one column to learn from, beside target, id and group",
                    f"none{': ' if reasons else ''}{reasons}",
                    "a file of labels without its features, or a filter that made every column constant",
                    "add the feature columns",
                )
            )


def most_levels(frame: pd.DataFrame) -> int:
    """Return how many levels a category may have, so that all of them together stay within a budget."""
    wordy = sum(not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)
    return int(np.clip(LEVEL_BUDGET // max(wordy, 1), 8, 40))


def _different(keys: list[Key], columns: list[str]) -> tuple[str, ...]:
    """Return a name for each feature, no two alike; a column's own name always stays its own.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> _different([("a", "year"), ("a year", "")], ["a", "a year"])
    ("'a': year", 'a year')
    """
    usual = [f"{column} {part}" if part else column for column, part in keys]
    taken = Counter([*usual, *columns])
    names = []
    for (column, part), name in zip(keys, usual, strict=True):
        clash = part and taken[name] > 1
        names.append(f"{column!r}: {part}" if clash else name)
    seen = {column for column, part in keys if not part}
    for at, name in enumerate(names):
        if not keys[at][1]:
            continue
        count = 2
        while names[at] in seen:
            names[at] = f"{name} ({count})"
            count += 1
        seen.add(names[at])
    return tuple(names)


def _joined(blocks: list[np.ndarray], n: int) -> np.ndarray:
    if not blocks:
        return np.empty((n, 0), dtype=np.float32)
    return np.ascontiguousarray(np.concatenate([block.astype(np.float32) for block in blocks], axis=1))
