"""Accuracy without labels before and after a change of the model, on the same rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finfluence._seeds import stream
from finfluence.assess._accuracy import REPLICATES, AccuracyEstimate, Scored, checked, estimated
from finfluence.errors import DataError, explain


@dataclass(frozen=True)
class AccuracyChange:
    """Estimated accuracy of two models on the same unlabelled rows.

    Attributes
    ----------
    before, after
        Each model's estimate.
    difference, lower, upper, level
        After minus before with its paired bootstrap interval: each replicate draws the same labelled and
        the same unlabelled rows for both models. Positive: the second model is right more often.
    """

    before: AccuracyEstimate
    after: AccuracyEstimate
    difference: float
    lower: float
    upper: float
    level: float

    def __str__(self) -> str:
        told = "rises" if self.lower > 0 else "falls" if self.upper < 0 else "cannot be told to change"
        return (
            f"estimated accuracy without labels {told}: {self.before.estimate:.1%} before, "
            f"{self.after.estimate:.1%} after, difference {100 * self.difference:+.1f} points "
            f"[{100 * self.lower:+.1f}, {100 * self.upper:+.1f}] ({self.level:.0%} paired bootstrap)"
        )


def accuracy_change(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    labels: ArrayLike,
    *,
    score: str = "max_confidence",
    calibrated: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> AccuracyChange:
    r"""Estimate how the accuracy on unlabelled rows changes from one model to another.

    .. math:: \hat\Delta = \Pr_{\text{target}}[s_{\text{after}}(x) > t_{\text{after}}]
              - \Pr_{\text{target}}[s_{\text{before}}(x) > t_{\text{before}}]

    Parameters
    ----------
    before, after
        (source, target) probabilities of each model, rows × classes, on the same rows in the same order.
    labels
        Labels of the source rows as positions of classes.
    score, calibrated, level, seed
        As of `accuracy`.

    Returns
    -------
    AccuracyChange

    Raises
    ------
    DataError
        If the two models were not asked about the same rows, or as of `accuracy`.

    References
    ----------
    Garg et al., ICLR 2022, equation 1, for each model; Efron and Tibshirani (1993), chapter 8, for pairs.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.random.default_rng(0).dirichlet([1, 1], 200)
    >>> y = p.argmax(1)
    >>> y[:40] = 1 - y[:40]
    >>> accuracy_change((p, p), (p, p), y).difference
    0.0
    """
    (p0, q0, y), (p1, q1, _) = (checked(s, labels, t, level) for s, t in (before, after))
    if p0.shape != p1.shape or q0.shape != q1.shape:
        raise DataError(
            explain(
                "both models asked about the same rows and classes",
                f"source {p0.shape} and {p1.shape}, target {q0.shape} and {q1.shape}",
                "files of different rows, or a class lost in cleaning",
                "predict the same rows in the same order with both models",
            )
        )
    was, now = (Scored.of(p, y, q, score, calibrated=calibrated) for p, q in ((p0, q0), (p1, q1)))
    rng = stream(seed, "accuracy change")
    draws = []
    for _ in range(REPLICATES):
        rows = was.drawn(rng)
        draws.append(now.estimate(*rows) - was.estimate(*rows))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    first, second = estimated(was, level, seed), estimated(now, level, seed)
    return AccuracyChange(first, second, second.estimate - first.estimate, float(low), float(high), level)
