"""Scikit-learn's 1,797 handwritten digits."""

from dataclasses import replace

import numpy as np
from torch import nn

from finfluence.ingest import digits_frame
from finfluence.jobs.bench._problem import DataSet
from finfluence.jobs.bench.data._networks import mlp
from finfluence.runs import SGD, AdamW


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 images of 8 × 8 pixels from 0 to 1, flattened, and their digits."""
    frame = digits_frame()
    return (frame.drop(columns="label").to_numpy() / 16).astype(np.float32), frame["label"].to_numpy()


def model(seed: int) -> nn.Module:
    """Return the 64-32-10 network."""
    return mlp(64, 32, 10, seed=seed)


DIGITS = DataSet(
    name="digits",
    summary="handwritten digits, 8 × 8 pixels; MLP 64-32-10, SGD",
    install="pip install 'finfluence[data]'",
    read=read,
    model=model,
    optimizer=SGD(lr=0.1),
    batch_size=50,
    epochs=30,
    rows=500,
    held_out=797,
)
DIGITS_ADAMW = replace(
    DIGITS,
    name="digits-adamw",
    summary="handwritten digits, 8 × 8 pixels; MLP 64-32-10, AdamW",
    optimizer=AdamW(lr=3e-3),
)
