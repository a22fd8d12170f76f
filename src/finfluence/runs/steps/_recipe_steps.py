"""The steps of a recipe under given seeds."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.grads import Batch, Graphs
from finfluence.runs.describe import Recipe, changed_model, first_change
from finfluence.runs.steps._behaviour import check_unchanged
from finfluence.runs.steps._stepper import Stepper, initial_model, step_seed
from finfluence.runs.steps._steps import Step
from finfluence.runs.steps._trained_part import constant_checksums


class RecipeSteps:
    """What `train` repeats: batches from the order seed, plain means, one learning rate.

    Parameters
    ----------
    recipe, init_seed, order_seed
    count : int, optional
        Take the first steps only (default: all).
    """

    def __init__(self, recipe: Recipe, init_seed: int, order_seed: int, count: int | None = None) -> None:
        self.recipe = recipe
        self.init_seed = init_seed
        self.order_seed = order_seed
        self.order = recipe.order(order_seed)
        self.stepper = Stepper(recipe, initial_model(recipe, init_seed), order_seed)
        self.rows, self.loss = recipe.rows, recipe.loss
        self.model, self.layout, self.width = self.stepper.model, self.stepper.layout, self.stepper.width
        self.optimizer = recipe.optimizer
        self.untraced = self.stepper.stochastic
        self.reshuffled = recipe.sampling == "reshuffle"
        self.count = recipe.steps if count is None else min(count, recipe.steps)
        self.batch_size = recipe.batch_size
        self.noise = recipe.noise
        self.rates = tuple(recipe.optimizer.lr * recipe.rate(t) for t in range(self.count))
        self.notes: list[str] = []

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

    @cached_property
    def graphs(self) -> Graphs:
        """Traced graphs, shared by all runs of the recipe with the same constants."""
        return self.recipe.graphs(constant_checksums(self.model))

    def at(self, t: int) -> Step:
        """Return step t."""
        seed = step_seed(self.order_seed, t) if self.untraced else None
        rows = self.order[t]
        return Step(rows, self.batch(rows), self._hyper[t], seed)

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return any rows on the parameters' device; the seed of a step is in `Step.seed`."""
        return self.stepper.batch(positions)

    def step_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return row losses [B]: those of `loss`, whose mean a step descends."""
        return self.loss(model, batch)

    def run_step(self, t: int) -> Tensor:
        """Take step t from the state set; return the mean loss before it."""
        return self.stepper.step(t, self.order[t])

    @property
    def last_losses(self) -> Tensor | None:
        """Row losses of the last step taken [B]."""
        return self.stepper.row_losses

    def set_state(self, t: int, state: Tensor) -> None:
        """Set parameters and optimiser to `state`, as they were before step t."""
        self.stepper.set_state(t, state)

    def get_state(self, out: Tensor) -> None:
        """Copy the current state into `out` [width]."""
        self.stepper.get_state(out)

    def initial_model(self) -> nn.Module:
        """Return a fresh copy of the model as it was before the first step."""
        return initial_model(self.recipe, self.init_seed)

    def check_unchanged(self, initial: Tensor) -> None:
        """Check that the recipe still starts its runs where this one started, on the same rows.

        Raises
        ------
        ConfigError, DataError
            A parameter, buffer or field that has other values now; it is named.
        """  # noqa: DOC501 - made by a function
        check_unchanged(self.recipe)
        if not self.recipe.random_initialisation:
            return
        model = self.initial_model()
        now, then = (
            self.layout.split(v[: self.layout.size].cpu()) for v in (self.layout.theta(model), initial)
        )
        name = next((n for n, values in now.items() if not torch.equal(values, then[n])), None)
        name = name or first_change(constant_checksums(self.model), constant_checksums(model))
        if name is not None:
            raise changed_model(name)

    def describe(self) -> dict[str, Any]:
        """Return the recipe's description."""
        return self.recipe.describe()

    def identity(self) -> dict[str, Any]:
        """Return the run's seeds."""
        return {"init": self.init_seed, "order": self.order_seed}

    def uncovered(self) -> list[str]:
        """Name the randomness of training that one run does not show."""
        return ["initialisation"] * self.recipe.random_initialisation + ["dropout"] * self.untraced
