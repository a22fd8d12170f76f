"""The influence function by LiSSA."""

from dataclasses import dataclass

from finfluence._progress import Progress
from finfluence.curvature import Lissa, Objective, largest_eigenvalue
from finfluence.estimators._base import check_number, check_whole
from finfluence.estimators.influence_functions._influence_function import (
    ByProducts,
    Prepared,
    Ridge,
    SeededOptions,
)
from finfluence.runs import Tape

MARGIN = 1.1
POWER_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class LissaOptions(SeededOptions):
    """Options of `ByLissa`.

    Parameters
    ----------
    curvature, damping, relative, rows_at_once
        As for `CurvatureOptions`.
    depth : int
        At most so many products of the curvature.
    scale : float, optional
        What products are divided by; 1.1 times the largest eigenvalue, found by the power method, unless given.
    tolerance : float
        It stops where every residual is below this share of the query's gradient.
    seed : int
        Of the power method's start, and of the probes that find the mean eigenvalue.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    depth: int = 300
    scale: float | None = None
    tolerance: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("depth", self.depth)
        check_number("tolerance", self.tolerance, above=0.0)
        if self.scale is not None:
            check_number("scale", self.scale, above=0.0)


class ByLissa(ByProducts[LissaOptions]):
    """Influence function by LiSSA, the inverse as a Neumann series; products over all rows.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ (H + λ)⁻¹ ∇ℓ_i, as `Explicit`, by x ← v + x − (H + λ)x/s. The published algorithm
    takes
    each product from one row drawn at random; here it is that of all rows, so that nothing but the depth is left to
    doubt.
    A series that diverges is an error, one that has not converged a finding.

    Notes
    -----
    Cost: up to `depth` products and 20 more for the scale. It needs about (largest eigenvalue / λ) of them, where
    conjugate gradients need the root of that.

    References
    ----------
    Agarwal, Bullins and Hazan (2017); Koh and Liang (2017), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> found = ByLissa(LissaOptions(damping=0.0, tolerance=1e-5)).estimate(train(recipe), weight)
    >>> found.data.predicted_effect.values.ravel().round(3).tolist()
    [0.333, 0.333, 0.333, -1.0]
    """

    name = "if-lissa"
    paper = "arXiv 1602.03943"
    Options = LissaOptions

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        o = self.options
        operator, damping = self._operator(objective, ridge, o.seed)
        scale = o.scale
        if scale is None:
            scale = MARGIN * (largest_eigenvalue(operator, o.seed, POWER_STEPS) + damping)
        solver = Lissa(operator, damping, scale, o.depth, o.tolerance)
        return Prepared(solver, damping - ridge.decay, {"curvature": o.curvature})

    def _products(self, source: Tape, solves: int) -> float:
        return solves * (self.options.depth + 1) + (self.options.scale is None) * POWER_STEPS / 2
