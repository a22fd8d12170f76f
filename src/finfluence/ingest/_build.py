"""Raw tables out of frames, arrays and folders, with the roles of their columns checked."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest._images import read_folder
from finfluence.ingest._marks import Marks
from finfluence.ingest._messages import listed, nearest
from finfluence.ingest._nested import flattened
from finfluence.ingest._npz import check_x, named_array, read_npz
from finfluence.ingest._raw import RawTable, as_objects, row_ids
from finfluence.ingest._reading import file_reading
from finfluence.ingest._table import Source, Task
from finfluence.ingest._target import refuse_several
from finfluence.ingest._values import MAYBE_UNLABELLED, MISSING_TARGET_WORDS, canonical, look

Decide = Callable[[np.ndarray, str, Marks], tuple[Task, str]]
"""(labels, target name, its decimal mark) -> task and why, after checking the labels."""


NO_GROUP = "(none)"
"""The group of rows that name none."""


def column(frame: pd.DataFrame, name: str, role: str, where: str) -> pd.Series:
    """Return a column by name, or say which columns there are."""
    names = [str(item) for item in frame.columns]
    if name not in names:
        cause, step = (
            "a spelling mistake, or a file without a header line",
            f"name one of the columns above as {role}",
        )
        if len(names) == 1 and name in names[0]:
            cause = "cells separated by something else than a comma, semicolon, tab or bar"
            step = "write the file with commas between its cells"
        raise DataError(
            explain(
                f"the {role} column {name!r} in {where}",
                f"columns {listed(names, 20)}{nearest(name, names)}",
                cause,
                step,
            )
        )
    return frame.iloc[:, names.index(name)]


def raw_of_frame(frame: pd.DataFrame, source: Source, decide: Decide, held: bool = False) -> RawTable:
    """Take target, ids and groups out of a frame by the names in `source.options`; a hold-out may lack the last two."""
    columns = [str(name) for name in frame.columns]
    stripped = {key: _as_in(columns, source.options[key]) for key in ("target", "id_column", "group_column")}
    if held:
        stripped |= {key: None for key in ("id_column", "group_column") if stripped[key] not in columns}
    source = replace(source, options={**source.options, **stripped})
    target, id_column, group_column = stripped.values()
    if target is None:
        raise ConfigError(
            explain(
                "the name of the column to predict",
                f"no target, and columns {listed(map(str, frame.columns), 20)}",
                "a table does not say which of its columns is the label",
                "name it by --target",
            )
        )
    _refuse_two_roles(source.options)
    frame = frame.set_axis(pd.Index([str(name) for name in frame.columns], dtype=object), axis=1)
    frame, nested = flattened(frame, stripped.values())
    labels = as_objects(column(frame, target, "target", source.name).astype(object))
    ids, groups = np.arange(len(frame), dtype=np.int64), None
    if id_column is not None:
        ids = row_ids(column(frame, id_column, "id", source.name).to_numpy(dtype=object), id_column)
    if group_column is not None:
        groups = _group_names(column(frame, group_column, "group", source.name))
        nested = (*nested, *_doubts_of_groups(groups, group_column))
    refuse_several(labels, target)
    reading = file_reading(frame, str(source.details.get("delimiter", "")))
    task, reason = decide(labels, target, reading.number_marks(target))
    return RawTable(
        kind="table",
        frame=frame,
        labels=labels,
        ids=ids,
        groups=groups,
        task=task,
        task_reason=reason,
        target_name=target,
        id_column=id_column,
        group_column=group_column,
        source=replace(source, options={**source.options, "task": task}),
        notes=(f"{task}: {reason}",),
        doubts=nested,
        reading=reading,
    )


def raw_of_npz(path: Path, data: bytes, source: Source, decide: Decide) -> RawTable:
    """Take `x`, the target and perhaps ids and groups out of an `.npz` file."""
    arrays = read_npz(path, data)
    target = source.options["target"] or "y"
    id_name, group_name = source.options["id_column"], source.options["group_column"]
    x, y = named_array(arrays, "x", path, "features"), named_array(arrays, target, path, "target")
    values = check_x(x, y, path)
    ids, groups = np.arange(len(y), dtype=np.int64), None
    if id_name is not None:
        ids = row_ids(_of_length(arrays, id_name, path, "ids", len(y)).astype(object), id_name)
    if group_name is not None:
        groups = _group_names(pd.Series(_of_length(arrays, group_name, path, "groups", len(y))))
    labels = as_objects(y)
    task, reason = decide(labels, target, Marks())
    images = values.ndim == 4
    return RawTable(
        kind="images" if images else "arrays",
        pixels=values if images else None,
        array=None if images else values,
        labels=labels,
        ids=ids,
        groups=groups,
        task=task,
        task_reason=reason,
        target_name=target,
        id_column=id_name,
        group_column=group_name,
        source=replace(source, options={**source.options, "task": task}),
        notes=(f"{task}: {reason}",),
    )


def raw_of_folder(path: Path, size: int | None, mode: str | None, decide: Decide) -> RawTable:
    """Take images and their folders' names out of a folder."""
    pictures = read_folder(path, size, mode)
    decide(pictures.labels, "folder name", Marks())
    options = {"task": "classification", "image_size": pictures.size, "image_mode": pictures.mode}
    return RawTable(
        kind="images",
        pixels=pictures.pixels,
        labels=pictures.labels,
        ids=pictures.ids,
        task="classification",
        task_reason="sub-folders are classes",
        target_name="label",
        source=Source(str(path), "folder", pictures.digest, options),
        notes=tuple(pictures.notes),
    )


def _as_in(columns: list[str], name: str | None) -> str | None:
    """Return a name as the file has it: names of CSV files lose the spaces around them."""
    bare = name.strip() if isinstance(name, str) else name
    return bare if name not in columns and bare in columns else name


def _refuse_two_roles(options: Mapping[str, object]) -> None:
    named = [options[key] for key in ("target", "id_column", "group_column") if options[key] is not None]
    twice = [name for name in dict.fromkeys(named) if named.count(name) > 1]
    if twice:
        raise ConfigError(
            explain(
                "different columns as target, id and group",
                f"{listed(twice)} in two of these roles",
                "an option copied from another",
                "name another column, or leave --id or --group out",
            )
        )


def _of_length(arrays: dict[str, np.ndarray], name: str, path: Path, role: str, n: int) -> np.ndarray:
    values = named_array(arrays, name, path, role)
    if values.shape != (n,):
        raise DataError(
            explain(
                f"{name!r} ({role}) with one entry for each of the {n} rows",
                f"shape {list(values.shape)}",
                "arrays of different data sets",
                "save them from one and the same data set",
            )
        )
    return values


def _group_names(series: pd.Series) -> np.ndarray:
    names = series.astype(object).map(lambda value: str(value).strip(), na_action="ignore")
    return as_objects(names.where(names.notna() & (names != ""), NO_GROUP))


def _doubts_of_groups(groups: np.ndarray, name: str) -> tuple[str, ...]:
    """Return notes on rows that name no group, and on names that look alike or may mean none."""
    counts = Counter(groups.tolist())
    said = []
    if missing := counts[NO_GROUP]:
        what = f"the group column {name!r} is empty in {missing} of {len(groups)} rows"
        said.append(f"{what}: they count as a group of their own, {NO_GROUP!r}")
    nothing = sorted(group for group in counts if group.casefold() in MISSING_TARGET_WORDS | MAYBE_UNLABELLED)
    if nothing:
        said.append(
            f"the group column {name!r} holds {listed(nothing)}: taken for the name of a group; leave these cells "
            "empty if they name none"
        )
    forms: dict[object, list[str]] = {}
    for group in sorted(counts):
        forms.setdefault(look(canonical(group)), []).append(group)
    alike = [same for same in forms.values() if len(same) > 1]
    if alike:
        more = f", and {len(alike) - 1} more such" if len(alike) > 1 else ""
        pair = " and ".join(map(repr, alike[0][:3]))
        said.append(
            f"the group column {name!r} holds {pair}, which look alike{more}: they are groups of their own"
        )
    return tuple(said)
