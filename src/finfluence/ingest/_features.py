"""Table rows as float32 features: everything that is estimated comes from the training part."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from finfluence._seeds import torch_seed
from finfluence.errors import DataError, explain
from finfluence.ingest._columns import Column, describe
from finfluence.ingest._messages import require
from finfluence.ingest._text import TextEncoder
from finfluence.ingest._values import texts

CLIP = 3.0
"""Standardised numbers are cut here, so that one typing error cannot burst a training."""
LEVEL_BUDGET = 1000
TEXT_BUDGET = 400
MISSING_LEVEL = "(missing)"

Block = tuple[list[str], np.ndarray]
"""Names of features, and their columns."""


@dataclass(eq=False)
class TableEncoder:
    """Features of a table: fitted once on the training part, then applied to any part.

    Numbers and dates: missing cells replaced by the median and marked by a column of their own, then
    standardised and cut at ±3. Categories: one 0/1 column a level (at most 40 levels). Text: hashed words or
    character n-grams, TF-IDF, truncated SVD (at most 200 columns). Constant and empty columns are left out.
    The frame's index names the rows in messages.
    """

    seed: int = 0
    decimal: str = "."
    columns: list[Column] = field(default_factory=list)
    features: tuple[str, ...] = ()
    _varying: list[str] = field(default_factory=list)
    _gaps: list[str] = field(default_factory=list)
    _dates: dict[str, Any] = field(default_factory=dict)
    _scaling: Any = None
    _levels: Any = None
    _texts: dict[str, TextEncoder] = field(default_factory=dict)

    def fit_transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Decide how each column is used, estimate what that takes, and return float32 `[n, features]`."""
        wordy = sum(not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)
        max_levels = int(np.clip(LEVEL_BUDGET // max(wordy, 1), 8, 40))
        self.columns = [describe(frame[name], max_levels, self.decimal) for name in frame.columns]
        self._check_any_left()
        for column in self._of("date"):
            encoder = require("skrub", "turns dates into numbers").DatetimeEncoder(add_weekday=True)
            self._dates[column.name] = encoder.fit(column.as_dates(frame[column.name]))
        size = int(np.clip(TEXT_BUDGET // max(len(self._of("text")), 1), 4, 200))
        for column in self._of("text"):
            words = TextEncoder(size, torch_seed(self.seed, f"text of {column.name}") % 2**32)
            self._texts[column.name] = words.fit(texts(frame[column.name]))
        blocks = [*self._fit_numbers(frame), *self._fit_levels(frame), *self._transform_texts(frame)]
        self.features = tuple(name for names, _ in blocks for name in names)
        return _joined([block for _, block in blocks], len(frame))

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Return float32 `[n, features]` of another part, encoded as the training part was."""
        blocks: list[np.ndarray] = []
        if self._scaling is not None:
            blocks.append(self._scaled(self._measured(frame)))
        if self._levels is not None:
            blocks.append(self._levels.transform(self._words(frame)))
        blocks += [block for _, block in self._transform_texts(frame)]
        return _joined(blocks, len(frame))

    @property
    def used(self) -> Mapping[str, str]:
        """Column -> how it became features."""
        return {column.name: column.about for column in self.columns if column.kind != "dropped"}

    @property
    def dropped(self) -> Mapping[str, str]:
        """Column -> why it is no feature."""
        return {column.name: column.about for column in self.columns if column.kind == "dropped"}

    def _of(self, kind: str) -> list[Column]:
        return [column for column in self.columns if column.kind == kind]

    def _measured(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return numbers, parts of dates, and 0/1 marks of missing cells, by feature name."""
        found: dict[str, np.ndarray] = {}
        for column in self._of("number"):
            found[column.name] = column.as_numbers(frame[column.name])
        for column in self._of("date"):
            parts = self._dates[column.name].transform(column.as_dates(frame[column.name]))
            found |= {
                str(part).replace("_", " "): parts[part].to_numpy(dtype=np.float64) for part in parts.columns
            }
        return found

    def _fit_numbers(self, frame: pd.DataFrame) -> list[Block]:
        measured = self._measured(frame)
        self._varying = [name for name, values in measured.items() if np.nanmin(values) < np.nanmax(values)]
        masks: dict[bytes, str] = {}
        for name, values in measured.items():
            if np.isnan(values).any():
                masks.setdefault(np.isnan(values).tobytes(), name)
        self._gaps = list(masks.values())
        names = [*self._varying, *(f"{name} is missing" for name in self._gaps)]
        if not names:
            return []
        imputer = require("sklearn.impute", "fills gaps").SimpleImputer(strategy="median")
        scaler = require("sklearn.preprocessing", "scales features").StandardScaler()
        self._scaling = require("sklearn.pipeline", "scales features").make_pipeline(imputer, scaler)
        self._scaling.fit(self._with_gaps(measured))
        return [(names, self._scaled(measured))]

    def _with_gaps(self, measured: dict[str, np.ndarray]) -> np.ndarray:
        marks = [np.isnan(measured[name]).astype(np.float64) for name in self._gaps]
        return np.column_stack([*(measured[name] for name in self._varying), *marks])

    def _scaled(self, measured: dict[str, np.ndarray]) -> np.ndarray:
        return np.clip(self._scaling.transform(self._with_gaps(measured)), -CLIP, CLIP)

    def _words(self, frame: pd.DataFrame) -> np.ndarray:
        cells = np.column_stack([texts(frame[column.name]) for column in self._of("category")])
        cells[cells == None] = MISSING_LEVEL  # noqa: E711 - elementwise on an object array
        return cells

    def _fit_levels(self, frame: pd.DataFrame) -> list[Block]:
        if not self._of("category"):
            return []
        preprocessing = require("sklearn.preprocessing", "encodes categories")
        encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        block = encoder.fit_transform(self._words(frame))
        self._levels = encoder
        names = [
            f"{column.name} = {level}"
            for column, levels in zip(self._of("category"), encoder.categories_, strict=True)
            for level in levels
        ]
        return [(names, block)]

    def _transform_texts(self, frame: pd.DataFrame) -> list[Block]:
        blocks: list[Block] = []
        for name, encoder in self._texts.items():
            block = encoder.transform(texts(frame[name]))
            blocks.append(([f"{name} text {i}" for i in range(block.shape[1])], block))
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


def _joined(blocks: list[np.ndarray], n: int) -> np.ndarray:
    if not blocks:
        return np.empty((n, 0), dtype=np.float32)
    return np.ascontiguousarray(np.concatenate([block.astype(np.float32) for block in blocks], axis=1))
