"""Cheap scores that every detector of wrong labels must stand beside: larger is more suspect."""

import numpy as np
from numpy.typing import ArrayLike

from finfluence._seeds import stream
from finfluence.errors import DataError, NotSupportedError, explain


def loss_score(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return the cross-entropy of each label, in nats: the plain loss, often the best detector of flips.

    Parameters
    ----------
    probabilities
        Of each class, one line per row.
    labels
        Index of the given class.

    Returns
    -------
    ndarray
        One score per row, at most 708 (a probability of zero counts as the least positive float).

    Examples
    --------
    >>> loss_score([[0.5, 0.5], [1.0, 0.0]], [0, 0]).round(4).tolist()
    [0.6931, 0.0]
    """
    p, y = _checked(probabilities, labels)
    return -np.log(np.maximum(p[np.arange(y.size), y], np.finfo(float).tiny)) + 0.0


def margin_score(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return the best other class's probability minus the label's: positive where the model disagrees.

    Parameters
    ----------
    probabilities, labels
        As `loss_score`.

    Returns
    -------
    ndarray
        Between -1 and 1.

    Examples
    --------
    >>> margin_score([[0.75, 0.25], [0.25, 0.75]], [0, 0]).tolist()
    [-0.5, 0.5]
    """
    p, y = _checked(probabilities, labels)
    others = p.copy()
    others[np.arange(y.size), y] = -np.inf
    return others.max(axis=1) - p[np.arange(y.size), y]


def random_score(n: int, seed: int = 0) -> np.ndarray:
    """Return n uniform scores: what knowing nothing achieves.

    Examples
    --------
    >>> bool((random_score(3, seed=1) == random_score(3, seed=1)).all())
    True
    """
    return stream(seed, "baseline.random").random(n)


def cleanlab_score(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return one minus cleanlab's label quality (self-confidence, adjusted for each class's mean).

    Parameters
    ----------
    probabilities, labels
        As `loss_score`. Cleanlab means out-of-sample probabilities; from the training run itself they are
        too sure.

    Returns
    -------
    ndarray
        Between 0 and 1.

    Raises
    ------
    NotSupportedError
        Cleanlab is not installed.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning" (2021).
    """
    p, y = _checked(probabilities, labels)
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise NotSupportedError(
            explain(
                "the package cleanlab",
                "it is not installed",
                "baselines are an extra",
                'install it by pip install "finfluence[baselines]", or leave this baseline out',
            )
        ) from error
    return 1.0 - get_label_quality_scores(y, p, method="self_confidence", adjust_pred_probs=True)


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    fits = p.ndim == 2 and p.shape[1] >= 2 and y.shape == p.shape[:1] and y.dtype.kind in "iu"
    if not fits or (y.size and not (0 <= y.min() <= y.max() < p.shape[1])):
        raise DataError(
            explain(
                "probabilities [rows, classes] and the class index of every row",
                f"probabilities {p.shape}, labels {y.shape} of {y.dtype}",
                "labels by name, or a regression",
                "encode labels as 0 .. classes-1",
            )
        )
    if not (np.isfinite(p).all() and (p >= 0.0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-4)):
        raise DataError(
            explain(
                "probabilities that are finite and sum to 1 in each row",
                f"from {p.min()} to {p.max()}, sums up to {p.sum(axis=1).max():.4g}",
                "logits instead of probabilities",
                "apply a softmax first",
            )
        )
    return p, y
