"""Intervals for what was chosen by the model that predicts it: conformal under feedback covariate shift."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finfluence._indices import same_rows
from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats import check_level, numbers

_FREE = 1e4
"""Prior variance of a Gaussian process' constant: free, next to the kernel's 1."""


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
    length
        None: :math:`\hat\mu` is a ridge regression. A number: the mean of a Gaussian process with the kernel
        :math:`\exp(-|x-x'|^2 / 2\,\text{length}^2)` and a free constant; `ridge` is then its noise's variance over the
        kernel's.
    feedback
        Whether the labelled points made the fit that chose. False weighs every row by the fit to the labelled points
        alone (ordinary covariate shift), as if the choice had not depended on them.
    """

    domain: np.ndarray
    strength: float
    ridge: float = 1.0
    feedback: bool = True
    length: float | None = None

    def fit(self, points: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return the matrix [at, points] by which outcomes of the points become predictions elsewhere."""
        if self.length is None:
            x, z = _with_one(points), _with_one(at)
            penalty = self.ridge * np.eye(x.shape[1])
            penalty[0, 0] = 0.0
            return np.asarray(z @ np.linalg.pinv(x.T @ x + penalty) @ x.T)
        kernel = _FREE + self._kernel(points, points) + self.ridge * np.eye(len(points))
        return np.asarray(np.linalg.solve(kernel, (_FREE + self._kernel(at, points)).T).T)

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        apart = ((a[:, None] - b[None]) ** 2).sum(2)
        return np.asarray(np.exp(-0.5 * apart / (self.length or 1.0) ** 2))


@dataclass(frozen=True)
class FeedbackInterval:
    """Set of outcomes that cannot be ruled out for the chosen point.

    Attributes
    ----------
    values
        The grid values kept, ascending; the set may have gaps. Of `split_interval` its finite ends.
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
    r"""Return the full conformal set of a point that was chosen by a fit to the data given.

    For each candidate outcome y the point joins the data; with leave-one-out residuals as scores and

    .. math:: w_i(y) \propto \frac{\exp(\lambda\,\hat\mu_{-i,y}(x_i))}{\sum_{u}\exp(\lambda\,\hat\mu_{-i,y}(u))},

    y is kept if its own score is at most the weighted quantile of all scores. The fit without row i holds the
    candidate (feedback); predictions of a ridge regression and of a Gaussian process are affine in y, so one
    inverse a row serves all candidates. Of a choice by any other model: `split_interval`.

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
    same_rows(features=features, outcomes=outcomes)
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
    """Return what `feedback_interval` weighs: leave-one-out residuals and weights at each candidate outcome.

    Parameters
    ----------
    x, y
        All points [n + 1, k], the chosen one last, and the outcomes of the others [n].
    design
        How it was chosen.
    candidates
        Outcomes of the chosen point.

    Returns
    -------
    tuple of array [candidates, n + 1]
        Scores, and weights that sum to one.

    Examples
    --------
    >>> domain = np.array([[-1.0], [0.0], [1.0]])
    >>> scores, weights = scores_and_weights(domain, np.array([0.0, 1.0]), DesignLaw(domain, 0.0), np.array([2.0]))
    >>> weights.round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    domain, n = np.asarray(design.domain, dtype=np.float64), len(y)
    scores = np.empty((len(candidates), n + 1))
    logs = np.empty_like(scores)
    for i in range(n + 1):
        others, at = np.delete(np.arange(n + 1), i), np.vstack([x[i], domain])
        fit = design.fit(x[others], at)
        if i < n:
            said = (fit[:, :-1] @ y[others[:-1]])[None] + candidates[:, None] * fit[:, -1]
            truth: np.ndarray | float = y[i]
        else:
            said, truth = np.broadcast_to(fit @ y, (len(candidates), len(at))), candidates
        scores[:, i] = np.abs(truth - said[:, 0])
        steering = said if design.feedback else (design.fit(x[:n], at) @ y)[None]
        chances = design.strength * steering
        top = chances[:, 1:].max(1)
        logs[:, i] = chances[:, 0] - top - np.log(np.exp(chances[:, 1:] - top[:, None]).sum(1))
    weights = np.exp(logs - logs.max(1, keepdims=True))
    return scores, weights / weights.sum(1, keepdims=True)


def weighted_quantile(scores: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return the first sorted score at which the weights sum to `level`."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) >= level - 1e-12
    return float(scores[order[int(np.argmax(reached))]]) if reached.any() else np.inf


def split_interval(
    residuals: ArrayLike, weights: ArrayLike, predicted: float, weight: float, *, level: float = 0.9
) -> FeedbackInterval:
    r"""Return the interval of a point chosen by *any* model, from labelled points that the model has not seen.

    Half of the labelled points make the model, and the model chooses; the others calibrate. As the choice did not
    depend on them, their weights are fixed, :math:`w(x) = \tilde p(x) / p(x)`, and with the chosen point at infinity

    .. math:: \hat\mu(x) \pm Q_{\text{level}}\Big(\sum_i w_i\,\delta_{|y_i - \hat\mu(x_i)|} + w\,\delta_\infty\Big).

    Parameters
    ----------
    residuals
        Outcome minus prediction of the calibrating points [n].
    weights
        Their chance under the choice over their chance to be drawn, up to a factor in common [n].
    predicted
        What the model says of the chosen point.
    weight
        The same ratio for the chosen point.
    level
        Wanted coverage.

    Returns
    -------
    FeedbackInterval
        Infinite where the chosen point itself has a weight of more than 1 − level.

    Raises
    ------
    DataError
        If there is not one finite residual and one weight of at least 0 for each point, or no weight is above 0.

    References
    ----------
    Tibshirani, Foygel Barber, Candès and Ramdas, "Conformal prediction under covariate shift", NeurIPS 2019,
    corollary 1.

    Examples
    --------
    >>> split_interval([0.1, -0.2, 0.3, -0.4], [1, 1, 1, 1], 1.0, 1.0, level=0.8).upper
    1.4
    >>> split_interval([0.1, -0.2, 0.3, -0.4], [1, 1, 1, 1], 1.0, 5.0, level=0.8).upper
    inf
    """
    check_level(level)
    same_rows(residuals=residuals, weights=weights)
    r, w = numbers(residuals, "residuals"), numbers(weights, "weights")
    whole = np.append(w, weight)
    fits = r.ndim == 1 and r.shape == w.shape and len(r) > 0
    if not fits or not np.isfinite([*r, *whole, predicted]).all() or (whole < 0).any() or whole.sum() == 0:
        raise DataError(
            explain(
                "one finite residual and one weight of at least 0 for each calibrating point",
                f"residuals {r.shape}, weights {w.shape}, weight of the chosen point {weight!r}, prediction "
                f"{predicted!r}",
                "weights that overflowed, or points of another part",
                "subtract the largest exponent before exp: only ratios of weights matter",
            )
        )
    reach = weighted_quantile(np.append(np.abs(r), np.inf), whole / whole.sum(), level)
    ends = np.array([predicted - reach, predicted + reach])
    return FeedbackInterval(ends[np.isfinite(ends)], float(ends[0]), float(ends[1]), level)


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(x)), x])


def _checked(
    features: ArrayLike,
    outcomes: ArrayLike,
    chosen: ArrayLike,
    design: DesignLaw,
    grid: ArrayLike,
    level: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = numbers(features, "features"), numbers(outcomes, "outcomes")
    point, candidates = numbers(chosen, "the chosen point"), numbers(grid, "grid")
    domain = numbers(design.domain, "the domain")
    fits = (
        x.ndim == 2
        and y.shape == (len(x),)
        and point.shape == x.shape[1:]
        and domain.shape[1:] == x.shape[1:]
        and x.size > 0
        and domain.size > 0
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
    positive = [design.ridge, *([] if design.length is None else [design.length])]
    if (
        not 0.0 < level < 1.0
        or not all(0.0 < v < np.inf for v in positive)
        or not np.isfinite(design.strength)
        or candidates.ndim != 1
        or not len(candidates)
    ):
        raise ConfigError(
            explain(
                "level between 0 and 1, a finite strength, ridge and length above 0, a flat grid of candidates",
                f"level {level!r}, strength {design.strength!r}, ridge {design.ridge!r}, length {design.length!r}, "
                f"grid of shape {candidates.shape}",
                "a level in per cent or an empty grid",
                "write level=0.9, DesignLaw(domain, strength, ridge=1.0), grid=np.linspace(low, high, 200)",
            )
        )
    return np.vstack([x, point]), y, np.sort(candidates)
