"""Intervals for what was chosen by the model that predicts it: conformal under feedback covariate shift."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, DataError, explain


@dataclass(frozen=True)
class DesignLaw:
    r"""How a point was chosen from a finite domain: :math:`\tilde p(x) \propto \exp(\lambda\,\hat\mu(x))`.

    Attributes
    ----------
    domain
        Feature vectors that could have been chosen, points × features, without intercept.
    strength
        :math:`\lambda`; 0 chooses blindly, a large one takes the largest prediction.
    ridge
        Penalty :math:`\gamma` of the fit :math:`\hat\mu`; its intercept is free.
    feedback
        Whether the labelled points made the fit that chose. False weighs every row by the fit to the labelled points
        alone (ordinary covariate shift), as if the choice had not depended on them.
    """

    domain: np.ndarray
    strength: float
    ridge: float = 1.0
    feedback: bool = True


@dataclass(frozen=True)
class FeedbackInterval:
    """Set of outcomes that cannot be ruled out for the chosen point.

    Attributes
    ----------
    values
        The grid values kept, ascending. The set may have gaps.
    lower, upper
        Its ends; infinite if it reaches the grid's end on that side.
    level
        Stated chance of covering.
    """

    values: np.ndarray
    lower: float
    upper: float
    level: float

    def __str__(self) -> str:
        return f"[{self.lower:.4g}, {self.upper:.4g}] ({self.level:.0%} conformal, chosen point)"


def feedback_interval(
    features: ArrayLike,
    outcomes: ArrayLike,
    chosen: ArrayLike,
    design: DesignLaw,
    grid: ArrayLike,
    *,
    level: float = 0.9,
) -> FeedbackInterval:
    r"""Return the full conformal set of a point that was chosen by a ridge fit to the data given.

    For each candidate outcome y the point joins the data; with leave-one-out residuals as scores and

    .. math:: w_i(y) \propto \frac{\exp(\lambda\,\hat\mu_{-i,y}(x_i))}{\sum_{u}\exp(\lambda\,\hat\mu_{-i,y}(u))},

    y is kept if its own score is at most the weighted quantile of all scores. The fit without row i holds the
    candidate (feedback); predictions are affine in y, so one inverse a row serves all candidates.

    Parameters
    ----------
    features, outcomes
        Labelled points, n × k and n, drawn uniformly from the domain. The intercept is added and not penalised.
    chosen
        Features of the chosen point, k.
    design
        How it was chosen.
    grid
        Candidate outcomes; should cover whatever is possible.
    level
        Wanted coverage.

    Returns
    -------
    FeedbackInterval

    Raises
    ------
    DataError
        If shapes disagree, values are not finite, or fewer than two points are given.
    ConfigError
        If level, ridge, or grid cannot be used.

    References
    ----------
    Fannjiang, Bates, Angelopoulos, Listgarten and Jordan, "Conformal prediction under feedback covariate
    shift for biomolecular design", PNAS 2022, theorem 1 and algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> domain = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1.0]])
    >>> x, y = domain[[0, 1, 2, 3, 0]], [0, 1, 1, 3, 0.2]
    >>> found = feedback_interval(x, y, domain[3], DesignLaw(domain, 0.0), np.arange(-1, 5.25, 0.5), level=0.7)
    >>> (found.lower, found.upper)
    (0.0, 3.0)
    """
    x, y, candidates = _checked(features, outcomes, chosen, design, grid, level)
    scores, weights = scores_and_weights(x, y, design, candidates)
    kept = np.array(
        [s[-1] <= weighted_quantile(s, w, level) + 1e-9 for s, w in zip(scores, weights, strict=True)]
    )
    values = candidates[kept]
    if not len(values):
        raise ConfigError(
            explain(
                "a grid that reaches the likely outcomes",
                f"none of {len(candidates)} candidates from {candidates[0]:.4g} to {candidates[-1]:.4g} kept",
                "a grid beside the outcomes, or far too coarse",
                "widen the grid beyond the outcomes seen, in finer steps",
            )
        )
    low = -np.inf if kept[0] else float(values[0])
    high = np.inf if kept[-1] else float(values[-1])
    return FeedbackInterval(values, low, high, level)


def scores_and_weights(
    x: np.ndarray, y: np.ndarray, design: DesignLaw, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and weights, candidates × points, the chosen point last."""
    x = np.column_stack([np.ones(len(x)), x])
    domain = np.column_stack([np.ones(len(design.domain)), np.asarray(design.domain, dtype=np.float64)])
    n = len(y)
    penalty = design.ridge * np.eye(x.shape[1])
    penalty[0, 0] = 0.0
    scores = np.empty((len(candidates), n + 1))
    logs = np.empty_like(scores)
    fixed = _fit(x[:n], penalty) @ y
    for i in range(n + 1):
        others = np.delete(np.arange(n + 1), i)
        fit = _fit(x[others], penalty)
        if i < n:
            beta = (fit[:, :-1] @ y[others[:-1]])[None] + candidates[:, None] * fit[:, -1]
            truth: np.ndarray | float = y[i]
        else:
            beta, truth = np.broadcast_to(fit @ y, (len(candidates), x.shape[1])), candidates
        scores[:, i] = np.abs(truth - beta @ x[i])
        steering = beta if design.feedback else fixed[None]
        chances = design.strength * (steering @ domain.T)
        top = chances.max(1, keepdims=True)
        partition = top[:, 0] + np.log(np.exp(chances - top).sum(1))
        logs[:, i] = design.strength * (steering @ x[i]) - partition
    weights = np.exp(logs - logs.max(1, keepdims=True))
    return scores, weights / weights.sum(1, keepdims=True)


def weighted_quantile(scores: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return the first sorted score at which the weights sum to `level`."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) >= level - 1e-12
    return float(scores[order[int(np.argmax(reached))]]) if reached.any() else np.inf


def _fit(x: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.pinv(x.T @ x + penalty) @ x.T)


def _checked(
    features: ArrayLike,
    outcomes: ArrayLike,
    chosen: ArrayLike,
    design: DesignLaw,
    grid: ArrayLike,
    level: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    point, candidates = np.asarray(chosen, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    domain = np.asarray(design.domain, dtype=np.float64)
    fits = (
        x.ndim == 2
        and y.shape == (len(x),)
        and point.shape == x.shape[1:]
        and domain.shape[1:] == x.shape[1:]
    )
    finite = all(np.isfinite(a).all() for a in (x, y, point, candidates, domain))
    if not fits or not finite or len(x) < 2:
        raise DataError(
            explain(
                "at least two finite points n × k with n outcomes, a chosen point of k and a domain m × k",
                f"features {x.shape}, outcomes {y.shape}, chosen {point.shape}, domain {domain.shape}, "
                f"{'all finite' if finite else 'some values not finite'}",
                "one feature given as a flat array, or retrainings that diverged",
                "pass features[:, None], and leave out the diverged ones",
            )
        )
    if not 0.0 < level < 1.0 or design.ridge <= 0.0 or candidates.ndim != 1 or not len(candidates):
        raise ConfigError(
            explain(
                "level between 0 and 1, ridge above 0, a flat grid of candidates",
                f"level {level!r}, ridge {design.ridge!r}, grid of shape {candidates.shape}",
                "a level in per cent or an empty grid",
                "write level=0.9, DesignLaw(domain, strength, ridge=1.0), grid=np.linspace(low, high, 200)",
            )
        )
    return np.vstack([x, point]), y, np.sort(candidates)
