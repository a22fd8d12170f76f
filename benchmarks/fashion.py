"""Fashion-MNIST, 5,000 rows, a small CNN with GELU: the image problem of the benchmarks."""

import numpy as np
from torch import nn

import finfluence as fi
from benchmarks.problems import Problem, row_loss
from finfluence.ingest import read
from finfluence.runs import seeded

ROWS, HELD_OUT = 5000, 2000


def cnn(seed: int) -> nn.Module:
    """Return a 20,000-parameter network for 28 × 28 images."""
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.GELU(), nn.Conv2d(8, 16, 5, stride=2), nn.GELU(),
            nn.Flatten(), nn.Linear(256, 64), nn.GELU(), nn.Linear(64, 10),
        )  # fmt: skip


def flip(labels: np.ndarray, share: float, seed: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return labels with a share of them replaced by another class, and the positions changed."""
    rng = np.random.default_rng([seed, 7])
    chosen = np.sort(rng.choice(len(labels), int(share * len(labels)), replace=False))
    noisy = labels.copy()
    noisy[chosen] = (noisy[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return noisy, chosen


def fashion(share: float = 0.1, seed: int = 0, epochs: int = 8) -> Problem:
    """Return 5,000 rows with flipped labels and 2,000 held out (the official test part)."""
    raw = read("fashion-mnist")
    chosen = np.random.default_rng([seed, 3]).permutation(len(raw))[:ROWS]
    x = (raw.pixels[chosen].astype(np.float32) / 255)[:, None].reshape(ROWS, 1, 28, 28)
    classes, labels = np.unique(raw.labels.astype(str), return_inverse=True)
    y = labels[chosen].astype(np.int64)
    held = raw.official
    x_test = (held.pixels[:HELD_OUT].astype(np.float32) / 255).reshape(HELD_OUT, 1, 28, 28)
    y_test = np.searchsorted(classes, held.labels[:HELD_OUT].astype(str)).astype(np.int64)
    noisy, flipped = flip(y, share, seed)
    recipe = fi.Recipe(
        data=fi.Rows(x=x, y=noisy),
        model=cnn,
        loss=row_loss,
        optimizer=fi.AdamW(lr=2e-3),
        batch_size=50,
        epochs=epochs,
    )
    return Problem(recipe, {}, [fi.mean_loss(x_test, y_test, name="held-out")], y, flipped, x_test, y_test)
