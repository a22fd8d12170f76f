"""Rows without labels, read and encoded as the hold-out rows of a split were."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from finfluence.errors import DataError, explain
from finfluence.ingest._builtin import BUILTIN_NAMES, read_builtin
from finfluence.ingest._encoding import Encoded, Further
from finfluence.ingest._formats import read_sheet
from finfluence.ingest._images import read_folder
from finfluence.ingest._locate import content
from finfluence.ingest._messages import listed, nearest
from finfluence.ingest._npz import check_x, named_array, read_npz
from finfluence.ingest._raw import RawTable, as_objects
from finfluence.ingest._reading import file_reading
from finfluence.ingest._same_layout import check_same_layout
from finfluence.ingest._split import parts, prepare
from finfluence.ingest._table import Source, Table

PART = "unlabelled"
_MORE_MISSING, _MORE_CUT = 0.1, 0.2
_NAMED, _NOT_CHANCE = 6, 0.001


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Rows without labels, ready for a model.

    Attributes
    ----------
    x
        float32 features, scaled and encoded as those of the training rows.
    source
        Where they came from.
    notes
        What was decided while reading: columns that were ignored, spellings that were mapped.
    warnings
        Signs that the file is not what the training file is: cells that are lost or missing, numbers far outside.
    """

    x: np.ndarray
    source: Source
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)


def split_beside(
    raw: RawTable,
    source: str | os.PathLike[str],
    holdout: str | os.PathLike[str] | RawTable | None = None,
    holdout_fraction: float | None = None,
    seed: int = 0,
) -> tuple[Table, Table, Unlabelled]:
    r"""Return what `split` returns, and rows without labels read by what it decides and estimates.

    The columns that became features must be there. A target column is ignored, as are id, group and further columns.

    Parameters
    ----------
    raw
        What `read` returned of the training source.
    source
        A file of the same kind; for images a folder with images at any depth; or the name of a built-in set.
    holdout, holdout_fraction, seed
        As of `split`.

    Returns
    -------
    tuple of Table, Table, Unlabelled

    Raises
    ------
    DataError
        As of `split`; or the rows without labels cannot be read, are the training file itself, lack columns, or most
        cells of one cannot be read as in training.

    Examples
    --------
    >>> import tempfile
    >>> from finfluence.ingest import from_frame
    >>> path = Path(tempfile.mkdtemp()) / "new.csv"
    >>> _ = path.write_text("a\n1\n2\n")
    >>> frame = pd.DataFrame({"a": [1.5, 2.0, 3.0, 2.5, 5.0, 1.5], "y": list("uvuvuv")})
    >>> [len(part) for part in split_beside(from_frame(frame, "y"), path)]
    [4, 2, 2]
    """
    train, held, encoded = prepare(parts(raw, holdout, holdout_fraction, seed), seed)
    more = _read(raw, source)
    _check_layout(raw, more, encoded)
    found = encoded.further(more)
    notes, warnings = _said(raw, more, encoded, found)
    return train, held, Unlabelled(found.x, more.source, notes, warnings)


def _read(raw: RawTable, source: str | os.PathLike[str]) -> RawTable:
    name = os.fspath(source)
    if name in BUILTIN_NAMES:
        whole = read_builtin(name)
        return _bare(raw, whole.source, len(whole), pixels=whole.pixels)
    path = Path(os.path.abspath(name))
    if path.is_dir():
        size, mode = (raw.source.options.get(key) for key in ("image_size", "image_mode"))
        pictures = read_folder(path, size, mode, labelled=False)
        return _bare(
            raw, Source(str(path), "folder", pictures.digest), len(pictures.ids), pixels=pictures.pixels
        )
    data, format = content(path, name)
    about = Source(str(path), format, hashlib.sha256(data).hexdigest())
    if format == "npz":
        x = named_array(read_npz(path, data), "x", path, "features")
        values = check_x(x, np.zeros(len(x) if x.ndim else 0), path)
        images = values.ndim == 4
        return _bare(raw, about, len(x), pixels=values if images else None, array=None if images else values)
    sheet = read_sheet(path, format, data)
    frame = sheet.frame.set_axis(pd.Index([str(c) for c in sheet.frame.columns], dtype=object), axis=1)
    reading = replace(file_reading(frame, str(sheet.details.get("delimiter", ""))), part=PART)
    return replace(
        _bare(raw, about, len(frame)), kind="table", frame=frame, reading=reading, notes=tuple(sheet.notes)
    )


def _bare(
    raw: RawTable,
    source: Source,
    rows: int,
    pixels: np.ndarray | None = None,
    array: np.ndarray | None = None,
) -> RawTable:
    return RawTable(
        kind="images" if pixels is not None else "arrays",
        labels=as_objects([None] * rows),
        ids=np.arange(rows, dtype=np.int64),
        task=raw.task,
        task_reason="as in training",
        target_name=raw.target_name,
        source=source,
        pixels=pixels,
        array=array,
    )


def _check_layout(raw: RawTable, more: RawTable, encoded: Encoded) -> None:
    another = "name the file of the rows that the model will meet"
    alike = "give them in the format of the training data, without the labels"
    check_same_layout(raw, more, PART, "rows without labels", another, alike)
    if more.frame is not None:
        _check_columns(list(encoded.used), list(more.frame.columns))


def _check_columns(used: Sequence[str], theirs: Sequence[str]) -> None:
    lacking = [name for name in used if name not in theirs]
    if lacking:
        others = [name for name in theirs if name not in used]
        raise DataError(
            explain(
                f"the unlabelled file to have the {len(used)} columns that the model learned from",
                f"it lacks {listed(lacking)}; it has {listed(theirs, 20)}{nearest(lacking[0], others)}",
                "another export, a renamed column, or a file without a header line",
                "export it with the columns of the training file (without the target; their order does not matter)",
            )
        )


def _said(
    raw: RawTable, more: RawTable, encoded: Encoded, found: Further
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what was decided, and what speaks of another kind of file."""
    notes, warnings = list(more.notes), []
    if more.frame is not None:
        there = list(more.frame.columns)
        if raw.target_name in there:
            notes.append(f"the unlabelled file holds the target {raw.target_name!r}: it is ignored")
        roles = {raw.target_name, raw.id_column, raw.group_column}
        assert raw.frame is not None
        unknown = [name for name in there if name not in raw.frame.columns and name not in roles]
        if unknown:
            notes.append(f"columns that training does not have are ignored: {listed(unknown)}")
    for account in found.accounts.values():
        notes += [f"unlabelled column {account.column!r}: {note}" for note in account.notes]
        if account.notable:
            warnings.append(
                f"unlabelled column {account.column!r}: {account.lost:,} of {account.present:,} cells cannot be read "
                f"as in training, or are unknown there, such as {account.example!r}: they say nothing to the model"
            )
        share = 1 - account.present / len(more)
        before = found.missing.get(account.column, 0.0)
        by_chance = binomtest(len(more) - account.present, len(more), before, "greater").pvalue
        if share > before + _MORE_MISSING and by_chance < _NOT_CHANCE:
            warnings.append(
                f"unlabelled column {account.column!r}: {share:.0%} of the cells are missing, {before:.0%} in training"
            )
    return tuple(notes), (*warnings, *_far(found, len(more), len(encoded.train)))


def _far(found: Further, rows: int, trained: int) -> tuple[str, ...]:
    far: Mapping[str, int] = {
        name: cut.holdout
        for name, cut in found.cuts.items()
        if cut.holdout / rows > _MORE_CUT + 2 * cut.training / trained
    }
    if not far:
        return ()
    cells = ", ".join(f"{name!r} ({count:,} of {rows:,})" for name, count in list(far.items())[:_NAMED])
    more = f" and {len(far) - _NAMED} more" if len(far) > _NAMED else ""
    return (
        f"unlabelled numbers beyond 3 standard deviations of training were cut there: {cells}{more}; are they in "
        "another unit?",
    )
