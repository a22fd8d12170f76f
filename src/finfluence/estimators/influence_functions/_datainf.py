"""The influence function by DataInf."""

from finfluence._progress import Progress
from finfluence.curvature import DataInf, Objective
from finfluence.estimators.influence_functions._influence_function import (
    InfluenceFunction,
    InfluenceOptions,
    Prepared,
    Ridge,
)
from finfluence.runs import Tape


class ByDataInf(InfluenceFunction[InfluenceOptions]):
    """Influence function by DataInf: the mean of the inverses of single rows, parameter tensor by parameter tensor.

    score(S) = σ Σ_{i∈S} (1/n) ∇qᵀ r(∇ℓ_i), r = (1/n) Σ_j (1/λ)[I − g_j g_jᵀ / (λ + ‖g_j‖²)] for each tensor of
    parameters:
    the inverse of the empirical Fisher matrix, with mean and inverse exchanged. That is exact for one row, or rows of
    equal gradients, and far off where gradients differ: made for adapters of low rank.

    Notes
    -----
    Cost: two passes of the gradient of every row. λ, unless given, is a tenth of the mean squared entry of the rows'
    gradients in each tensor; weight decay is added to it.

    References
    ----------
    Kwon et al., "DataInf: efficiently estimating data influence in LoRA-tuned LLMs and diffusion models" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Recipe, Rows, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=4, epochs=200)
    >>> weight = Query(lambda m: m.weight.sum(), name="weight", sign=+1)
    >>> ByDataInf().estimate(train(recipe), weight).top(1).row_id.item()
    0
    """

    name = "datainf"
    paper = "arXiv 2310.00902"
    Options = InfluenceOptions

    def _prepare(self, objective: Objective, ridge: Ridge, progress: Progress) -> Prepared:
        solver = DataInf(objective.row_gradients, objective.layout.sizes, self.options.damping, ridge.decay)
        damping = {
            name: float(d) - ridge.decay
            for name, d in zip(objective.layout.names, solver.damping, strict=True)
        }
        return Prepared(solver, None, {"curvature": "empirical-fisher", "damping": damping})

    def _passes(self, source: Tape, solves: int) -> float:
        return (self.options.damping is None) + solves

    def _memory(self, source: Tape) -> int:
        rows = min(self.options.rows_at_once, len(source.rows))
        return 3 * 8 * source.layout.size * rows
