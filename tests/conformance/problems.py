"""The problem on which every method is checked: 13 rows, three classes, nine steps."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import finfluence as fi
from finfluence.estimators import AbstractEstimator, method_class
from finfluence.estimators.resampling import TurnOver
from finfluence.runs import seeded

ROWS, BATCH, EPOCHS, WIDTH, CLASSES = 13, 4, 3, 4, 3
STEPS = EPOCHS * (ROWS // BATCH)

# One row more than an epoch has places: without one row every other has a place, so that which batches a run sees
# follows from its seeds and not from where the rows stand. `serial`: evaluations are counted in this process.
OPTIONS: dict[str, dict[str, Any]] = {
    "d-tda": {"runs": 2},
    "data-oob": {"learners": 20, "executor": "serial"},
    "untrac": {"steps": 2, "controls": 2},
    "untrac-inv": {"steps": 2, "controls": 2},
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
MASKED = {"turn-over"}  # methods for models that are told the rows


class CountedLoss:
    """A loss of each row that counts the rows it is called with; it branches on data, so that no graph is kept of it."""

    def __init__(self, loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]) -> None:
        self.evaluations, self._loss = 0, loss

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        self.evaluations += len(batch["id"])
        losses = self._loss(model, batch)
        return losses if losses.max() < 1e9 else losses * 0.0


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def network(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(WIDTH, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()


class MaskedNetwork(nn.Module):
    """A network with turn-over dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.masked, self.last = nn.Linear(WIDTH, 8), TurnOver(), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.last(self.masked(self.first(x).tanh(), rows))


def masked_network(seed: int) -> nn.Module:
    with seeded(seed):
        return MaskedNetwork().double()


def masked_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"], batch["key"]), batch["y"], reduction="none")


@dataclass(frozen=True)
class Arranged(fi.Recipe):
    """A recipe whose rows stand elsewhere, and which trains on them in the order that they had before."""

    place: tuple[int, ...] = field(default=())

    def epoch_order(self, seed: int, epoch: int, keep: np.ndarray | None = None) -> list[Tensor]:
        place = torch.tensor(self.place)
        before = None if keep is None else np.argsort(self.place)[keep]
        return [place[batch] for batch in super().epoch_order(seed, epoch, before)]


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
    def adaptive(self) -> "Problem":
        """The same under AdamW, whose steps have a size of their own in each direction: more has to be sampled."""
        return make_problem(97, optimizer=fi.AdamW(lr=0.05))

    @cached_property
    def tape(self) -> fi.Tape:
        return fi.train(self.recipe, seed=3)

    @cached_property
    def turned_tape(self) -> fi.Tape:
        return fi.train(self.turned_recipe, seed=3)

    @property
    def ids(self) -> list[str]:
        return self.recipe.rows.ids.tolist()

    @cached_property
    def masked(self) -> "Problem":
        """The same with a model that is told the rows."""
        return make_problem(len(self.ids), masked=True)

    def of(self, method: str) -> "Problem":
        return self.masked if method in MASKED else self

    def source(self, method: str) -> Any:
        own = self.of(method)
        return own.recipe if method_class(method).needs is fi.Recipe else own.tape

    def turned(self, method: str) -> Any:
        own = self.of(method)
        return own.turned_recipe if method_class(method).needs is fi.Recipe else own.turned_tape

    def wrong(self, method: str) -> Any:
        return self.tape if method_class(method).needs is fi.Recipe else self.recipe

    def counted(self, method: str) -> tuple[Any, CountedLoss]:
        before = self.of(method).recipe
        loss = CountedLoss(before.loss)
        recipe = replace(before, loss=loss)
        return (recipe if method_class(method).needs is fi.Recipe else fi.train(recipe, seed=3)), loss

    def estimator(self, method: str, **changes: Any) -> AbstractEstimator[Any, Any]:
        made = method_class(method)
        return made(made.Options(**{**OPTIONS.get(method, {}), **changes}))

    @cached_property
    def _found(self) -> dict[str, fi.Influence]:
        return {}

    def found(self, method: str) -> fi.Influence:
        """Return the estimate of every row, made once."""
        if method not in self._found:
            self._found[method] = self.estimate(method)
        return self._found[method]

    def estimate(self, method: str, subsets: Any = None, **changes: Any) -> fi.Influence:
        return self.estimator(method, **changes).estimate(self.source(method), self.queries, subsets)


def make_problem(
    rows: int = ROWS, masked: bool = False, optimizer: fi.SGD | fi.AdamW | None = None
) -> Problem:
    rng = np.random.default_rng(8)
    x, y = torch.from_numpy(rng.normal(size=(rows, WIDTH))), torch.from_numpy(np.arange(rows) % CLASSES)
    ids = [f"row {i}" for i in range(rows)]
    turn = rng.permutation(rows)
    options: dict[str, Any] = {
        "model": masked_network if masked else network, "loss": masked_loss if masked else class_loss, "optimizer": optimizer or fi.SGD(lr=0.3),
        "batch_size": BATCH, "epochs": EPOCHS,
    }  # fmt: skip
    key = torch.arange(rows)
    before = fi.Recipe(data=fi.Rows(x=x, y=y, key=key, ids=ids), **options)
    after = Arranged(
        data=fi.Rows(x=x[turn], y=y[turn], key=key[turn], ids=[ids[i] for i in turn]), **options,
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
