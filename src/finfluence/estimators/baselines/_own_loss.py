"""The plain loss of each row: often the best detector of wrong labels."""

import numpy as np
from numpy.typing import ArrayLike

from finfluence.estimators.baselines._probabilities import check_probabilities
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.runs import Tape
from finfluence.runs.tape import final_losses


class OwnLoss(RowScore[RowScoreOptions]):
    """Loss of each row at the end of the run: what the model could not learn.

    score(S) = Σ_{i∈S} ℓ_i(θ_T), in evaluation mode; larger is more suspect.

    Notes
    -----
    Cost: one evaluation of every row. A model that has learnt its wrong rows by heart gives them a small loss.

    References
    ----------
    Arpit et al., "A closer look at memorization in deep networks" (2017).

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> OwnLoss().estimate(train(recipe), own_loss([3])).top(1).row_id.item()
    3
    """

    name = "own-loss"
    paper = "arXiv 1706.05394"
    Options = RowScoreOptions

    def scores(self, tape: Tape) -> np.ndarray:
        """Return the loss of every row [n]."""
        return final_losses(tape, tape.model(), self.options.rows_at_once)


def loss_score(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return the cross-entropy of each label, in nats.

    Parameters
    ----------
    probabilities : array [rows, classes]
        Of each class.
    labels : array [rows]
        Index of the given class.

    Returns
    -------
    ndarray
        One score per row, at most 708 (a probability of zero counts as the least positive float).

    Raises
    ------
    DataError
        Labels that are no class indices, or probabilities that do not sum to 1.

    Examples
    --------
    >>> loss_score([[0.5, 0.5], [1.0, 0.0]], [0, 0]).round(4).tolist()
    [0.6931, 0.0]
    """
    p, y = check_probabilities(probabilities, labels)
    return -np.log(np.maximum(p[np.arange(y.size), y], np.finfo(float).tiny)) + 0.0
