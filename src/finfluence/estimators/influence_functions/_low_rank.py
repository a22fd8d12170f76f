"""The influence function with a curvature of low rank: Arnoldi and Nyström."""

from dataclasses import dataclass

from finfluence._progress import Progress
from finfluence.curvature import Objective, arnoldi, nystrom
from finfluence.estimators._base import check_whole
from finfluence.estimators.influence_functions._influence_function import (
    ByProducts,
    Prepared,
    Ridge,
    SeededOptions,
)
from finfluence.runs import Tape


@dataclass(frozen=True, kw_only=True)
class ArnoldiOptions(SeededOptions):
    """Options of `ByArnoldi`.

    Parameters
    ----------
    curvature, damping, relative, rows_at_once
        As for `CurvatureOptions`.
    rank : int
        Eigenpairs of largest size that are kept; directions beside them are dropped.
    iterations : int
        Vectors of the Krylov space, each a product of the curvature.
    seed : int
        Of the random start, and of the probes that find the mean eigenvalue.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    rank: int = 50
    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("rank", self.rank)
        check_whole("iterations", self.iterations)


class ByArnoldi(ByProducts[ArnoldiOptions]):
    """Influence function in the space of the curvature's largest eigenvectors, by Arnoldi's iteration.

    score(S) = σ Σ_{i∈S} (1/n) Σ_k (∇qᵀu_k)(u_kᵀ∇ℓ_i) / (e_k + λ), (e_k, u_k) the eigenpairs of largest |e|. What is
    dropped are directions of little curvature, in which a row may matter most; a finding says which share of a query's
    gradient is kept.

    Notes
    -----
    Cost: `iterations` products, whatever the number of queries; `iterations` vectors of all parameters in memory.

    References
    ----------
    Schioppa et al., "Scaling up influence functions" (2022).

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByArnoldi(ArnoldiOptions(damping=0.0)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-arnoldi"
    paper = "arXiv 2112.03052"
    Options = ArnoldiOptions

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        o = self.options
        operator, damping = self._operator(objective, ridge, o.seed)
        solver = arnoldi(operator, damping, o.rank, o.iterations, o.seed)
        said = (
            f"only the {len(solver.values)} largest eigenvectors of {operator.size:,} parameters count "
            "('kept': the least share of a query's gradient that lies in them); the others are dropped",
        )
        return Prepared(solver, damping - ridge.decay, {"curvature": o.curvature}, said)

    def _products(self, source: Tape, solves: int) -> float:
        return min(self.options.iterations, source.layout.size) + solves

    def _memory(self, source: Tape) -> int:
        return 3 * 8 * source.layout.size * min(self.options.iterations, source.layout.size)


@dataclass(frozen=True, kw_only=True)
class NystromOptions(SeededOptions):
    """Options of `ByNystrom`.

    Parameters
    ----------
    curvature, damping, relative, rows_at_once
        As for `CurvatureOptions`; damping is above zero.
    rank : int
        Random directions, each a product of the curvature.
    seed : int
        Of the directions, and of the probes that find the mean eigenvalue.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    rank: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("rank", self.rank)


class ByNystrom(ByProducts[NystromOptions]):
    """Influence function with Nyström's low-rank approximation of the curvature.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ (C + λ)⁻¹ ∇ℓ_i with C = HΩ(ΩᵀHΩ)⁺(HΩ)ᵀ, Ω random: directions outside of the sketch
    count
    as ones without curvature, and are divided by λ alone. The residual says how far that is from H.

    Notes
    -----
    Cost: `rank` products, done together; `rank` vectors of all parameters in memory.

    References
    ----------
    Hataya and Yamada, "Nyström method for accurate and scalable implicit differentiation" (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByNystrom(NystromOptions(damping=1e-6)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-nystrom"
    paper = "arXiv 2302.09726"
    Options = NystromOptions

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        o = self.options
        operator, damping = self._operator(objective, ridge, o.seed)
        solver = nystrom(operator, damping, o.rank, o.seed)
        return Prepared(solver, damping - ridge.decay, {"curvature": o.curvature})

    def _products(self, source: Tape, solves: int) -> float:
        return -(-min(self.options.rank, source.layout.size) // 64) + solves

    def _memory(self, source: Tape) -> int:
        return 4 * 8 * source.layout.size * min(self.options.rank, source.layout.size)
