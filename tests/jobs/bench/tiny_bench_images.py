"""Images of two classes in one small file: an upper or a lower half is bright."""

import numpy as np
from torch import nn

from finfluence.jobs.bench import DataSet
from finfluence.runs import SGD, seeded


def read() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    y = np.arange(240) % 3
    x = 0.5 * rng.random((240, 8, 8))
    for k, image in zip(y, x, strict=True):
        image[2:6, 2 * k + 1 : 2 * k + 3] += 0.15
    return x.reshape(240, 64).astype(np.float32), y


def model(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


BARS = DataSet(
    name="bars", summary="images of bright bars", install="nothing", read=read, model=model, optimizer=SGD(lr=0.3),
    batch_size=20, epochs=15, rows=150, held_out=90,
)  # fmt: skip
