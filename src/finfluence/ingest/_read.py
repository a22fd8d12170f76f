"""From what a user names (a file, a folder, a built-in set, a frame) to a raw table."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._build import Decide, raw_of_folder, raw_of_frame, raw_of_npz
from finfluence.ingest._builtin import BUILTIN_NAMES, read_builtin
from finfluence.ingest._formats import check_outline, read_sheet
from finfluence.ingest._locate import content, refuse_columns
from finfluence.ingest._marks import Marks
from finfluence.ingest._raw import RawTable
from finfluence.ingest._table import Source, Task
from finfluence.ingest._target import check_held_out, choose_task


def read(
    source: str | os.PathLike[str],
    target: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    task: str = "auto",
    image_size: int | None = None,
    image_mode: str | None = None,
) -> RawTable:
    """Read a data set and check it.

    Parameters
    ----------
    source
        A `.csv`, `.tsv`, `.parquet` or `.jsonl` file, an `.npz` file with `x` and `y`, a folder with one
        sub-folder of images per class, or the built-in name `digits` or `fashion-mnist` (write `./digits` for
        a path of that name).
    target, id_column, group_column
        Columns of a table, arrays of an `.npz` file (target defaults to `y`). They never become features.
    task
        `"auto"`, `"classification"` or `"regression"`; how auto decides is in `RawTable.task_reason`.
    image_size, image_mode
        Side in pixels and `"grey"` or `"rgb"` of a folder of images; None decides from the images.

    Returns
    -------
    RawTable
        Original values, for `split`.

    Raises
    ------
    DataError
        The data cannot be used; the message says which file, column or row.
    ConfigError
        An argument does not fit the source.

    Examples
    --------
    >>> len(read("digits"))
    1797
    """

    def decide(labels: np.ndarray, name: str, marks: Marks) -> tuple[Task, str]:
        return choose_task(labels, name, task, marks)

    columns = {"target": target, "id_column": id_column, "group_column": group_column}
    return _read(source, columns, decide, image_size, image_mode)


def read_like(raw: RawTable, source: str | os.PathLike[str]) -> RawTable:
    """Read a hold-out source with the columns, the task and the image size of the training source.

    One class alone, or single rows of a class, are allowed here, and a table without the columns of ids and groups.

    Returns
    -------
    RawTable
    """

    def decide(labels: np.ndarray, name: str, marks: Marks) -> tuple[Task, str]:
        check_held_out(labels, name, raw.task, marks)
        return raw.task, "as in training"

    options = raw.source.options
    columns = {key: options.get(key) for key in ("target", "id_column", "group_column")}
    return _read(source, columns, decide, options.get("image_size"), options.get("image_mode"), held=True)


def from_frame(
    frame: pd.DataFrame,
    target: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    task: str = "auto",
) -> RawTable:
    """Take a table that is in memory already; as `read` otherwise.

    Returns
    -------
    RawTable

    Examples
    --------
    >>> frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "label": ["a", "b", "a", "b"]})
    >>> from_frame(frame, target="label").task
    'classification'
    """
    check_outline(frame, "the frame")
    hashes = pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy()
    columns = {"target": target, "id_column": id_column, "group_column": group_column}
    source = Source("memory", "memory", hashlib.sha256(hashes.tobytes()).hexdigest(), columns)
    return raw_of_frame(
        frame.reset_index(drop=True),
        source,
        lambda labels, name, marks: choose_task(labels, name, task, marks),
    )


def reread(source: Source) -> RawTable:
    """Read again what a `Source` describes.

    Returns
    -------
    RawTable

    Raises
    ------
    DataError
        The content is no longer what it was, or it was never in a file.
    """
    if source.format == "memory":
        raise DataError(
            explain(
                "a file, a folder or a built-in data set",
                "a table that was in memory",
                "the run was started from Python with a frame",
                "run it again from Python with that frame",
            )
        )
    path = Path(source.name)
    if source.format not in ("builtin", "folder") and path.is_file():
        _refuse_changed(source, hashlib.sha256(path.read_bytes()).hexdigest())
    raw = read(source.name, **({} if source.format == "builtin" else dict(source.options)))
    if source.details.get("part") == "test" and raw.official is not None:
        raw = raw.official
    _refuse_changed(source, raw.source.digest)
    return raw


def _refuse_changed(source: Source, digest: str) -> None:
    if digest != source.digest:
        raise DataError(
            explain(
                f"{source.name} with the content it had (SHA-256 {source.digest[:12]})",
                f"SHA-256 {digest[:12]}",
                "the data was changed since",
                "restore the file, or start a new run in another output folder",
            )
        )


def _read(
    source: str | os.PathLike[str],
    columns: dict[str, str | None],
    decide: Decide,
    image_size: int | None,
    image_mode: str | None,
    held: bool = False,
) -> RawTable:
    name = os.fspath(source)
    if name in BUILTIN_NAMES:
        refuse_columns(name, *columns.values())
        return read_builtin(name)
    path = Path(os.path.abspath(name))
    if path.is_dir():
        refuse_columns(f"the folder {name}", *columns.values())
        return raw_of_folder(path, image_size, image_mode, decide)
    data, format = content(path, name)
    description = Source(str(path), format, hashlib.sha256(data).hexdigest(), columns)
    if format == "npz":
        return raw_of_npz(path, data, description, decide)
    sheet = read_sheet(path, format, data)
    raw = raw_of_frame(sheet.frame, replace(description, details=sheet.details), decide, held)
    return replace(raw, notes=(*sheet.notes, *raw.notes), doubts=(*sheet.doubts, *raw.doubts))
