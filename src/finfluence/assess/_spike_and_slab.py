"""The posterior of many effects from two measurements of each, over all laws of effects that fit the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

FITTED = 2_000
_SHARES = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98])
_SCALES, _SMALLEST = 14, 0.05
_NOISE = np.geomspace(0.1, 10.0, 8)
_SLOPES, _SLOPE_SD = np.exp(np.linspace(-1.2, 1.2, 9)), 0.4
_MIDDLES = (np.arange(6) + 0.5) / 6
_SHAPES = (np.ones(1), 1.5 / stats.gamma(1.5).ppf(_MIDDLES))
_NEGLIGIBLE, _EXACT = 1e-4, 1e-9


@dataclass(frozen=True, eq=False)
class EffectLaws:
    """Posterior of each effect: an atom at zero, and a normal law beside it.

    Attributes
    ----------
    at_zero, mean, sd : array [n]
        Chance that the effect is zero; mean and standard deviation of the effect if it is not.
    slope : float
        Posterior mean of true on predicted effects; NaN without predictions.
    slope_at_edge : bool
        Whether the slope lies at the end of what was allowed (a third to three).
    """

    at_zero: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    slope: float
    slope_at_edge: bool

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return the chance that each effect is at most x [n]."""
        found: np.ndarray = self.at_zero * (x >= 0) + (1 - self.at_zero) * stats.norm.cdf(
            (x - self.mean) / self.sd
        )
        return found

    def quantile(self, p: float) -> np.ndarray:
        """Return the p-quantile of each effect [n]: the smallest x with a chance of at least p below or at it."""
        low, high = np.minimum(self.mean - 9 * self.sd, 0), np.maximum(self.mean + 9 * self.sd, 0)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.cdf(middle) >= p
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        below_zero = (1 - self.at_zero) * stats.norm.cdf(-self.mean / self.sd)
        atom = (below_zero < p) & (p <= below_zero + self.at_zero)
        found: np.ndarray = np.where(atom, 0.0, high)
        return found


@dataclass(frozen=True, eq=False)
class _World:
    """One law of effects: scale and shape of the slab, noise and slope of the prediction."""

    variances: np.ndarray
    noise: float
    slope: float
    prior: float


def effect_laws(difference: np.ndarray, se: np.ndarray, predicted: np.ndarray | None) -> EffectLaws:
    r"""Return the posterior of each effect, averaged over every law of effects.

    .. math:: \tau_i \sim (1-w)\,\delta_0 + w\,\sigma\,\{N(0,1)\ \text{or}\ t_3\}, \qquad
              \hat\tau_i \sim N(\tau_i, s_i^2), \qquad c\,a_i \sim N(\tau_i, (r\sigma)^2)

    w, σ, shape, r and c are not chosen but integrated over a grid (w from .02 to .98, σ and r uniform in their
    logarithm, log c ~ N(0, 0.4²)), weighted by how well they explain all rows; the sum over the worlds is written as
    an atom and one normal a row.

    Returns
    -------
    EffectLaws
    """
    largest = np.abs(difference).max()
    if largest == 0:
        nothing = np.zeros(len(se))
        return EffectLaws(nothing + 1, nothing, nothing + 1, float("nan"), False)
    se = np.maximum(se, _EXACT * largest)
    rows = np.arange(len(se))
    if len(rows) > FITTED:
        rows = rows[np.linspace(0, len(rows) - 1, FITTED).round().astype(int)]
    part = (difference[rows], se[rows], None if predicted is None else predicted[rows])
    worlds = list(_worlds(difference, se, predicted is not None))
    fits = np.array([_evidence(*part, world) for world in worlds])
    weights = np.exp(fits - fits.max())
    weights /= weights.sum()
    at_zero, first, second = (np.zeros(len(se)) for _ in range(3))
    for world, by_share in zip(worlds, weights, strict=True):
        kept = by_share > _NEGLIGIBLE * weights.max()
        if not kept.any():
            continue
        spike, slab, mean, square = _parts(difference, se, predicted, world)
        for share, weight in zip(_SHARES[kept], by_share[kept], strict=True):
            there = share * slab / (share * slab + (1 - share) * spike)
            at_zero += weight * (1 - there)
            first += weight * there * mean
            second += weight * there * square
    total = weights[weights > _NEGLIGIBLE * weights.max()].sum()
    at_zero, first, second = at_zero / total, first / total, second / total
    slab_share = np.maximum(1 - at_zero, 1e-300)
    mean = first / slab_share
    sd = np.sqrt(np.maximum(second / slab_share - mean**2, 1e-300))
    if predicted is None:
        return EffectLaws(at_zero, mean, sd, float("nan"), False)
    by_slope = np.array(
        [[weights[k].sum() for k, w in enumerate(worlds) if w.slope == c] for c in _SLOPES]
    ).sum(1)
    return EffectLaws(at_zero, mean, sd, float(by_slope @ _SLOPES), bool(by_slope[0] + by_slope[-1] > 0.5))


def _worlds(difference: np.ndarray, se: np.ndarray, predicted: bool) -> Iterator[_World]:
    typical = float(np.median(se))
    largest = max(float(np.abs(difference).max()), 2 * _SMALLEST * typical)
    scales = np.geomspace(_SMALLEST * typical, largest, _SCALES)
    measured = list(product(_NOISE, _SLOPES)) if predicted else [(np.inf, 1.0)]
    for scale, shape, (noise, slope) in product(scales, _SHAPES, measured):
        yield _World(scale**2 * shape, noise * scale, slope, -0.5 * (np.log(slope) / _SLOPE_SD) ** 2)


def _evidence(
    difference: np.ndarray, se: np.ndarray, predicted: np.ndarray | None, world: _World
) -> np.ndarray:
    """Return the logarithm of prior times likelihood of all rows for each share [shares]."""
    spike, slab, _, _ = _parts(difference, se, predicted, world, scaled=False)
    mixed = _SHARES[:, None] * slab + (1 - _SHARES[:, None]) * spike
    found: np.ndarray = np.log(np.maximum(mixed, 1e-300)).sum(1) + world.prior
    return found


def _parts(
    difference: np.ndarray,
    se: np.ndarray,
    predicted: np.ndarray | None,
    world: _World,
    *,
    scaled: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return densities of both measurements under spike and slab, and the effect's first two moments under the slab.

    Densities are relative to the larger of the two where `scaled`; then only their ratio means something.

    Returns
    -------
    tuple of array [n]
    """
    if predicted is None:
        middle, variance = difference, se**2
        apart = np.zeros(len(se))
    else:
        guess, noise = world.slope * predicted, world.noise**2
        variance = 1 / (1 / se**2 + 1 / noise)
        middle = variance * (difference / se**2 + guess / noise)
        apart = _log_normal(difference - guess, se**2 + noise) + np.log(world.slope)
    spike = apart + _log_normal(middle, variance)
    total = variance[:, None] + world.variances
    each = apart[:, None] + _log_normal(middle[:, None], total) - np.log(len(world.variances))
    top = np.maximum(spike, each.max(1)) if scaled else np.zeros(len(se))
    density = np.exp(each - top[:, None])
    slab = density.sum(1)
    belongs = density / np.maximum(slab, 1e-300)[:, None]
    kept = world.variances / total
    means = kept * middle[:, None]
    mean = (belongs * means).sum(1)
    square = (belongs * (means**2 + kept * variance[:, None])).sum(1)
    return np.exp(spike - top), slab, mean, square


def _log_normal(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    found: np.ndarray = -0.5 * (np.log(2 * np.pi * variance) + x**2 / variance)
    return found
