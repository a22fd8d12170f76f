"""The problems that benchmarks and the calibration test share: data, planted errors, model, sets, queries."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import finfluence.runs as fr
from finfluence.runs import seeded

N_TRAIN, FLIPPED_SHARE, WIDTH = 1000, 0.1, 32


@dataclass(frozen=True)
class Problem:
    """A recipe with planted label errors, named sets of rows to remove, and queries."""

    recipe: fr.Recipe
    subsets: dict[str, list[int]]
    queries: list[fr.AnyQuery]
    clean_labels: np.ndarray
    flipped: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


SETTINGS = {
    "sgd": (fr.SGD(lr=0.1), 30, nn.ReLU),
    "adamw": (fr.AdamW(lr=1e-3), 20, nn.GELU),
    "adamw-3e-3": (fr.AdamW(lr=3e-3), 20, nn.GELU),
}


def row_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def mlp(activation: type[nn.Module], seed: int) -> nn.Module:
    """Return the 64-32-10 network with the weights of `seed`."""
    with seeded(seed):
        return nn.Sequential(nn.Linear(64, WIDTH), activation(), nn.Linear(WIDTH, 10))


def digits_data(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return x, noisy y, clean y, flipped positions (1,000 digits), and x, y of the 797 held out."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    noisy = y[:N_TRAIN].copy()
    flipped = np.sort(rng.choice(N_TRAIN, int(FLIPPED_SHARE * N_TRAIN), replace=False))
    noisy[flipped] = (noisy[flipped] + rng.integers(1, 10, len(flipped))) % 10
    return x[:N_TRAIN], noisy, y[:N_TRAIN], flipped, x[N_TRAIN:], y[N_TRAIN:]


def digits(setting: str = "sgd", seed: int = 0) -> Problem:
    """Return the calibration problem: digits, MLP 64-32-10, batch 50, reshuffled, fixed initialisation."""
    optimizer, epochs, activation = SETTINGS[setting]
    x, noisy, clean, flipped, x_test, y_test = digits_data(seed)
    recipe = fr.Recipe(
        data=fr.Rows(x=x, y=noisy), model=mlp(activation, seed), loss=row_loss, optimizer=optimizer,
        batch_size=50, epochs=epochs,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 1])
    good = np.setdiff1d(np.arange(N_TRAIN), flipped)
    bad_rows, good_rows = rng.choice(flipped, 10, replace=False), rng.choice(good, 10, replace=False)
    subsets = {
        **{f"flipped row {i}": [int(i)] for i in bad_rows},
        **{f"good row {i}": [int(i)] for i in good_rows},
        **{f"20 random {k}": rng.choice(N_TRAIN, 20, replace=False).tolist() for k in range(3)},
        **{f"20 flipped {k}": rng.choice(flipped, 20, replace=False).tolist() for k in range(3)},
        **{
            f"20 of class {c}": rng.choice(good[clean[good] == c], 20, replace=False).tolist()
            for c in (0, 3, 6, 8)
        },
    }  # fmt: skip
    queries: list[fr.AnyQuery] = [fr.mean_loss(x_test, y_test, name="held-out")]
    queries += [fr.mean_loss(x_test[y_test == c], y_test[y_test == c], name=f"class {c}") for c in range(10)]
    singles = rng.choice(len(x_test), 5, replace=False)
    queries.append(fr.each_loss(x_test[singles], y_test[singles], names=[f"test row {i}" for i in singles]))
    queries.append(fr.own_loss(rows=[*bad_rows.tolist(), *good_rows.tolist()]))
    return Problem(recipe, subsets, queries, clean, flipped, x_test, y_test)
