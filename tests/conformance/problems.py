"""The problem on which every method is checked: 13 rows, three classes, nine steps."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import finfluence as fi
from finfluence.estimators import AbstractEstimator, method_class
from finfluence.runs import seeded

ROWS, BATCH, EPOCHS, WIDTH, CLASSES = 13, 4, 3, 4, 3
STEPS = EPOCHS * (ROWS // BATCH)

# One row more than an epoch has places: without one row every other has a place, so that which batches a run sees
# follows from its seeds and not from where the rows stand. `serial`: evaluations are counted in this process.
OPTIONS: dict[str, dict[str, Any]] = {
    "retrain": {"runs": 4, "design": "paired", "executor": "serial"},
    # Work that ends by itself is ended by its bound here, so that its cost is known beforehand.
    "if-cg": {"iterations": 3, "tolerance": 1e-12},
    "if-lissa": {"depth": 6, "tolerance": 1e-12},
    "if-arnoldi": {"rank": 4, "iterations": 5},
    "if-nystrom": {"rank": 5},
    "trak": {"dimensions": 5, "checkpoints": 2},
    "kernel-trak": {"dimensions": 5, "checkpoints": 3},
    "less": {"dimensions": 5},
    "if-ekfac-cg": {"iterations": 3, "tolerance": 1e-12},
}

# Evaluations of every row by the model's outputs, which no loss counts.
OUTPUTS = {"margin": 1, "cleanlab": 1, "forgetting": EPOCHS, "neighbours": 2}


class CountedLoss:
    """A loss of each row that counts the rows it is called with; it branches on data, so that no graph is kept of it."""

    def __init__(self) -> None:
        self.evaluations = 0

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        self.evaluations += len(batch["id"])
        losses = nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
        return losses if losses.max() < 1e9 else losses * 0.0


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def network(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(WIDTH, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()


@dataclass(frozen=True)
class Arranged(fi.Recipe):
    """A recipe whose rows stand elsewhere, and which trains on them in the order that they had before."""

    place: tuple[int, ...] = field(default=())

    def epoch_order(self, seed: int, epoch: int, keep: np.ndarray | None = None) -> list[Tensor]:
        assert keep is None, "only the order of all rows is known in both arrangements"
        place = torch.tensor(self.place)
        return [place[batch] for batch in super().epoch_order(seed, epoch)]


@dataclass(frozen=True)
class Problem:
    """A training, the same with its rows elsewhere, queries, and how each method is called on it."""

    recipe: fi.Recipe
    turned_recipe: fi.Recipe
    queries: list[fi.Query]

    @cached_property
    def larger(self) -> "Problem":
        """As many rows as a method cannot look at all of, where it takes a sample."""
        return make_problem(97)

    @cached_property
    def tape(self) -> fi.Tape:
        return fi.train(self.recipe, seed=3)

    @cached_property
    def turned_tape(self) -> fi.Tape:
        return fi.train(self.turned_recipe, seed=3)

    @property
    def ids(self) -> list[str]:
        return self.recipe.rows.ids.tolist()

    def source(self, method: str) -> Any:
        return self.recipe if method_class(method).needs is fi.Recipe else self.tape

    def turned(self, method: str) -> Any:
        return self.turned_recipe if method_class(method).needs is fi.Recipe else self.turned_tape

    def wrong(self, method: str) -> Any:
        return self.tape if method_class(method).needs is fi.Recipe else self.recipe

    def counted(self, method: str) -> tuple[Any, CountedLoss]:
        loss = CountedLoss()
        recipe = replace(self.recipe, loss=loss)
        return (recipe if method_class(method).needs is fi.Recipe else fi.train(recipe, seed=3)), loss

    def estimator(self, method: str, **changes: Any) -> AbstractEstimator[Any, Any]:
        made = method_class(method)
        return made(made.Options(**{**OPTIONS.get(method, {}), **changes}))

    def estimate(self, method: str, subsets: Any = None, **changes: Any) -> fi.Influence:
        return self.estimator(method, **changes).estimate(self.source(method), self.queries, subsets)


def make_problem(rows: int = ROWS) -> Problem:
    rng = np.random.default_rng(8)
    x, y = torch.from_numpy(rng.normal(size=(rows, WIDTH))), torch.from_numpy(np.arange(rows) % CLASSES)
    ids = [f"row {i}" for i in range(rows)]
    turn = rng.permutation(rows)
    options: dict[str, Any] = {
        "model": network, "loss": class_loss, "optimizer": fi.SGD(lr=0.3), "batch_size": BATCH, "epochs": EPOCHS,
    }  # fmt: skip
    before = fi.Recipe(data=fi.Rows(x=x, y=y, ids=ids), **options)
    after = Arranged(
        data=fi.Rows(x=x[turn], y=y[turn], ids=[ids[i] for i in turn]), **options,
        place=tuple(np.argsort(turn).tolist()),
    )  # fmt: skip
    held_out, target = torch.from_numpy(rng.normal(size=(6, WIDTH))), torch.from_numpy(np.arange(6) % CLASSES)

    def loss(model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(held_out), target)

    def confidence(model: nn.Module) -> Tensor:
        return model(held_out[:1]).softmax(1)[0, 0]

    queries = [
        fi.Query(loss, name="held-out", unit="nats"),
        fi.Query(confidence, name="confidence", unit="probability", sign=1),
    ]
    return Problem(before, after, queries)
