"""A data set of the benchmark in one small file, as anyone would add it: two clouds of points."""

import numpy as np
from torch import nn

from finfluence.jobs.bench import DataSet
from finfluence.runs import SGD, seeded


def read() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    y = np.arange(120) % 2
    return (rng.normal(size=(120, 3)) + 4 * y[:, None]).astype(np.float32), y


def model(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


CLOUDS = DataSet(
    name="clouds", summary="two clouds of points", install="nothing", read=read, model=model, optimizer=SGD(lr=0.2),
    batch_size=10, epochs=6, rows=60, held_out=40,
)  # fmt: skip
