"""How strongly each row pulls at the parameters."""

import numpy as np

from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.estimators.gradient_products import row_norms
from finfluence.runs import Tape


class GradientNorm(RowScore[RowScoreOptions]):
    """Norm of each row's gradient at the end of the run: how strongly it still pulls.

    score(S) = Σ_{i∈S} ‖∇ℓ_i(θ_T)‖, in evaluation mode; larger is more suspect.

    Notes
    -----
    Cost: a forward and backward pass of the rows, and their norms: in factors where layers have them, written out
    otherwise.

    References
    ----------
    Paul, Ganguli and Dziugaite, "Deep learning on a data diet" (2021), there early in training.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> GradientNorm().estimate(train(recipe), own_loss([3])).top(1).row_id.item()
    3
    """

    name = "gradient-norm"
    paper = "arXiv 2107.07075"
    Options = RowScoreOptions

    def scores(self, tape: Tape) -> np.ndarray:
        """Return the gradient's norm of every row [n]."""
        return row_norms(tape, self.options.rows_at_once)
