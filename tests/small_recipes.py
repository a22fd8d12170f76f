"""Recipes small enough to be trained hundreds of times in a test."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence.runs as fr
from finfluence.runs import seeded

BATCH = dict[str, Tensor]


def class_loss(model: nn.Module, batch: BATCH) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def branching_loss(model: nn.Module, batch: BATCH) -> Tensor:
    losses = class_loss(model, batch)
    return losses if losses.max() < 1e9 else losses * 0.0


def square_loss(model: nn.Module, batch: BATCH) -> Tensor:
    return (model(batch["x"])[:, 0] - batch["y"]) ** 2 / 2


def mlp(seed: int, dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    with seeded(seed):
        layers = [nn.Linear(5, 6), nn.GELU(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(6, 3)]
        return nn.Sequential(*layers).to(dtype)


class Noisy(nn.Module):
    """A model with a random buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(5, 4, dtype=torch.float64))
        self.head = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x @ self.features)


def rows(n: int = 31, dtype: torch.dtype = torch.float64) -> fr.Rows:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.normal(size=(n, 5))).to(dtype)
    y = torch.from_numpy(np.arange(n) % 3)
    return fr.Rows(x=x, y=y, ids=[f"r{i}" for i in range(n)])


PLAIN = fr.SGD(lr=0.2)


def classifier(optimizer: fr.Optimizer = PLAIN, **changes: object) -> fr.Recipe:
    options = {
        "data": rows(), "model": mlp(1), "loss": class_loss, "optimizer": optimizer,
        "batch_size": 8, "epochs": 3,
    }  # fmt: skip
    return fr.Recipe(**{**options, **changes})  # type: ignore[arg-type]


def held_out() -> list[fr.AnyQuery]:
    rng = np.random.default_rng(6)
    x = torch.from_numpy(rng.normal(size=(20, 5)))
    y = torch.from_numpy(rng.integers(0, 3, 20))
    accuracy = fr.Query(
        lambda m: (m(x).argmax(1) == y).double().mean(), name="accuracy", unit="share", sign=1
    )
    return [fr.mean_loss(x, y, name="held-out"), accuracy]


def mean_of_four(epochs: int = 60, lr: float = 0.05) -> tuple[fr.Recipe, fr.Query]:
    """A scalar θ trained on ½(θ − y)² with y = −1, 1, −1, 1, …, and one row of 3; its value is the query."""
    model = nn.Linear(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    data = fr.Rows(
        x=torch.zeros(8, 1, dtype=torch.float64), y=torch.tensor([-1.0, 1, -1, 1, -1, 1, -1, 3]).double()
    )
    recipe = fr.Recipe(
        data=data, model=model, loss=square_loss, optimizer=fr.SGD(lr=lr), batch_size=1, epochs=epochs,
        sampling="independent",
    )  # fmt: skip
    return recipe, fr.Query(lambda m: m.bias.sum(), name="level", unit="value", sign=1)
