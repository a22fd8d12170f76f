"""What estimators read of a run, whoever made it: rows, loss, update, epochs and steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.grads import Batch, Graphs, Layout, RowLoss
from finfluence.runs.describe import Recipe, RowSource, description_digest
from finfluence.runs.steps import (
    RecipeSteps,
    RecordedSteps,
    Step,
    Stepper,
    Steps,
    Update,
    equal_chances,
    same_places,
)
from finfluence.runs.tape._cache import Cache, Key


@dataclass(frozen=True)
class _Description(Key[dict[str, Any]]):
    """Of the run: it depends on nothing else."""


@dataclass(frozen=True)
class _TimesDrawn(Key[np.ndarray]):
    """In which epochs."""

    start: int
    stop: int


@dataclass(frozen=True)
class _EqualDraws(Key[bool]):
    """Of the run: it depends on nothing else."""


class ReadView:
    """The steps of a run, as a recipe or a recording tells them.

    Attributes
    ----------
    run : Steps
        The steps themselves, which can be taken again from any state.
    cache : Cache
        What is worked out once for this run, such as traced graphs; never saved.
    """

    def __init__(self, run: Steps) -> None:
        self.run = run
        self.cache = Cache()

    @property
    def rows(self) -> RowSource:
        """The training rows."""
        return self.run.rows

    @property
    def loss(self) -> RowLoss:
        """The loss of each row, `loss(model, batch) -> Tensor[B]`."""
        return self.run.loss

    @property
    def step_loss(self) -> RowLoss:
        """Row losses of a batch of `at` or `batch`: `loss`, scaled as the step weighs its rows."""
        return self.run.step_loss

    @property
    def working(self) -> nn.Module:
        """A copy of the model in the training's mode, whose parameters are overwritten at every use."""
        return self.run.model

    @property
    def layout(self) -> Layout:
        """Where the trained parameters lie in θ."""
        return self.run.layout

    @property
    def optimizer(self) -> Update:
        """The functional update of a step."""
        return self.run.optimizer

    @property
    def graphs(self) -> Graphs:
        """Where traced graphs of the steps are kept: runs of one recipe have them in common."""
        return self.run.graphs

    @property
    def stochastic(self) -> bool:
        """Whether a step's loss is to be evaluated under its own random state (dropout), untraced."""
        return self.run.untraced

    @property
    def reshuffled(self) -> bool:
        """Whether no row is drawn twice within an epoch."""
        return self.run.reshuffled

    @property
    def recorded(self) -> bool:
        """Whether the tape is of a loop of the user's own, not of `train`."""
        return isinstance(self.run, RecordedSteps)

    @property
    def notes(self) -> list[str]:
        """What a reader of results should know of the recording."""
        return self.run.notes

    @property
    def batch_size(self) -> int:
        """Rows of an ordinary step."""
        return self.run.batch_size

    @property
    def sizes(self) -> Sequence[float]:
        """Rows of every step; where rows weigh differently, of an equally weighed batch of the same noise."""
        return self.run.sizes

    @property
    def epochs(self) -> Sequence[range]:
        """The steps of each pass over the rows; they may differ in length."""
        return self.run.epochs

    @property
    def noise(self) -> tuple[float, ...]:
        """Σ of squared learning rates of each epoch, up to one common factor."""
        return self.run.noise

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rate of every step, averaged over parameters where groups differ."""
        return self.run.rates

    def rates_at(self, t: int) -> list[float]:
        """Return the learning rate of a step for each parameter, in the order of the layout."""
        if isinstance(self.run, RecordedSteps):
            return self.run.rates_at(t)
        return [self.run.rates[t]] * len(self.layout.names)

    def betas_at(self, t: int) -> list[tuple[float, float]]:
        """Return Adam's β₁ and β₂ of a step for each parameter, in the order of the layout."""
        if isinstance(self.run, RecordedSteps):
            first, second = (self.run.options_at(name, t) for name in ("first", "second"))
            return list(zip(first, second, strict=True))
        first, second = self.describe()["optimizer"]["betas"]
        return [(float(first), float(second))] * len(self.layout.names)

    @property
    def order(self) -> Sequence[Tensor]:
        """Row positions of each step."""
        return self.run.order

    def times_drawn(self, epochs: range | None = None) -> np.ndarray:
        """Return how often each row was in a batch [n], in all epochs or in these."""
        of = range(len(self.epochs)) if epochs is None else epochs
        return self.cache.get(_TimesDrawn(of.start, of.stop), lambda: self._count_draws(of)).copy()

    def _count_draws(self, epochs: range) -> np.ndarray:
        steps = [t for epoch in self.epochs[epochs.start : epochs.stop] for t in epoch if t < self.run.count]
        drawn = [self.order[t] for t in steps]
        joined = torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.int64)
        return torch.bincount(joined, minlength=len(self.rows)).numpy()

    @property
    def equal_draws(self) -> bool:
        """Whether every row had the same chance to be in a batch, for all that the draws show.

        Rows that are reshuffled have, unless they come at the same places of every epoch (`same_places`). Of rows drawn
        independently, their counts are tested, in the whole run, its halves and its epochs, at level 10⁻⁴.
        """
        if isinstance(self.run, RecipeSteps):
            return True
        return self.cache.get(_EqualDraws(), self._equal_draws)

    @property
    def same_places(self) -> bool:
        """Whether every row comes once an epoch, and at the same place of each: the loader does not shuffle."""
        return self.reshuffled and not self.equal_draws

    @property
    def whole_batches(self) -> bool:
        """Whether every step holds every row once, so that batches come in no order."""
        rows = len(self.rows)
        return all(len(step) == rows == len(step.unique()) for step in self.order)

    def _equal_draws(self) -> bool:
        order, test = [rows.numpy() for rows in self.order], same_places if self.reshuffled else equal_chances
        told = test(order, self.epochs, len(self.rows))
        return not told if self.reshuffled else told

    def at(self, t: int) -> Step:
        """Return step t: its rows, their batch, the optimiser's numbers and the random state."""
        return self.run.at(t)

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return the rows at these positions on the parameters' device, with the random state of step t."""
        return self.run.batch(positions, t)

    def describe(self) -> dict[str, Any]:
        """Return what every run of this training has in common, as plain values."""
        found: dict[str, Any] = self.cache.get(_Description(), self.run.describe)  # reads all rows
        return dict(found)

    def digest(self) -> str:
        """Return a hash of `describe()`."""
        return description_digest(self.describe())

    def identity(self) -> dict[str, Any]:
        """Return what tells this run from others of the same training, such as its seeds."""
        return self.run.identity()

    def uncovered(self) -> list[str]:
        """Name the randomness of training that this run does not show."""
        return self.run.uncovered()

    @property
    def _trained(self) -> RecipeSteps:
        if isinstance(self.run, RecipeSteps):
            return self.run
        raise ConfigError(
            explain(
                "a tape of fi.train, which follows a recipe",
                "a recorded loop",
                "training again (retrain, verify) needs to know how the loop goes on with other rows",
                "describe the training as a fi.Recipe for that, or use the tape for fi.replay",
            )
        )

    @property
    def recipe(self) -> Recipe:
        """The recipe that `train` followed."""
        return self._trained.recipe

    @property
    def stepper(self) -> Stepper:
        """What takes the recipe's steps."""
        return self._trained.stepper

    @property
    def init_seed(self) -> int:
        """Seed of the initialisation."""
        return self._trained.init_seed

    @property
    def order_seed(self) -> int:
        """Seed of the batch order."""
        return self._trained.order_seed
