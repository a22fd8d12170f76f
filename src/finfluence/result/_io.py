"""Save and load results: Zarr arrays and JSON attributes, never pickle."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr.errors

from finfluence._files import digest
from finfluence.errors import StorageError, explain
from finfluence.result._influence import Influence
from finfluence.result._schema import ESTIMATES, FORMAT, VERSION

_LABELS = ("subset", "query", "unit", "sign", "size")


def save(data: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a result's dataset as a Zarr folder that takes its name only when whole."""
    target = Path(path)
    labels = {name: data[name].values.tolist() for name in _LABELS}
    arrays = data.drop_vars(_LABELS).assign_attrs({})
    header = {
        "format": FORMAT, "version": VERSION, "labels": labels, "attrs": _plain(data.attrs),
        "content": _content(arrays),
    }  # fmt: skip
    arrays.attrs = {"finfluence": header}
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        arrays.to_zarr(part, mode="w", consolidated=False)
        part.chmod(0o755)
        if target.exists():
            _check_ours(target)
            shutil.rmtree(target)
        os.replace(part, target)
    except OSError as error:
        raise StorageError(
            explain(
                f"to write {target}",
                f"{type(error).__name__}: {error.strerror or error}",
                "the disk is full, or the folder is read-only",
                "free some space or choose another folder, and save again",
            )
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load(path: str | os.PathLike[str]) -> Influence:
    """Load a result that `Influence.save` wrote.

    Raises
    ------
    StorageError
        Nothing there, another program's folder, or damaged arrays.
    """
    header = _check_ours(Path(path))
    try:
        arrays = xr.open_zarr(path, consolidated=False).load()
        labels = header["labels"]
        data = arrays.assign_coords(
            subset=np.asarray(labels["subset"]),
            query=np.asarray(labels["query"], dtype=str),
            unit=("query", np.asarray(labels["unit"], dtype=str)),
            sign=("query", np.asarray(labels["sign"], dtype=np.int64)),
            size=("subset", np.asarray(labels["size"], dtype=np.int64)),
        )
        missing = [name for name in ESTIMATES if name not in data]
        if missing:
            raise KeyError(missing[0])
        if header.get("content", None) not in (None, _content(arrays)):
            raise ValueError("other numbers than were saved")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise _foreign(Path(path), f"damaged arrays ({type(error).__name__}: {error})") from error
    data.attrs = header["attrs"]
    return Influence(data)


def _content(arrays: xr.Dataset) -> str:
    """Return a hash of all numbers: a lost chunk reads as NaN without any error."""
    parts = [np.ascontiguousarray(arrays[name].values) for name in sorted(map(str, arrays.data_vars))]
    return digest(*(part.tobytes() for part in parts))


def _check_ours(path: Path) -> dict[str, Any]:
    try:
        header: Any = zarr.open_group(str(path), mode="r").attrs.asdict()["finfluence"]
        if header["format"] != FORMAT or header["version"] > VERSION:
            raise KeyError("format")
    except (KeyError, TypeError, OSError, ValueError, zarr.errors.GroupNotFoundError) as error:
        found = "no such folder" if not path.exists() else "a file or folder of another program or version"
        raise _foreign(path, found) from error
    return dict(header)


def _foreign(path: Path, got: str) -> StorageError:
    return StorageError(
        explain(
            f"a result of finfluence at {path} (a Zarr folder)",
            got,
            "the path is mistyped, or the file was moved or cut short",
            "check the path, or make the result again with fi.replay(…).save(path)",
        )
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") and not isinstance(value, (str, bytes)) else value
