"""Arrays from an `.npz` file, never unpickled."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np

from finfluence.errors import DataError, explain
from finfluence.ingest._messages import listed, nearest

CHANNELS = (1, 3, 4)


def read_npz(path: Path, data: bytes) -> dict[str, np.ndarray]:
    """Return all arrays of the file.

    Returns
    -------
    dict[str, np.ndarray]

    Raises
    ------
    DataError
        The file is no `.npz`, is damaged, or holds Python objects, which only unpickling could read.
    """
    arrays: dict[str, np.ndarray] = {}
    name = ""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = file[name]
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise DataError(
                explain(
                    "arrays of numbers or texts",
                    f"{path} holds Python objects{f' in {name!r}' if name else ''}",
                    "texts or rows of different lengths saved with dtype=object; "
                    "reading them would mean running code from the file (pickle), which is refused",
                    "save texts with dtype=str and numbers with a number type",
                )
            ) from error
        _refuse_damaged(path, error)
    except (OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        _refuse_damaged(path, error)
    return arrays


def named_array(arrays: dict[str, np.ndarray], name: str, path: Path, role: str) -> np.ndarray:
    """Return the array `name`, or say which ones the file has."""
    if name not in arrays:
        raise DataError(
            explain(
                f"an array {name!r} ({role}) in {path}",
                f"arrays {listed(arrays, 20) or 'none'}{nearest(name, arrays)}",
                "arrays saved without names, or under others",
                "save them by numpy.savez(path, x=features, y=targets)",
            )
        )
    return arrays[name]


def check_x(x: np.ndarray, y: np.ndarray, path: Path) -> np.ndarray:
    """Return x as finite floats `[n, features]` or images `[n, height, width, channels]` (uint8 stays)."""
    if x.dtype.kind not in "buif":
        raise DataError(
            explain(
                "numbers in 'x'",
                f"type {x.dtype}",
                "texts or complex numbers",
                "use a CSV or Parquet file for columns of text",
            )
        )
    if not 1 <= x.ndim <= 4 or y.ndim != 1 or len(x) != len(y) or x.size == 0:
        raise DataError(
            explain(
                "'x' of shape [rows, features] or [rows, height, width(, channels)] and 'y' of shape [rows]",
                f"x {list(x.shape)} and y {list(y.shape)} in {path}",
                "arrays of different data sets, one-hot targets, or a transposed x",
                "save both with one row per sample, and class indices or numbers in y",
            )
        )
    values = x if x.dtype == np.uint8 and x.ndim > 2 else x.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values)) if values.dtype.kind == "f" else np.empty((0, x.ndim))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        raise DataError(
            explain(
                "finite numbers in 'x'",
                f"{values[first]} at position {list(first)}, {len(bad)} such numbers in all",
                "missing values, a division by zero, or an overflow in half precision",
                "replace or leave out those rows; in CSV and Parquet files missing values are handled",
            )
        )
    if x.ndim == 1:
        return values[:, None]
    return values if x.ndim == 2 else _channels_last(values)


def _channels_last(x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[..., None]
    if x.shape[-1] in CHANNELS and x.shape[1] not in CHANNELS:
        return x
    if x.shape[1] in CHANNELS:
        return np.moveaxis(x, 1, -1)
    raise DataError(
        explain(
            "images with 1, 3 or 4 channels, first or last",
            f"x of shape {list(x.shape)}",
            "volumes, films or stacked images",
            "flatten each sample to one row of features",
        )
    )


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    raise DataError(
        explain(
            "an .npz file of numpy",
            f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "a copy that did not finish, or another format under this extension",
            "write the file again by numpy.savez(path, x=features, y=targets)",
        )
    ) from error
