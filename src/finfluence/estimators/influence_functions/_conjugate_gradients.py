"""The influence function by conjugate gradients."""

from dataclasses import dataclass

from finfluence._progress import Progress
from finfluence.curvature import ConjugateGradients, Objective
from finfluence.estimators._base import check_number, check_whole
from finfluence.estimators.influence_functions._influence_function import (
    ByProducts,
    Prepared,
    Ridge,
    SeededOptions,
)
from finfluence.runs import Tape


@dataclass(frozen=True, kw_only=True)
class ConjugateGradientOptions(SeededOptions):
    """Options of `ByConjugateGradients`.

    Parameters
    ----------
    curvature, damping, relative, rows_at_once
        As for `CurvatureOptions`.
    iterations : int
        At most so many products of the curvature.
    tolerance : float
        It stops where every residual is below this share of the query's gradient.
    seed : int
        Of the probes that find the mean eigenvalue.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    iterations: int = 100
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("iterations", self.iterations)
        check_number("tolerance", self.tolerance, above=0.0)


class ByConjugateGradients(ByProducts[ConjugateGradientOptions]):
    """Influence function by conjugate gradients on products of the curvature; all rows, nothing stored.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ (H + λ)⁻¹ ∇ℓ_i, as `Explicit`. Where the residual stays above the tolerance a finding
    says so; a direction of negative curvature is an error.

    Notes
    -----
    Cost: up to `iterations` products, each three passes over the rows (Gauss–Newton) or one (Hessian), queries
    together.

    References
    ----------
    Martens, "Deep learning via Hessian-free optimization" (2010); Koh and Liang (2017), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByConjugateGradients(ConjugateGradientOptions(damping=0.0)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-cg"
    paper = "arXiv 1703.04730"
    Options = ConjugateGradientOptions

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        o = self.options
        operator, damping = self._operator(objective, ridge, o.seed)
        solver = ConjugateGradients(operator, damping, o.iterations, o.tolerance)
        return Prepared(solver, damping - ridge.decay, {"curvature": o.curvature})

    def _products(self, source: Tape, solves: int) -> float:
        return solves * (min(self.options.iterations, source.layout.size) + 1)
