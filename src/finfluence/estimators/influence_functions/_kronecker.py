"""The influence function with a curvature of Kronecker products: K-FAC, EK-FAC, and EK-FAC refined by CG."""

from dataclasses import dataclass
from typing import TypeVar

from finfluence._progress import Progress
from finfluence.curvature import (
    EVALUATIONS,
    FISHERS,
    ConjugateGradients,
    FisherKind,
    Kronecker,
    LossCurvature,
    Objective,
)
from finfluence.estimators._base import check_number, check_whole
from finfluence.estimators._kronecker_fit import fit_passes, said_of
from finfluence.estimators.influence_functions._influence_function import (
    InfluenceFunction,
    Prepared,
    Relative,
    Ridge,
    SeededOptions,
)
from finfluence.runs import Tape


@dataclass(frozen=True, kw_only=True)
class KroneckerOptions(SeededOptions):
    """Options of `ByKfac` and `ByEkfac`.

    Parameters
    ----------
    curvature : {"gauss-newton", "empirical-fisher"}
        What is factorised: Gauss–Newton's curvature, or the second moment of the rows' gradients.
    damping, relative, rows_at_once
        As for `CurvatureOptions`.
    seed : int
        Of the random directions in the space of outputs that stand for labels drawn from the model.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    @classmethod
    def curvatures(cls) -> tuple[str, ...]:
        """Return the curvatures that the method can take."""
        return FISHERS


KroneckerOptionsT = TypeVar("KroneckerOptionsT", bound=KroneckerOptions)


class _ByKronecker(InfluenceFunction[KroneckerOptionsT]):
    corrected = True

    def _fitted(self, objective: Objective) -> Kronecker:
        curvature: FisherKind = self.options.curvature  # type: ignore[assignment]
        return Kronecker([objective], curvature, self.corrected, self.options.seed)

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        fitted = self._fitted(objective)
        progress("curvature", 1, 1)
        given = self.options.damping
        damping = ridge.added(fitted.mean_eigenvalue, given)
        solver = fitted.damped(damping)
        return Prepared(solver, damping - ridge.decay, self._facts(fitted), said_of(fitted))

    def _facts(self, fitted: Kronecker) -> dict[str, object]:
        return {"curvature": self.options.curvature, "layers": fitted.covered, "diagonal": fitted.diagonal}

    def _passes(self, source: Tape, solves: int) -> float:
        return fit_passes(self.options.curvature, self.corrected)

    def _memory(self, source: Tape) -> int:
        return sum(8 * 3 * (n + 1) ** 2 for shape in source.layout.shapes for n in _sides(shape))


class ByKfac(_ByKronecker[KroneckerOptions]):
    """Influence function with K-FAC: a Kronecker product of two small matrices for each layer.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ (C + λ)⁻¹ ∇ℓ_i, C = A ⊗ S for each Linear and Conv2d layer (bias included), a
    diagonal for
    everything else, and nothing between layers. λ is added to the products of eigenvalues, not to the factors. Which
    parameters have a diagonal only is a finding.

    Notes
    -----
    Cost: one pass over the rows, and an eigendecomposition of each factor.

    References
    ----------
    Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015).

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByKfac(KroneckerOptions(damping=0.0)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-kfac"
    paper = "arXiv 1503.05671"
    Options = KroneckerOptions
    corrected = False


class ByEkfac(_ByKronecker[KroneckerOptions]):
    """Influence function with EK-FAC: K-FAC's eigenbasis with the second moments measured in it.

    As `ByKfac`, with eigenvalues mean_i (Q_Sᵀ G_i Q_A)², the best diagonal in that basis: never further from the
    block of
    the curvature than K-FAC's, in Frobenius norm. What large models are analysed with.

    Notes
    -----
    Cost: two passes over the rows, and an eigendecomposition of each factor.

    References
    ----------
    George et al. (2018); Grosse et al., "Studying large language model generalization with influence functions" (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByEkfac(KroneckerOptions(damping=0.0)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-ekfac"
    paper = "arXiv 2308.03296"
    Options = KroneckerOptions


@dataclass(frozen=True, kw_only=True)
class RelatifOptions(KroneckerOptions):
    """Options of `Relatif`: those of EK-FAC, relative to each row's own influence unless told otherwise.

    Parameters
    ----------
    curvature, damping, rows_at_once, seed
        As for `KroneckerOptions`.
    relative : {"loss", "parameters", "none"}
        What each row's score is divided by: √(gᵀH⁻¹g), ‖H⁻¹g‖, or nothing.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    relative: Relative = "loss"


class Relatif(_ByKronecker[RelatifOptions]):
    """Influence relative to a row's own size (RelatIF): unusual rows no longer answer every query.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀH⁻¹g_i / √(g_iᵀH⁻¹g_i) (*loss*: rows at an equal change of the training loss), or over
    ‖H⁻¹g_i‖ (*parameters*), with EK-FAC for H. It has no unit. Every influence function takes `relative=`.

    Notes
    -----
    Cost: EK-FAC, and the gradient of every row.

    References
    ----------
    Barshan, Brunet and Dziugaite, "RelatIF: identifying explanatory training examples via relative influence" (2020),
    equations 7 and 9.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> Relatif(RelatifOptions(damping=0.0)).estimate(train(recipe), weight).data.score.values.ravel().round(4).tolist()
    [0.25, 0.25, 0.25, -0.25]
    """

    name = "relatif"
    paper = "arXiv 2003.11630"
    Options = RelatifOptions


@dataclass(frozen=True, kw_only=True)
class EkfacCgOptions(KroneckerOptions):
    """Options of `ByEkfacCg`.

    Parameters
    ----------
    curvature, damping, relative, rows_at_once, seed
        As for `KroneckerOptions`.
    iterations : int
        At most so many products of the curvature.
    tolerance : float
        It stops where every residual is below this share of the query's gradient.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    iterations: int = 20
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("iterations", self.iterations)
        check_number("tolerance", self.tolerance, above=0.0)


class ByEkfacCg(_ByKronecker[EkfacCgOptions]):
    """Influence function by conjugate gradients that start from EK-FAC and are preconditioned by it.

    As `ByConjugateGradients`, on the whole curvature with the couplings between layers that EK-FAC leaves out, in fewer
    products. Where the residual stays above the tolerance a finding says so.

    Notes
    -----
    Cost: EK-FAC, and up to `iterations` products.

    References
    ----------
    Grosse et al. (2023), section 5.1, compare the two; ASTRA (2025) refines EK-FAC in a like way.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByEkfacCg(EkfacCgOptions(damping=0.0)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(4).tolist()
    [0.3333, 0.3333, 0.3333, -1.0]
    """

    name = "if-ekfac-cg"
    paper = "arXiv 2308.03296"
    Options = EkfacCgOptions

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        o = self.options
        prepared = super()._prepare(objective, ridge, progress)
        assert prepared.damping is not None
        near = prepared.solver
        operator = LossCurvature(objective, o.curvature)
        solver = ConjugateGradients(
            operator,
            prepared.damping + ridge.decay,
            o.iterations,
            o.tolerance,
            lambda v: near.solve(v).vectors,
        )
        return Prepared(solver, prepared.damping, prepared.facts, prepared.findings)

    def _passes(self, source: Tape, solves: int) -> float:
        products = solves * (min(self.options.iterations, source.layout.size) + 2)
        return super()._passes(source, solves) + EVALUATIONS[self.options.curvature] * products


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sides of the factors of a parameter that is a weight."""
    if len(shape) < 2:
        return ()
    inputs = 1
    for n in shape[1:]:
        inputs *= n
    return shape[0], inputs
