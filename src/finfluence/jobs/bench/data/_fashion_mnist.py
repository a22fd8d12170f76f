"""Fashion-MNIST from Debian's package."""

import numpy as np
from torch import nn

from finfluence.ingest import read as read_source
from finfluence.jobs.bench._problem import DataSet
from finfluence.jobs.bench.data._networks import mlp
from finfluence.runs import AdamW


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return the 60,000 training images of 28 × 28 pixels from 0 to 1, flattened, and their classes."""
    raw = read_source("fashion-mnist")
    assert raw.pixels is not None
    _, labels = np.unique(raw.labels.astype(str), return_inverse=True)
    return raw.pixels.reshape(len(labels), -1).astype(np.float32) / 255, labels


def model(seed: int) -> nn.Module:
    """Return the 784-64-10 network."""
    return mlp(784, 64, 10, seed=seed)


FASHION_MNIST = DataSet(
    name="fashion-mnist",
    summary="clothes, 28 × 28 pixels; MLP 784-64-10, AdamW",
    install="apt-get update && apt-get install dataset-fashion-mnist",
    read=read,
    model=model,
    optimizer=AdamW(lr=1e-3),
    batch_size=50,
    epochs=10,
    rows=1000,
    held_out=2000,
)
