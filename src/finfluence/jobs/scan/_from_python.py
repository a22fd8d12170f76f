"""The scan as one function: a frame, arrays or a file in, a result with a frame of decisions out."""

import csv
import io
import os
import shutil
import warnings
import weakref
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from finfluence._files import atomic
from finfluence._indices import notes_of_rows
from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, DataError, StorageError, explain
from finfluence.ingest import flattened
from finfluence.jobs._folder import RUN
from finfluence.jobs.scan._folder import ScanFolder
from finfluence.jobs.scan._options import ScanOptions, checked_names
from finfluence.jobs.scan._pipeline import run_scan
from finfluence.jobs.scan._result import ScanResult

INPUT = "input"
_ID = "row_id"
Given = str | os.PathLike[str] | pd.DataFrame | np.ndarray | tuple[Any, Any]


def scan(
    data: Given,
    target: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    holdout: Given | None = None,
    id: str | None = None,
    group: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> ScanResult:
    """Find the rows of a data set that make a model worse: what `finfluence scan` does, from Python.

    Rows in memory are written to `input/` in the scan's folder (a frame as CSV, arrays as `.npz`) and read from there,
    so that the numbers are those of the command on that file, and `finfluence show`, `verify` and `clean` work on the
    folder afterwards.

    Parameters
    ----------
    data : DataFrame, array, (X, y) or path
        The rows; a path or a built-in name as of the command.
    target : str or array
        The column to predict; or, beside a frame or an array X, the labels y themselves. Where both have an index, the
        same labels in another order are refused, and other labels go by position, which is said.
    out : path, optional
        Folder for everything (new or empty). Without it a temporary one, which is removed with the result.
    holdout : DataFrame, array, (X, y) or path, optional
        Checked held-out rows; without it a fifth of the rows is held out.
    id : str, optional
        Column with unique row ids. Without it rows are named by the frame's index.
    group : str, optional
        Column with groups of rows (source, annotator), which are measured as a whole, too.
    progress : callable
        Called as `progress(stage, done, total)`.
    **options
        As `finfluence.jobs.scan.ScanOptions`: `task`, `model`, `runs`, `fdr`, `proof`, …

    Returns
    -------
    ScanResult
        `.decisions` is a frame of one line per training row, under the ids of the frame that was given.

    Raises
    ------
    DataError
        The data cannot be used, or an index that repeats is no id.
    ConfigError
        An option is unknown or does not fit.
    TrainingError
        The training diverges.
    StorageError
        `out` holds something else, or cannot be written.

    Notes
    -----
    Cost: by default about four trainings, each replayed at three more, and sixty for the retraining check, stacked.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 80)
    >>> frame = pd.DataFrame({"x": y + 0.1 * rng.normal(size=80), "label": np.where(y == 1, "cat", "dog")})
    >>> result = scan(frame, target="label", runs=1, epochs=2, proof=False)
    >>> len(result.decisions), result.decisions.loc[0, "suggested_action"]
    (64, 'keep')
    """
    if isinstance(data, pd.DataFrame):
        target, id, group = (_name_in(data, name) for name in (target, id, group))
    rows = _rows_of(data, target, id, "train")
    held = None
    if holdout is not None:
        held = _rows_of(holdout, None if rows.labels_given else target, id, "holdout", like=rows)
    notes = [note for part in (rows, held) if part is not None for note in part.notes]
    folder = Path(os.path.abspath(mkdtemp(prefix="finfluence-scan-") if out is None else out))
    written: list[Path] = []

    def write(place: ScanFolder) -> None:
        for part in (rows, held):
            if part is not None and part.content is not None:
                _write(place / INPUT / part.name, part.content, written)

    try:
        given: dict[str, Any] = {
            "source": rows.place(folder),
            "target": rows.target,
            "out": folder,
            "holdout": None if held is None else held.place(folder),
            "id_column": rows.id_column,
            "group_column": group,
        }
        asked = ScanOptions(**given, **_further(options, given))
        found = run_scan(asked, progress, write_rows=write, notes=notes)
    except BaseException:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif not (folder / RUN).exists():
            _remove(written)
        raise
    result = ScanResult(
        found.folder, found.summary, found.lines, rows.names, rows.labels, temporary=out is None
    )
    if out is None:
        weakref.finalize(result, shutil.rmtree, folder, ignore_errors=True)
    return result


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows as they are handed over.

    Attributes
    ----------
    name, content
        Of the file to write; a path, and None, for rows that are in a file already.
    target, id_column
        Columns of it.
    names
        The id of each row in its frame, by the text of it.
    labels
        Those of the frame, by the text of each.
    labels_given
        Whether the labels came beside the rows.
    notes
        What a reader must know of how they go together.
    """

    name: str
    content: bytes | None
    target: str | None = None
    id_column: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    labels_given: bool = False
    notes: tuple[str, ...] = ()

    def place(self, folder: Path) -> str:
        """Return where the rows are, or will be."""
        return self.name if self.content is None else str(folder / INPUT / self.name)


def _name_in(frame: pd.DataFrame, name: Any) -> Any:
    """Return the text of a column's name where it is a number or a tuple; all else as it is."""
    return str(name) if isinstance(name, (int, np.integer, tuple)) and name in frame.columns else name


def _rows_of(data: Any, target: Any, id: str | None, name: str, like: _Rows | None = None) -> _Rows:
    """Return the rows; held-out ones are `like` those to train on."""
    if isinstance(data, tuple) and len(data) == 2:
        data, target = data
    column = target is None or isinstance(target, str)
    if isinstance(data, (str, os.PathLike)):
        if not column:
            raise _mixed("a path beside an array of labels")
        return _Rows(os.fspath(data), None, target, id)
    if isinstance(data, pd.DataFrame):
        notes: list[str] = []
        if not column:
            label = str(getattr(target, "name", None) or "target") if like is None else str(like.target)
            notes = notes_of_rows({"X": data, "y": target})
            for note in notes:
                warnings.warn(note, stacklevel=3)
            data, target = _with_labels(data, target, label), label
        made = _rows_of_frame(data, target, id, name, like)
        return replace(made, labels_given=not column, notes=(*notes, *made.notes))
    if column:
        raise _mixed(f"{type(data).__name__} without labels")
    return _rows_of_arrays(data, target, id, name)


def _rows_of_frame(
    frame: pd.DataFrame, target: str | None, id: str | None, name: str, like: _Rows | None
) -> _Rows:
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    nested: tuple[str, ...] = ()
    if frame.columns.is_unique:
        nested = tuple(
            f"column {column!r} has categories that are numbers: read as numbers; to keep them apart, make them words, "
            f"as by frame[{column!r}].map('c{{}}'.format)"
            for column, kind in frame.dtypes.items()
            if column not in (target, id)
            and isinstance(kind, pd.CategoricalDtype)
            and pd.api.types.is_numeric_dtype(kind.categories.dtype)
        )
        frame, parts = flattened(frame.astype(_as_objects(frame)), (target, id))
        frame, nested = frame.apply(_with_points), (*nested, *parts)
    names = (frame[id] if id in frame.columns else frame.index).tolist()
    by_index = not _counts(frame.index) if like is None else like.id_column is not None
    if id is None and by_index:
        id = _ID
        frame = _with_index(frame, id)
    given = frame[target] if target in frame.columns else ()
    labels = {str(label): label for label in given if not isinstance(label, str)}
    said = tuple(note if like is None else f"hold-out: {note}" for note in nested)
    own = {str(i): i for i in names}
    return _Rows(f"{name}.csv", _as_csv(frame), target, id, own, labels, notes=said)


def _as_objects(frame: pd.DataFrame) -> dict[Hashable, type]:
    """Return the columns whose Arrow type holds records or lists, to be kept as objects."""
    return {
        name: object
        for name, kind in frame.dtypes.items()
        if isinstance(kind, pd.ArrowDtype) and pa.types.is_nested(kind.pyarrow_dtype)
    }


def _with_points(series: pd.Series) -> pd.Series:
    """Return decimals with a point in every number: beside 2.155 a bare 950 would look like thousands."""
    if series.dtype != object or not any(isinstance(cell, Decimal) for cell in series):
        return series
    return series.map(
        lambda cell: f"{cell}.0" if isinstance(cell, Decimal | int) and str(cell).isdigit() else cell
    )


def _as_csv(frame: pd.DataFrame) -> bytes:
    """Return a frame as CSV; texts are quoted where one holds a carriage return, which else would end the line."""
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in text:
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            explain(
                "texts of whole characters in the frame",
                f"half of one, {text[error.start]!a} (a lone surrogate)",
                "texts that were cut within a character, or decoded with errors='surrogateescape'",
                "replace it: frame[c] = frame[c].str.encode('utf-8', 'replace').str.decode('utf-8')",
            )
        ) from error


def _rows_of_arrays(x: Any, y: Any, id: str | None, name: str) -> _Rows:
    if id is not None:
        raise ConfigError(
            explain(
                "no id column for arrays, which have no columns",
                f"id={id!r}",
                "an option meant for a frame",
                "leave it out: rows of arrays are named by their position; or pass a DataFrame",
            )
        )
    features, labels = np.asarray(x), np.asarray(y)
    if features.dtype.kind == "O":
        features = _plain(features)
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    buffer = io.BytesIO()
    np.savez(buffer, x=features, y=labels)
    return _Rows(f"{name}.npz", buffer.getvalue(), labels_given=True)


def _further(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    twice = sorted(set(options) & set(given))
    if twice:
        words = {"id_column": "id", "group_column": "group", "source": "data"}
        raise ConfigError(
            explain(
                "options under the names of fi.scan",
                ", ".join(twice),
                "the names of ScanOptions were used",
                "write " + ", ".join(f"{words.get(name, name)}=" for name in twice),
            )
        )
    further = checked_names(options, ScanOptions)
    if isinstance(further.get("queries"), str):
        further["queries"] = (further["queries"],)
    return further


def _with_labels(frame: pd.DataFrame, labels: Any, name: str) -> pd.DataFrame:
    if name in map(str, frame.columns):
        raise ConfigError(
            explain(
                f"labels under a name that is no column of the frame, or target={name!r} to use that column",
                f"an array of labels named {name!r} beside a column {name!r}",
                "the frame holds its own target",
                "drop the column, or name it as target",
            )
        )
    values = np.asarray(labels)
    if values.shape != (len(frame),):
        raise DataError(
            explain(
                f"one label for each of the {len(frame)} rows",
                f"labels of shape {values.shape}",
                "labels of another split of the data",
                "pass the labels of these rows, in their order"
                + (": y.loc[X.index], if its index names them" if hasattr(labels, "iloc") else ""),
            )
        )
    return frame.assign(**{name: values})


def _with_index(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the frame with its index as a first column of ids."""
    ids = [str(i) for i in frame.index]
    repeated = pd.Index(ids)[pd.Index(ids).duplicated()].unique()
    if isinstance(frame.index, pd.MultiIndex):
        raise DataError(
            explain(
                "a frame whose index names each row once, or a column of ids",
                f"an index of several levels, {list(frame.index.names)}",
                "a frame that was grouped, stacked or pivoted",
                "pass frame.reset_index(), whose levels become columns, with id= (a column with unique ids) or none to "
                "count the rows from 0",
            )
        )
    if len(repeated):
        raise DataError(
            explain(
                "a frame whose index names each row once, or a column of ids",
                f"{len(repeated)} index values that stand in more than one row, first {repeated[0]!r}",
                "frames put together with their old indices",
                "pass id= (a column with unique ids), or frame.reset_index(drop=True) to count the rows from 0",
            )
        )
    if name in frame.columns:
        raise DataError(
            explain(
                f"no column {name!r} beside an index that names the rows",
                f"a column {name!r} that is not passed as id=",
                "the ids are in the frame twice",
                f"pass id={name!r}, or frame.reset_index(drop=True) to count the rows from 0",
            )
        )
    return pd.concat([pd.Series(ids, index=frame.index, name=name), frame], axis=1)


def _counts(index: pd.Index) -> bool:
    """Whether an index only counts the rows from 0."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _plain(features: np.ndarray) -> np.ndarray:
    try:
        return features.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            explain(
                "numbers in an array of features",
                f"{error}",
                "texts or mixed types in one array",
                "pass a DataFrame: its columns may be numbers, categories, dates or texts",
            )
        ) from error


def _mixed(got: str) -> ConfigError:
    return ConfigError(
        explain(
            "a DataFrame or a path with target= (a column), or arrays as scan(X, y)",
            got,
            "rows of one kind and labels of another",
            "pass scan(frame, target='label'), scan('train.csv', target='label') or scan(X, y)",
        )
    )


def _write(path: Path, content: bytes, written: list[Path]) -> None:
    """Write the rows, unless others stand there already."""
    if path.exists():
        if path.read_bytes() == content:
            return
        raise StorageError(
            explain(
                f"the rows that were scanned in {path.parent.parent}",
                "others",
                "the frame was changed since, or the folder belongs to another scan",
                "pass the frame as it was, or choose another out=",
            )
        )
    with atomic(path) as part:
        part.write_bytes(content)
    written.append(path)


def _remove(written: Sequence[Path]) -> None:
    """Remove the rows of a scan that never began, and the folders that held nothing else."""
    for path in written:
        path.unlink()
        for folder in (path.parent, path.parent.parent):
            if not any(folder.iterdir()):
                folder.rmdir()
