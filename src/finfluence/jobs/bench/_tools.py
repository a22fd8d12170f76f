"""What people use in place of influence: judgements of labels by models that have not seen the row.

They need rows and labels only, no run of the model in question, and so are no methods of `fi.estimate`; but every
detector of wrong labels must stand beside them.
"""

from collections.abc import Callable

import numpy as np

from finfluence.estimators.baselines import cleanlab_score, loss_score
from finfluence.labels import out_of_fold

Tool = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def out_of_fold_loss(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Loss of each label by models trained on the other folds."""
    return loss_score(out_of_fold(x, y, seed=seed).predicted, y)


def out_of_fold_cleanlab(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Cleanlab's label quality, from out-of-fold probabilities as cleanlab means it."""
    return cleanlab_score(out_of_fold(x, y, seed=seed).predicted, y)


TOOLS: dict[str, Tool] = {
    "out-of-fold-loss": out_of_fold_loss,
    "out-of-fold-cleanlab": out_of_fold_cleanlab,
}
