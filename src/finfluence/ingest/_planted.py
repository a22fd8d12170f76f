"""Label errors put in on purpose, with the list of where they are: for demos, tests and benchmarks."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from finfluence._seeds import stream
from finfluence.errors import ConfigError, explain
from finfluence.ingest._build import column
from finfluence.ingest._raw import RawTable, as_objects
from finfluence.ingest._table import Table
from finfluence.ingest._target import class_keys, refuse_several

Data = TypeVar("Data", pd.DataFrame, RawTable, Table)


def plant_label_errors(
    data: Data, fraction: float, seed: int = 0, target: str = "label"
) -> tuple[Data, np.ndarray]:
    """Give `round(fraction * n)` random rows another class, drawn uniformly from the others.

    Parameters
    ----------
    data
        A frame, a raw table or a table of a classification. It is not changed.
    fraction
        Share of rows to change, between 0 and 1.
    seed
        Seed of the draw.
    target
        Target column of a frame (tables know theirs).

    Returns
    -------
    tuple
        The changed copy, and the sorted positions (frame) or ids in row order (tables) of the changed rows.

    Raises
    ------
    ConfigError
        The fraction is not between 0 and 1, or the data is a regression.
    DataError
        The labels are lists.

    Examples
    --------
    >>> frame = pd.DataFrame({"x": range(10), "label": ["a", "b"] * 5})
    >>> changed, rows = plant_label_errors(frame, 0.2, seed=1)
    >>> len(rows), int((changed["label"] != frame["label"]).sum())
    (2, 2)
    """
    regression = not isinstance(data, pd.DataFrame) and data.task == "regression"
    if not 0 <= fraction <= 1 or regression:
        raise ConfigError(
            explain(
                "a fraction between 0 and 1 of the rows of a classification",
                f"fraction {fraction} of a {'regression' if regression else 'classification'}",
                "a percentage instead of a fraction" if not regression else "numbers have no other class",
                "use 0.1 to change one label in ten",
            )
        )
    if isinstance(data, pd.DataFrame):
        labels = as_objects(column(data, target, "target", "the frame").astype(object))
        refuse_several(labels, target)
        changed, rows = _flipped(labels, fraction, seed)
        frame = data.copy()
        frame[target] = pd.Series(changed, index=data.index, dtype=object).astype(data[target].dtype)
        return frame, rows
    if isinstance(data, RawTable):
        changed, rows = _flipped(data.labels, fraction, seed)
        return data.with_labels(changed), data.ids[rows]
    changed, rows = _flipped(data.labels, fraction, seed)
    frame_copy = data.frame
    if frame_copy is not None:
        name = data.target.name
        frame_copy = frame_copy.copy()
        frame_copy[name] = pd.Series(changed, index=frame_copy.index, dtype=object).astype(
            frame_copy[name].dtype
        )
    return replace(data, y=data.target.encode(changed), frame=frame_copy), data.ids[rows]


def _flipped(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    keys = class_keys(labels)
    names = as_objects([labels[int(np.argmax(keys == key))] for key in range(int(keys.max()) + 1)])
    rng = stream(seed, "planted label errors")
    rows = np.sort(rng.choice(len(labels), round(fraction * len(labels)), replace=False))
    shift = rng.integers(1, len(names), size=len(rows))
    changed = labels.copy()
    changed[rows] = names[(keys[rows] + shift) % len(names)]
    return changed, rows
