"""Dot products of gradients at the end of a run: TracIn with one checkpoint."""

from dataclasses import dataclass

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost
from finfluence.estimators._one_run import in_trainings, scored
from finfluence.estimators.gradient_products import gradient_bytes, row_products
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, sum_over

AT_ONCE = 512


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
    Cost: a forward and backward pass of the rows, and their products with the queries: in factors for linear,
    convolution, embedding and normalisation layers, so that no row's gradient is formed; written out for other
    parameters. Exact either way. The score has the unit of a squared gradient and no error rate.

    References
    ----------
    Pruthi et al., "Estimating training data influence by tracing gradient descent" (2020), with the last checkpoint
    alone.

    Examples
    --------
    >>> import numpy as np
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
    cosine = False

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        found = row_products(source, queries, AT_ONCE, cosine=self.cosine)
        progress("gradients", len(found), len(found))
        return scored(source, self.name, queries, subsets, sum_over(subsets.positions, found))

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        return Cost(in_trainings(source, 2 * rows), gradient_bytes(source, columns, AT_ONCE))
