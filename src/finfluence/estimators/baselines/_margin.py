"""How far the model prefers another class than the given one."""

import numpy as np
from numpy.typing import ArrayLike

from finfluence.estimators.baselines._probabilities import check_probabilities, class_probabilities
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.runs import Tape


class Margin(RowScore[RowScoreOptions]):
    """Probability of the best other class minus that of the given label, at the end of the run.

    score(S) = Σ_{i∈S} max_{c≠y_i} p_i(c) − p_i(y_i); of one row between −1 and 1, positive where the model disagrees.

    Notes
    -----
    Cost: one evaluation of every row. For classifiers: `model(batch["x"])` gives one output per class, `batch["y"]` the
    class indices.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning" (2021), the normalised margin.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.array([[-1.0], [-1.0], [1.0], [-1.0]]), np.array([0, 0, 1, 1])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 2), optimizer=SGD(lr=0.1), batch_size=2, epochs=40,
    ...                 loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"))
    >>> Margin().estimate(train(recipe), own_loss([3])).top(1).row_id.item()
    3
    """

    name = "margin"
    paper = "arXiv 1911.00068"
    Options = RowScoreOptions

    def _check(self, source: Tape) -> None:
        class_probabilities(source, rows_at_once=2, rows=2)

    def scores(self, tape: Tape) -> np.ndarray:
        """Return the margin of every row [n]."""
        return margin_score(*class_probabilities(tape, self.options.rows_at_once))


def margin_score(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return the best other class's probability minus the label's: positive where the model disagrees.

    Parameters
    ----------
    probabilities : array [rows, classes]
        Of each class.
    labels : array [rows]
        Index of the given class.

    Returns
    -------
    ndarray
        Between -1 and 1.

    Raises
    ------
    DataError
        Labels that are no class indices, or probabilities that do not sum to 1.

    Examples
    --------
    >>> margin_score([[0.75, 0.25], [0.25, 0.75]], [0, 0]).tolist()
    [-0.5, 0.5]
    """
    p, y = check_probabilities(probabilities, labels)
    others = p.copy()
    others[np.arange(y.size), y] = -np.inf
    return others.max(axis=1) - p[np.arange(y.size), y]
