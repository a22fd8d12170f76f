"""The law of rows that change nothing, learned from one half of the bulk."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

_NORMAL_MAD = 0.6744897501960817
# Shape of the tail before any data: that of a t law with 3 degrees of freedom, give or take a normal tail.
_SHAPE, _SHAPE_SPREAD = 1.0 / 3.0, 0.15
_LEAST_COUNT = 0.2


@dataclass(frozen=True)
class NullTail:
    """How many rows of the null lie beyond a deviation, counted on the side where none is sought."""

    centre: float
    scale: float
    share: float
    deviations: np.ndarray  # sorted, of the rows on the other side
    start: float  # beyond it the Pareto tail continues the count
    beyond: int  # rows of the other side above `start`
    shape: float
    width: float

    def expected(self, deviation: np.ndarray) -> np.ndarray:
        """Return the expected number of null rows at least `deviation` above the centre."""
        counted = self.deviations.size - np.searchsorted(self.deviations, deviation, side="left") + 1.0
        excess = np.maximum(deviation - self.start, 0.0) / self.width
        base = np.maximum(1.0 + self.shape * excess, np.finfo(float).tiny)
        tail = (
            np.exp(-excess) if abs(self.shape) < 1e-8 else np.exp(-np.log(base) / self.shape)
        ) * self.beyond
        # With a negative shape the fitted law ends: nothing is expected beyond its end.
        tail = np.where(1.0 + self.shape * excess > 0.0, tail, 0.0)
        return np.where(deviation > self.start, np.minimum(np.maximum(tail, _LEAST_COUNT), counted), counted)


def fit_null(z: np.ndarray) -> NullTail | None:
    """Fit the null of "large is interesting" from the lower half of `z`; None where it has no spread."""
    centre = centre_of(z)
    lower = np.sort(centre - z[z <= centre])
    scale = float(np.median(lower)) / _NORMAL_MAD
    if not scale > 0.0:
        return None
    n_tail = int(np.clip(max(0.2 * lower.size, 15), 1, max(15, 2 * np.sqrt(lower.size))))
    n_tail = min(n_tail, lower.size - 1)
    start = float(lower[-n_tail - 1])
    shape, width = _pareto(lower[-n_tail:] - start, floor=1e-3 * scale)
    share = min(1.0, 2.0 * lower.size / z.size)
    return NullTail(centre, scale, share, lower, start, n_tail, shape, width)


def centre_of(z: np.ndarray) -> float:
    """Return the centre of the bulk: the mean of the rows within 1.5 median deviations, iterated."""
    centre = float(np.median(z))
    for _ in range(20):
        deviation = np.abs(z - centre)
        before, centre = centre, float(z[deviation <= 1.5 * np.median(deviation)].mean())
        if centre == before:
            break
    return centre


def _pareto(excess: np.ndarray, floor: float) -> tuple[float, float]:
    """Return shape and width of the generalised Pareto law of largest posterior density."""
    if excess.max() <= floor:
        return _SHAPE, floor
    start = np.array([_SHAPE, np.log(max(float(excess.mean()), floor))])

    def loss(point: np.ndarray) -> float:
        shape, width = point[0], max(np.exp(point[1]), np.finfo(float).tiny)
        base = 1.0 + shape * excess / width
        if base.min() <= 0.0:
            return 1e10
        log_tail = (excess / width).sum() if abs(shape) < 1e-8 else (1.0 + 1.0 / shape) * np.log(base).sum()
        return excess.size * point[1] + log_tail + 0.5 * ((shape - _SHAPE) / _SHAPE_SPREAD) ** 2

    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4}).x
    return float(best[0]), max(float(np.exp(best[1])), floor)
