"""The problems that benchmarks and the calibration test share: data, planted errors, model, sets, queries."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import finfluence.runs as fr
from benchmarks.models import cnn, mlp, transformer

N_TRAIN, FLIPPED_SHARE = 1000, 0.1


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


@dataclass(frozen=True)
class Setting:
    """How a digits problem is trained; `random` draws the initialisation anew in each run.

    The truth takes `runs` trainings on all rows and `runs_without` without each set; `few`: of two thirds of the sets.
    """

    model: Callable[[int], nn.Module]
    optimizer: fr.SGD | fr.AdamW
    epochs: int
    random: bool = False
    runs: int = 960
    runs_without: int = 320
    few: bool = False


def _mlp(activation: type[nn.Module]) -> Callable[[int], nn.Module]:
    return partial(mlp, activation)


SETTINGS = {
    "sgd": Setting(_mlp(nn.ReLU), fr.SGD(lr=0.1), 30),
    "adamw": Setting(_mlp(nn.GELU), fr.AdamW(lr=1e-3), 20),
    "adamw-3e-3": Setting(_mlp(nn.GELU), fr.AdamW(lr=3e-3), 20),
    "sgd-random": Setting(_mlp(nn.ReLU), fr.SGD(lr=0.1), 30, random=True, runs=600, runs_without=200),
    "adamw-random": Setting(_mlp(nn.GELU), fr.AdamW(lr=1e-3), 20, random=True, runs=600, runs_without=200),
    "cnn": Setting(cnn, fr.SGD(lr=0.02, momentum=0.9), 20, runs=200, runs_without=60, few=True),
    "transformer": Setting(transformer, fr.AdamW(lr=7e-4), 15, runs=160, runs_without=40, few=True),
    "transformer-rough": Setting(transformer, fr.AdamW(lr=2e-3), 15, runs=200, runs_without=50, few=True),
}


def row_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


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
    """Return a calibration problem: 1,000 digits, a tenth of the labels flipped, batch 50, reshuffled."""
    chosen = SETTINGS[setting]
    x, noisy, clean, flipped, x_test, y_test = digits_data(seed)
    recipe = fr.Recipe(
        data=fr.Rows(x=x, y=noisy), model=chosen.model if chosen.random else chosen.model(seed), loss=row_loss,
        optimizer=chosen.optimizer, batch_size=50, epochs=chosen.epochs,
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
    if chosen.few:
        bad_rows, good_rows = bad_rows[:6], good_rows[:4]
        singles = {
            f"{kind} row {i}" for kind, rows in (("flipped", bad_rows), ("good", good_rows)) for i in rows
        }
        subsets = {name: rows for name, rows in subsets.items() if len(rows) > 1 or name in singles}
    queries: list[fr.AnyQuery] = [fr.mean_loss(x_test, y_test, name="held-out")]
    queries += [fr.mean_loss(x_test[y_test == c], y_test[y_test == c], name=f"class {c}") for c in range(10)]
    asked = rng.choice(len(x_test), 5, replace=False)
    queries.append(fr.each_loss(x_test[asked], y_test[asked], names=[f"test row {i}" for i in asked]))
    queries.append(fr.own_loss(rows=[*bad_rows.tolist(), *good_rows.tolist()]))
    return Problem(recipe, subsets, queries, clean, flipped, x_test, y_test)
