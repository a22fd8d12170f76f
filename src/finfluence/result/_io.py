"""Datasets of results on disk: Zarr arrays and JSON attributes, never pickle."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from finfluence.errors import DataError, StorageError, explain
from finfluence.result._other_folders import made_again, result_in, what_it_is
from finfluence.result._provenance import Provenance, plain
from finfluence.result._schema import FORMAT, HOLDS, TWIN, VERSION, kind_of
from finfluence.result._twin import dataset_with_twin

BLOCK_BYTES = 4 * 2**20
_LABELS = ("subset", "query", "unit", "sign", "size")


def save(data: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a result's dataset as a Zarr folder that takes its name only when whole."""
    target = Path(path)
    labels = {name: data[name].values.tolist() for name in _LABELS}
    arrays = data.drop_vars(_LABELS).assign_attrs({})
    arrays.attrs = {"finfluence": header_of(arrays, labels, data.attrs)}
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            for name in arrays.variables:
                arrays[name].encoding = {}  # chunks of the file it was read from, for instance
            arrays.to_zarr(part, mode="w", consolidated=False)
            name_folder(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read(path: Path, *, lazy: bool) -> xr.Dataset:
    """Return the dataset that `save` or a `Stream` wrote; `lazy` leaves its numbers on disk once they are checked.

    The folder of a finished scan stands for the result in it.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    StorageError
        Nothing there, another program's folder, or damaged arrays.
    """
    place = result_in(path)
    header = _check_ours(place)
    try:
        arrays = xr.open_zarr(place, consolidated=False, chunks=None)
        if not lazy:
            arrays = arrays.load()
        labels = header["labels"]
        data = arrays.assign_coords(
            subset=np.asarray(labels["subset"]),
            query=np.asarray(labels["query"], dtype=str),
            unit=("query", np.asarray(labels["unit"], dtype=str)),
            sign=("query", np.asarray(labels["sign"], dtype=np.int64)),
            size=("subset", np.asarray(labels["size"], dtype=np.int64)),
        )
        _check_whole(data, header, arrays)
        data.attrs = Provenance.from_dict(header["attrs"]).to_dict()
    except (OSError, KeyError, ValueError, RuntimeError, DataError) as error:
        got = f"damaged arrays ({type(error).__name__}: {error})"
        raise StorageError(_foreign(place, got, made_again(place))) from error
    found = _without_unknown(data) if header["version"] == 1 else data
    return found if lazy or TWIN[0] in found else dataset_with_twin(found)


def _check_whole(data: xr.Dataset, header: Mapping[str, Any], arrays: xr.Dataset) -> None:
    """Raise KeyError or ValueError where an array is missing or holds other numbers than were saved."""
    missing = [name for name in HOLDS[header.get("kind", "effect")] if name not in data]
    if missing:
        raise KeyError(missing[0])
    if header.get("content", None) not in (None, _content(_arrays_of(arrays))):
        raise ValueError("other numbers than were saved")


def _without_unknown(data: xr.Dataset) -> xr.Dataset:
    """Return μ alone for methods that know no more: version 1 of the format filled the rest with NaN."""
    if data.attrs["method"] not in ("fine", "fine-mc"):
        return data
    return data.drop_vars([name for name in HOLDS["effect"] if name not in HOLDS["mu"]])


def header_of(arrays: Any, labels: Mapping[str, Any], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result on disk says of itself, with a hash of all its numbers.

    Effects of removing rows are written as version 1, which any version of finfluence reads; all else as version 2,
    since a reader of version 1 would mistake it.

    Returns
    -------
    dict[str, Any]
    """
    kind = kind_of(_names_of(arrays))
    first = kind == "effect" and attrs.get("contrast", "remove") == "remove"
    return {
        "format": FORMAT, "version": 1 if first else VERSION, **({} if first else {"kind": kind}),
        "labels": dict(labels), "attrs": plain(dict(attrs)), "content": _content(_arrays_of(arrays)),
    }  # fmt: skip


def check_place(target: Path) -> None:
    """Raise StorageError unless `target` is free or holds a result, which may be replaced."""
    if target.exists():
        _check_ours(target)


def name_folder(part: Path, target: Path) -> None:
    """Let the whole folder `part` take the name `target`."""
    part.chmod(0o755)
    if target.exists():
        _check_ours(target)
        shutil.rmtree(target)
    os.replace(part, target)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an error of the disk inside the block into StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            explain(
                f"to write {target}",
                f"{type(error).__name__}: {error.strerror or error}",
                "the disk is full, or the folder is read-only",
                "free some space or choose another folder, and save again",
            )
        ) from error


def _names_of(found: Any) -> list[str]:
    """Return the names of the arrays of a dataset or of a Zarr group, sorted."""
    names = found.data_vars if isinstance(found, xr.Dataset) else found.array_keys()
    return sorted(map(str, names))


def _arrays_of(found: Any) -> list[Any]:
    """Return the arrays of a dataset or of a Zarr group, by name."""
    names = _names_of(found)
    return [found[name].variable if isinstance(found, xr.Dataset) else found[name] for name in names]


def _content(arrays: Iterable[Any]) -> str:
    """Return a hash of all numbers: a lost chunk reads as NaN without any error. Memory holds a block of rows."""
    state = hashlib.sha256()
    for array in arrays:
        width = int(np.prod(array.shape[1:])) * 8
        state.update((array.shape[0] * width).to_bytes(8, "big"))
        at_once = _rows_at_once(array, width)
        for first in range(0, array.shape[0], at_once):
            block = array[first : first + at_once]
            block = block.values if isinstance(block, xr.Variable) else np.asarray(block)
            block = np.where(np.isnan(block), np.nan, block)  # of which there are several
            state.update(np.ascontiguousarray(block, dtype=np.float64).tobytes())
    return state.hexdigest()[:16]


def _rows_at_once(array: Any, width: int) -> int:
    """Return rows of about 64 MiB, in whole chunks of the file if it has any."""
    rows = max(1, 16 * BLOCK_BYTES // max(1, width))
    encoding = getattr(array, "encoding", {})
    chunks = getattr(array, "chunks", None) or encoding.get("chunks")
    tall = int(chunks[0]) if chunks and isinstance(chunks[0], int) else 1
    return max(tall, rows // tall * tall)


def _check_ours(path: Path) -> dict[str, Any]:
    import zarr.errors  # slow to import, and only files need it

    try:
        header: Any = zarr.open_group(str(path), mode="r").attrs.asdict()["finfluence"]
        if header["format"] != FORMAT or header["version"] > VERSION:
            raise KeyError("format")
    except (KeyError, TypeError, OSError, ValueError, zarr.errors.GroupNotFoundError) as error:
        raise StorageError(_foreign(path, *what_it_is(path))) from error
    return dict(header)


def _foreign(path: Path, got: str, next_step: str) -> str:
    return explain(
        f"a result of finfluence at {path} (a Zarr folder)",
        got,
        "the path is mistyped, or the file was moved or cut short",
        next_step,
    )
