"""Data sets that need no file: scikit-learn's digits, and Fashion-MNIST from Debian's package."""

import gzip
import hashlib
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._messages import require
from finfluence.ingest._raw import RawTable, as_objects
from finfluence.ingest._table import Source

BUILTIN_NAMES = ("digits", "fashion-mnist")
FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_builtin(name: str) -> RawTable:
    """Return a built-in data set by name."""
    return _digits() if name == "digits" else _fashion_mnist()


def digits_frame() -> pd.DataFrame:
    """Return scikit-learn's 1,797 digits as a table: `pixel_0_0` … `pixel_7_7` (0 to 16) and `label`.

    Returns
    -------
    pd.DataFrame

    Examples
    --------
    >>> digits_frame().shape
    (1797, 65)
    """
    digits = require("sklearn.datasets", "holds the digits").load_digits()
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    frame = pd.DataFrame(digits.data.astype(np.int64), columns=names)
    frame["label"] = digits.target.astype(np.int64)
    return frame


def _digits() -> RawTable:
    digits = require("sklearn.datasets", "holds the digits").load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return _images("digits", pixels, as_objects(digits.target), "all")


def _fashion_mnist() -> RawTable:
    train, test = (
        _images(
            "fashion-mnist",
            read_idx(_fashion_file(f"{stem}-images-idx3-ubyte.gz"))[..., None],
            as_objects(np.array(FASHION_CLASSES)[read_idx(_fashion_file(f"{stem}-labels-idx1-ubyte.gz"))]),
            part,
        )
        for stem, part in (("train", "train"), ("t10k", "test"))
    )
    return replace(train, official=test)


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of bytes: two zeros, type 8, number of axes, their lengths, then the bytes."""
    try:
        data = gzip.decompress(path.read_bytes())
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
        if (zeros, kind) != (0, 8):
            raise ValueError(f"it starts with {data[:4].hex()}")
        return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(
            explain(
                "a gzipped IDX file of bytes",
                f"{path} cannot be read: {error}",
                "a copy that did not finish",
                f"install the package again: apt-get install --reinstall {FASHION_PACKAGE}",
            )
        ) from error


def _fashion_file(name: str) -> Path:
    usual = FASHION_FOLDER / name
    if usual.is_file():
        return usual
    for line in _package_files():
        if line.endswith(f"/{name}") and Path(line).is_file():
            return Path(line)
    raise DataError(
        explain(
            f"the file {name} of Fashion-MNIST",
            f"it is not in {FASHION_FOLDER}, nor among the files of the Debian package {FASHION_PACKAGE}",
            "the package is not installed",
            f"apt-get update && apt-get install {FASHION_PACKAGE}",
        )
    )


def _package_files() -> list[str]:
    dpkg = shutil.which("dpkg")
    if dpkg is None:
        return []
    listing = subprocess.run([dpkg, "-L", FASHION_PACKAGE], capture_output=True, text=True, check=False)
    return listing.stdout.splitlines() if listing.returncode == 0 else []


def _images(name: str, pixels: np.ndarray, labels: np.ndarray, part: str) -> RawTable:
    state = hashlib.sha256(np.ascontiguousarray(pixels).tobytes() + "\n".join(map(str, labels)).encode())
    return RawTable(
        kind="images",
        pixels=pixels,
        labels=labels,
        ids=np.arange(len(labels), dtype=np.int64),
        task="classification",
        task_reason="ten classes",
        target_name="label",
        source=Source(name, "builtin", state.hexdigest(), {"task": "classification"}, {"part": part}),
    )
