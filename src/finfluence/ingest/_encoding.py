"""Both parts as features: what is estimated comes from the training part, spellings from the whole file."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from finfluence.errors import ConfigError
from finfluence.ingest._columns import Column
from finfluence.ingest._decisions import Cut, decision_table, warnings_of
from finfluence.ingest._features import CLIP, TableEncoder
from finfluence.ingest._leaks import gives_away, leak_note, marks_a_class, same_words
from finfluence.ingest._messages import listed, require
from finfluence.ingest._parts import NOTABLE, Account
from finfluence.ingest._raw import RawTable
from finfluence.ingest._row_names import determines, names_rows
from finfluence.ingest._scaling import ArrayScaler, PixelScaler
from finfluence.ingest._target import fit_target
from finfluence.ingest._values import class_keys_of, texts

_SORTED = (
    "a different whole number in nearly every row, and sorted by it the label changes only {count} times: "
    "it gives the label away"
)


@dataclass(frozen=True, eq=False)
class Further:
    """Rows of one more file as features, and what became of their cells, by column and by feature."""

    x: np.ndarray
    accounts: Mapping[str, Account] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    """Column -> share of its training cells that are missing."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features of both parts, and what was decided on the way.

    Attributes
    ----------
    train, held
        float32 features of the two parts.
    features
        Names of the columns (of the channels of images).
    used, dropped
        Original column -> how it became features, or why it did not.
    warnings
        What a reader must see on the screen.
    decisions
        One line a column (`decision_table`); None without columns.
    low_high
        Values shown as black and white.
    further
        Encodes one more part as the hold-out part was.
    """

    train: np.ndarray
    held: np.ndarray
    features: tuple[str, ...]
    used: Mapping[str, str]
    further: Callable[[RawTable], Further]
    dropped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    decisions: pd.DataFrame | None = None
    low_high: tuple[float, float] = (0.0, 255.0)


def encode(train: RawTable, held: RawTable, seed: int, whole: RawTable, y: np.ndarray) -> Encoded:
    """Return both parts as features.

    Parameters
    ----------
    train, held
        The two parts.
    seed
        Of the projection of texts.
    whole
        All rows of the training file, to find columns that number them.
    y
        Encoded targets of the training part, to find texts that tell nothing about them.

    Returns
    -------
    Encoded

    Raises
    ------
    DataError
        No feature is left, or hold-out cells cannot be read as in training.
    """
    if train.frame is not None and held.frame is not None:
        return _tables(train, held, seed, whole, y)
    if train.pixels is not None and held.pixels is not None:
        pixels = PixelScaler().fit(train.pixels)
        return Encoded(
            pixels.transform(train.pixels),
            pixels.transform(held.pixels),
            features=tuple(f"channel {i}" for i in range(train.pixels.shape[-1])),
            used={"pixels": "standardised in each channel"},
            further=lambda raw: Further(pixels.transform(_given(raw.pixels))),
            low_high=(float(train.pixels.min()), float(train.pixels.max())),
        )
    assert train.array is not None and held.array is not None
    arrays = ArrayScaler().fit(train.array)
    x = arrays.transform(train.array)
    return Encoded(
        x,
        arrays.transform(held.array),
        features=arrays.features,
        used={"x": f"{len(arrays.features)} columns, standardised"},
        further=lambda raw: Further(arrays.transform(_given(raw.array))),
        dropped=arrays.dropped,
        warnings=_of_arrays(x, len(arrays.dropped)),
    )


def _of_arrays(x: np.ndarray, constant: int) -> tuple[str, ...]:
    """Return what a reader must see of features without names: constant ones, and numbers that were cut."""
    said = [f"{constant} constant columns of x are not used"] if constant else []
    cut = int((np.abs(x) >= CLIP).sum())
    if cut > NOTABLE * x.size:
        said.append(
            f"{100 * cut / x.size:.2g} % of the numbers in x lie beyond 3 standard deviations and were cut there"
        )
    return tuple(said)


def _tables(train: RawTable, held: RawTable, seed: int, whole: RawTable, y: np.ndarray) -> Encoded:
    assert whole.frame is not None and train.frame is not None and held.frame is not None
    given = {train.target_name: "target", train.id_column: "id", train.group_column: "group"}
    roles = {name: role for name, role in given.items() if name is not None}
    candidates = [name for name in whole.frame.columns if name not in roles]
    why = {name: names_rows(whole.frame[name], whole.reading) for name in candidates}
    left_out = {name: reason for name, reason in why.items() if reason is not None}
    names = [name for name in candidates if name not in left_out]
    telling = _telling(whole, names) if train.task == "classification" else {}
    classes = len(set(class_keys_of(whole.labels)))
    sorted_by_label = {name: count for name, count in telling.items() if count < classes}
    if len(sorted_by_label) < len(names):
        left_out |= {name: _SORTED.format(count=count) for name, count in sorted_by_label.items()}
        names = [name for name in names if name not in sorted_by_label]
    foreign = None if held.reading is train.reading else held.reading
    encoder = TableEncoder(seed, train.reading, left_out=left_out)
    with _one_thread():
        x = encoder.fit_transform(_features(train, names), foreign, y)
        x_held = encoder.transform(_features(held, names), foreign)
    if foreign is not None:
        frame = held.frame
        encoder.columns = [_with_holdout(column, frame[column.name]) for column in encoder.columns]
    warnings = warnings_of(encoder.columns, left_out, encoder.accounts, encoder.cuts, (len(train), len(held)))
    warnings += tuple(
        f"column {name!r}: {_SORTED.format(count=count)}; if it names the rows, leave it out"
        for name, count in telling.items()
        if name in encoder.used
    )
    notes = _leak_notes(encoder, x, y, train, classes) if len(encoder.used) > 1 else {}
    warnings = (*(f"column {name!r}: {note}" for name, note in notes.items()), *warnings)
    decisions = decision_table(
        list(train.frame.columns),
        [_with_note(column, notes.get(column.name)) for column in encoder.columns],
        roles,
        left_out,
        encoder.accounts,
        len(train),
    )

    def further(raw: RawTable) -> Further:
        with _one_thread():
            more = encoder.transform(_features(raw, list(encoder.used)), raw.reading)
        gaps = {column.name: column.missing / len(train) for column in encoder.columns}
        return Further(more, dict(encoder.accounts), dict(encoder.cuts), gaps)

    return Encoded(
        x,
        x_held,
        features=encoder.features,
        used=encoder.used,
        further=further,
        dropped=encoder.dropped,
        warnings=warnings,
        decisions=decisions,
    )


def _given(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values


def _telling(whole: RawTable, names: list[str]) -> dict[str, int]:
    """Return how often the label changes along each column that may be an id which gives the label away."""
    assert whole.frame is not None
    changes = {name: determines(whole.frame[name], whole.labels, whole.reading) for name in names}
    return {name: count for name, count in changes.items() if count is not None}


def _leak_notes(
    encoder: TableEncoder, x: np.ndarray, y: np.ndarray, train: RawTable, classes: int
) -> dict[str, str]:
    """Return a note for each column that holds the label in other words, or alone predicts it."""
    assert train.frame is not None
    leaks = gives_away(x, y, encoder.owners, classes if train.task == "classification" else None)
    notes = {name: leak_note(share) for name, share in leaks.items()}
    if train.task != "classification":
        return notes
    names = fit_target(train.labels, train.target_name, train.task).classes or ()
    for name, index in marks_a_class(x, y, encoder.owners, classes).items():
        notes.setdefault(
            name, f"it marks the class {names[index]!r}: leave it out if it was made from the label"
        )
    for column in encoder.columns:
        if column.kind == "category" and column.name not in notes:
            same = same_words(train.frame[column.name].to_numpy(dtype=object), train.labels)
            if same:
                notes[column.name] = (
                    f"{same} of {len(train)} cells are the label itself: leave it out if it is a copy of it"
                )
    return notes


def _with_holdout(column: Column, series: pd.Series) -> Column:
    """Return a column that says nothing in training with what a hold-out file holds in its stead."""
    if column.about not in ("constant", "every cell is missing"):
        return column
    cells = sorted({cell for cell in texts(series) if cell is not None})
    if len(cells) < (2 if column.about == "constant" else 1):
        return column
    return replace(column, about=f"{column.about} in training; the hold-out file holds {listed(cells, 3)}")


def _with_note(column: Column, note: str | None) -> Column:
    return column if note is None else replace(column, notes=(note, *column.notes))


def _features(raw: RawTable, names: list[str]) -> pd.DataFrame:
    assert raw.frame is not None
    return raw.frame[names].set_axis(raw.ids, axis=0)


def _one_thread() -> Any:
    """Keep linear algebra on one thread: sums in another order would change the last digits."""
    try:
        return require("threadpoolctl", "makes projections repeatable").threadpool_limits(1)
    except ConfigError:
        return nullcontext()
