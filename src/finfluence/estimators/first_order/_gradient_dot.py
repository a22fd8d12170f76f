"""Dot products of gradients at the end of a run: TracIn with one checkpoint."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost
from finfluence.estimators._one_run import (
    activation_bytes,
    in_trainings,
    row_gradients,
    scored,
)
from finfluence.estimators.derivatives import query_gradients
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over


@dataclass(frozen=True, kw_only=True)
class GradientDotOptions:
    """Options of `GradientDot` and `GradientCosine`: there are none."""


class GradientDot(AbstractEstimator[Tape, GradientDotOptions]):
    """Dot product of each row's gradient with the query's, at the final parameters.

    score(S) = σ Σ_{i∈S} ⟨∇q(θ_T), ∇ℓ_i(θ_T)⟩, σ the query's sign: larger is more harmful. A step on row i changes the
    query by −η⟨∇q, ∇ℓ_i⟩, so that the score is what the rows would do to the query by one more step each, in the
    direction that is worse for the user, up to the step size.

    Notes
    -----
    Cost: a forward and backward pass of each row by itself. The score has the unit of a squared gradient and no error
    rate.

    References
    ----------
    Pruthi et al., "Estimating training data influence by tracing gradient descent" (2020), with the last checkpoint
    alone.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> GradientDot().estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "grad-dot"
    family = "first_order"
    paper = "TracIn, arXiv 2002.08484"
    yields = "score"
    needs = Tape
    Options = GradientDotOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        with seeded(0):
            _, asked = query_gradients(queries, source.model(), source)
        found = np.empty((len(source.rows), len(asked)))
        for i, gradient in enumerate(row_gradients(source)):
            found[i] = self._product(asked, gradient).double().cpu().numpy()
            progress("gradients", i + 1, len(found))
        return scored(source, self.name, queries, subsets, sum_over(subsets.positions, found))

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        parameters = source.layout.size * source.layout.dtype.itemsize
        memory = activation_bytes(source, 1024) + parameters * (columns + 3) + 8 * rows * columns
        return Cost(in_trainings(source, 2 * rows), memory)

    def _product(self, asked: Tensor, gradient: Tensor) -> Tensor:
        """Return the products [Q] of the queries' gradients [Q, P] with one row's [P]."""
        return asked @ gradient
