"""The influence function with the curvature written out."""

from finfluence._progress import Progress
from finfluence.curvature import EVALUATIONS, Dense, LossCurvature, Objective, check_size, written_out
from finfluence.curvature import Matrix as MatrixOperator
from finfluence.estimators.influence_functions._influence_function import (
    CurvatureOptions,
    InfluenceFunction,
    Prepared,
    Ridge,
)
from finfluence.runs import Tape


class Explicit(InfluenceFunction[CurvatureOptions]):
    """Influence function with the curvature written out as a matrix; the slow reference, for small models.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ (H + λ)⁻¹ ∇ℓ_i, σ the query's sign: larger is more harmful. `predicted_effect` is
    the change of the query when S is removed, in its unit: (Σ_S x − |S| x̄)/(n − |S|) with x_i = ∇qᵀ(H + λ)⁻¹∇ℓ_i.

    Notes
    -----
    Cost: P/64 passes over the rows, and an eigendecomposition of a P × P matrix; at most 10,000 parameters.

    References
    ----------
    Koh and Liang, "Understanding black-box predictions via influence functions" (2017), equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = Explicit(CurvatureOptions(damping=0.0)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()  # removing the 4 leaves a mean of 0
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-explicit"
    paper = "arXiv 1703.04730"
    Options = CurvatureOptions

    def _check(self, source: Tape) -> None:
        check_size(source.layout.size)

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        written = MatrixOperator(written_out(LossCurvature(objective, self.options.curvature)))
        given = self.options.damping
        damping = ridge.added(float(written.matrix.diagonal().mean()), given)
        return Prepared(Dense(written, damping), damping - ridge.decay, {"curvature": self.options.curvature})

    def _passes(self, source: Tape, solves: int) -> float:
        return EVALUATIONS[self.options.curvature]

    def _memory(self, source: Tape) -> int:
        return 4 * 8 * source.layout.size**2
