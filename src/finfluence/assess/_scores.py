"""How sure a classifier is of a row, from its probabilities, and the temperature that makes it honest."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats import numbers

SCORES = ("max_confidence", "negative_entropy")
_TINY = 1e-12


def wilson(share: ArrayLike, rows: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's interval of shares of so many rows: what their number alone leaves open.

    Returns
    -------
    tuple of array

    Examples
    --------
    >>> [end.round(3).tolist() for end in wilson([1.0, 0.5], 1, 0.95)]
    [[0.207, 0.055], [1.0, 0.945]]
    """
    from statsmodels.stats.proportion import proportion_confint  # slow to import, and seldom needed

    lower, upper = proportion_confint(np.asarray(share) * rows, rows, 1 - level, method="wilson")
    return np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)


def probabilities(values: ArrayLike, name: str) -> np.ndarray:
    """Return rows × classes as float64 after checking that each row is a law."""
    p = numbers(values, name)
    if p.ndim != 2 or p.shape[1] < 2 or not len(p):
        raise DataError(
            explain(
                f"{name} as rows × classes, at least one row and two classes",
                f"an array of shape {p.shape}",
                "the chance of one class alone, or predicted labels",
                "pass the chance of every class, for two classes np.column_stack([1 - p, p])",
            )
        )
    sums = p.sum(1)
    bad = ~(np.isfinite(p).all(1) & (p >= 0.0).all(1) & (np.abs(sums - 1.0) < 1e-3))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            explain(
                f"each row of {name} to be non-negative and to sum to 1",
                f"{int(bad.sum())} of {len(p)} rows that do not, the first is row {first}: {p[first][:6]}",
                "logits where probabilities belong, or a model that diverged",
                "apply the softmax, or leave the rows out",
            )
        )
    return p / sums[:, None]


def temperature(p: np.ndarray, labels: np.ndarray) -> float:
    r"""Return the temperature T that minimises the log loss of :math:`p^{1/T}/\sum p^{1/T}` on labelled rows."""
    logits = np.log(np.maximum(p, _TINY))
    chosen = np.arange(len(p)), labels

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        scaled -= scaled.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[chosen]))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def tempered(p: np.ndarray, t: float) -> np.ndarray:
    """Return probabilities at temperature `t`."""
    logits = np.log(np.maximum(p, _TINY)) / t
    logits -= logits.max(1, keepdims=True)
    e = np.exp(logits)
    return np.asarray(e / e.sum(1, keepdims=True))


def score(p: np.ndarray, kind: str) -> np.ndarray:
    """Return one number a row, larger where the model is surer."""
    if kind == "max_confidence":
        return np.asarray(p.max(1))
    if kind == "negative_entropy":
        return np.asarray((p * np.log(np.maximum(p, _TINY))).sum(1))
    raise ConfigError(
        explain(
            f"score to be one of {', '.join(SCORES)}", f"{kind!r}", "a mistyped name", "choose one of them"
        )
    )
