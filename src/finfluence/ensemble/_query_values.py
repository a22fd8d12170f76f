"""Query values of many trained states at once."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from finfluence.ensemble._stacked import ALIGNED
from finfluence.grads import Layout, places, without_graph
from finfluence.runs import AnyQuery, Task
from finfluence.runs.describe import evaluated


class _Queried(nn.Module):
    """A model and its queries as one module, so that `functional_call` reaches the model."""

    def __init__(self, model: nn.Module, queries: Sequence[AnyQuery], recipe: Task) -> None:
        super().__init__()
        self.model = model
        self.queries = list(queries)
        self.recipe = recipe

    def forward(self) -> Tensor:
        return torch.cat([query.values(self.model.eval(), self.recipe).double() for query in self.queries])


def query_values(recipe: Task, model: nn.Module, queries: Sequence[AnyQuery]) -> np.ndarray:
    """Return the values [Q] of all queries for one model, in evaluation mode.

    Returns
    -------
    array [Q]

    Raises
    ------
    ConfigError
        A query changes the model.
    """
    found = []
    for query in queries:
        with evaluated(query, model):
            found.append(without_graph(partial(query.values, model, recipe)).double())
    return torch.cat(found).cpu().numpy()


class StackedQueries:
    """Values of queries for stacked parameters [R, P].

    Parameters
    ----------
    template : nn.Module
        A model of ours, used up: it is put into evaluation mode and its parameters are overwritten.
    together : bool
        Evaluate `ALIGNED` models at once; else one after the other.
    """

    def __init__(
        self, recipe: Task, template: nn.Module, queries: Sequence[AnyQuery], together: bool = True
    ) -> None:
        self._recipe = recipe
        self._model = template.eval()
        self._queries = queries
        self._layout = Layout(template)
        self._queried = _Queried(self._model, queries, recipe)
        self._places = places(self._queried, [f"model.{name}" for name in self._layout.names])
        self.stacks: bool | None = None if together else False

    def __call__(self, thetas: Tensor) -> np.ndarray:
        """Return the values [R, Q] at parameters [R, P]; NaN parameters give NaN."""
        if self.stacks is None:
            self.stacks = self._try(thetas[:1])
        with torch.no_grad():
            values = self._stacked(thetas) if self.stacks else self._one_by_one(thetas)
        values[~torch.isfinite(thetas).all(1).cpu().numpy()] = np.nan
        return values

    def _named(self, theta: Tensor) -> Mapping[str, Tensor]:
        views = self._layout.split(theta).values()
        return {p: view for alike, view in zip(self._places, views, strict=True) for p in alike}

    def _stacked(self, thetas: Tensor) -> np.ndarray:
        evaluate = vmap(
            lambda theta: functional_call(self._queried, dict(self._named(theta)), (), tie_weights=False)
        )
        padding = thetas[-1:].expand(-len(thetas) % ALIGNED, -1)
        parts = [evaluate(part) for part in torch.cat([thetas, padding]).split(ALIGNED)]
        return torch.cat(parts)[: len(thetas)].cpu().numpy()

    def _one_by_one(self, thetas: Tensor) -> np.ndarray:
        values = []
        for theta in thetas:
            self._layout.assign(self._model, theta)
            values.append(query_values(self._recipe, self._model, self._queries))
        return np.stack(values)

    def _try(self, theta: Tensor) -> bool:
        """Whether vmap can follow the queries and says the same as one model at a time."""
        start = self._layout.theta(self._model)
        theta = torch.where(torch.isfinite(theta), theta, start)
        try:
            with torch.no_grad():
                got = self._stacked(theta)
        except Exception:  # a query may do anything with the model: then each model is evaluated by itself
            return False
        return bool(np.allclose(got, self._one_by_one(theta), rtol=1e-3, atol=1e-5, equal_nan=True))
