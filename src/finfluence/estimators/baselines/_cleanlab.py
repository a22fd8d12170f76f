"""Cleanlab's label quality, turned so that larger is more suspect."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from finfluence._extras import missing
from finfluence.errors import NotSupportedError
from finfluence.estimators.baselines._probabilities import check_probabilities, class_probabilities
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.runs import Tape


class Cleanlab(RowScore[RowScoreOptions]):
    """One minus cleanlab's label quality, from the probabilities at the end of the run.

    score(S) = Σ_{i∈S} 1 − quality_i, the quality being self-confidence adjusted for each class's mean; of one row
    between 0 and 1.

    Notes
    -----
    Cost: one evaluation of every row. Needs the extra "baselines", and a classifier as for `Margin`. Cleanlab means
    out-of-sample probabilities; from the training run itself they are too sure.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning" (2021).
    """

    name = "cleanlab"
    paper = "arXiv 1911.00068"
    Options = RowScoreOptions

    def _check(self, source: Tape) -> None:
        _scorer()
        class_probabilities(source, rows_at_once=2, rows=2)

    def scores(self, tape: Tape) -> np.ndarray:
        """Return one minus the label quality of every row [n]."""
        return cleanlab_score(*class_probabilities(tape, self.options.rows_at_once))


def cleanlab_score(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return one minus cleanlab's label quality (self-confidence, adjusted for each class's mean).

    Parameters
    ----------
    probabilities : array [rows, classes]
        Of each class; out of sample, if you have them.
    labels : array [rows]
        Index of the given class.

    Returns
    -------
    ndarray
        Between 0 and 1.

    Raises
    ------
    NotSupportedError
        Cleanlab is not installed.
    DataError
        Labels that are no class indices, or probabilities that do not sum to 1.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning" (2021).
    """
    p, y = check_probabilities(probabilities, labels)
    return 1.0 - _scorer()(y, p, method="self_confidence", adjust_pred_probs=True)


def _scorer() -> Callable[..., np.ndarray]:
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        purpose, instead = "scores labels by confident learning", "leave this baseline out"
        raise NotSupportedError(missing("cleanlab", purpose, "baselines", error, instead)) from error
    found: Callable[..., np.ndarray] = get_label_quality_scores
    return found
