"""The steps of a recipe under given seeds."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.grads import Batch
from finfluence.runs.describe import Recipe
from finfluence.runs.steps._stepper import Stepper, initial_model, step_seed
from finfluence.runs.steps._steps import Step


class RecipeSteps:
    """What `train` repeats: batches from the order seed, plain means, one learning rate."""

    def __init__(self, recipe: Recipe, init_seed: int, order_seed: int) -> None:
        self.recipe = recipe
        self.init_seed = init_seed
        self.order_seed = order_seed
        self.order = recipe.order(order_seed)
        self.stepper = Stepper(recipe, initial_model(recipe, init_seed), order_seed)
        self.rows, self.loss, self.step_loss = recipe.rows, recipe.loss, recipe.loss
        self.model, self.layout, self.width = self.stepper.model, self.stepper.layout, self.stepper.width
        self.optimizer = recipe.optimizer
        self.stochastic = self.eager = self.stepper.stochastic
        self.reshuffled = recipe.sampling == "reshuffle"
        self.count, self.batch_size = recipe.steps, recipe.batch_size
        self.noise = recipe.noise
        self.load, self.read_into = self.stepper.load, self.stepper.read_into

    @cached_property
    def epochs(self) -> list[range]:
        """The steps of each epoch, all of one length."""
        length = self.recipe.steps_per_epoch
        return [range(e * length, (e + 1) * length) for e in range(self.recipe.epochs)]

    @cached_property
    def sizes(self) -> list[float]:
        """Rows of every step."""
        return [len(rows) for rows in self.order]

    @cached_property
    def _hyper(self) -> Tensor:
        numbers = [self.recipe.optimizer.hyper(t, self.recipe.rate(t)) for t in range(self.count)]
        return torch.tensor(numbers, dtype=self.layout.dtype, device=self.layout.device)

    def at(self, t: int) -> Step:
        """Return step t."""
        seed = step_seed(self.order_seed, t) if self.stochastic else None
        rows = self.order[t]
        return Step(rows, self.batch(rows), self._hyper[t], seed)

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return any rows on the parameters' device; the seed of a step is in `Step.seed`."""
        return self.stepper.batch(positions)

    def take(self, t: int) -> Tensor:
        """Take step t from the state loaded; return the mean loss before it."""
        return self.stepper.step(t, self.order[t])

    def initial_model(self) -> nn.Module:
        """Return a fresh copy of the model as it was before the first step."""
        return initial_model(self.recipe, self.init_seed)

    def describe(self) -> dict[str, Any]:
        """Return the recipe's description."""
        return self.recipe.describe()

    def identity(self) -> dict[str, Any]:
        """Return the run's seeds."""
        return {"init": self.init_seed, "order": self.order_seed}

    def uncovered(self) -> list[str]:
        """Name the randomness of training that one run does not show."""
        return ["initialisation"] * self.recipe.random_initialisation + ["dropout"] * self.stochastic
