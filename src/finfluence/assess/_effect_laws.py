"""The posterior of many effects from two measurements of each, over all laws of effects that fit the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

FITTED, _GLIMPSED = 1_000, 128
_HOPELESS = 20.0
_SHARES = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98])
_SCALES, _SMALLEST = 14, 0.05
_OTHERS = (0.0, 0.05, 0.2)
_NOISE = np.geomspace(0.1, 10.0, 6)
_SLOPES, _SLOPE_SD = np.exp(np.linspace(-1.2, 1.2, 9)), 0.4
_NEGLIGIBLE, _EXACT = 1e-4, 1e-9


def _t_as_normals(df: float, count: int) -> np.ndarray:
    """Return variances of equally likely normal laws that together are a t law with `df` degrees of freedom."""
    return np.asarray(0.5 * df / stats.gamma(0.5 * df).ppf((np.arange(count) + 0.5) / count))


_SHAPES = (
    (np.zeros(1), np.ones(1)),
    (np.zeros(6), _t_as_normals(3, 6)),
    (np.zeros(10), _t_as_normals(1, 10)),
    (np.array([-1.0, 1.0, -1.0, 1.0]), np.array([0.1, 0.1, 0.3, 0.3]) ** 2),
)
"""Centres and variances of the equally likely normal laws that make up a law of effects, in units of its scale."""


@dataclass(frozen=True, eq=False)
class EffectLaws:
    """Posterior of each effect: an atom at zero, and some normal laws beside it.

    Attributes
    ----------
    at_zero : array [n]
        Chance that the effect is zero.
    share, mean, sd : array [parts, n]
        Chance, mean and standard deviation of the normal laws; their chances and `at_zero` sum to one.
    slope : float
        Posterior mean of true on predicted effects; NaN without predictions.
    slope_at_edge : bool
        Whether the slope lies at the end of what was allowed (a third to three).
    """

    at_zero: np.ndarray
    share: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    slope: float
    slope_at_edge: bool

    @property
    def effect(self) -> np.ndarray:
        """Mean of each effect [n]."""
        return np.asarray((self.share * self.mean).sum(0))

    @property
    def effect_sd(self) -> np.ndarray:
        """Standard deviation of each effect [n]."""
        square = (self.share * (self.mean**2 + self.sd**2)).sum(0)
        return np.sqrt(np.maximum(square - self.effect**2, 0.0))

    @property
    def sign_error(self) -> np.ndarray:
        """Chance that each effect is zero or of the other sign than its mean [n]."""
        below = (self.share * stats.norm.cdf(-self.mean / self.sd)).sum(0)
        return np.asarray(self.at_zero + np.where(self.effect > 0, below, 1 - self.at_zero - below))

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return the chance that each effect is at most x [n]."""
        return np.asarray(
            self.at_zero * (x >= 0) + (self.share * stats.norm.cdf((x - self.mean) / self.sd)).sum(0)
        )

    def widened(self, se: np.ndarray) -> "EffectLaws":
        """Return the laws of new, unbiased measurements of the effects with these standard errors [n]."""
        share = np.vstack([self.at_zero, self.share])
        mean = np.vstack([np.zeros_like(self.at_zero), self.mean])
        sd = np.sqrt(np.vstack([np.zeros_like(self.at_zero), self.sd]) ** 2 + se**2)
        return EffectLaws(np.zeros_like(self.at_zero), share, mean, sd, self.slope, self.slope_at_edge)

    def quantile(self, p: float) -> np.ndarray:
        """Return the p-quantile of each effect [n]: the smallest x with a chance of at least p below or at it."""
        low = np.minimum((self.mean - 9 * self.sd).min(0), 0)
        high = np.maximum((self.mean + 9 * self.sd).max(0), 0)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.cdf(middle) >= p
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        below_zero = (self.share * stats.norm.cdf(-self.mean / self.sd)).sum(0)
        atom = (below_zero < p) & (p <= below_zero + self.at_zero)
        return np.where(atom, 0.0, high)


@dataclass(frozen=True, eq=False)
class _Worlds:
    """Laws of effects that share the effects' own law: its scale and shape, and what the other rows have.

    Attributes
    ----------
    centre, larger : array [k]
        Means and variances of equally likely normal laws that make up the law of the effects.
    other : float
        Variance of the other rows' effects; 0: none.
    noise, slope, prior : array [m]
        Standard deviation of the prediction's noise, its slope, and the logarithm of its chance.
    """

    centre: np.ndarray
    larger: np.ndarray
    other: float
    noise: np.ndarray
    slope: np.ndarray
    prior: np.ndarray


def effect_laws(difference: np.ndarray, se: np.ndarray, predicted: np.ndarray | None) -> EffectLaws:
    r"""Return the posterior of each effect, averaged over every law of effects.

    .. math:: \tau_i \sim (1-w)\,\rho\sigma\,N(0,1) + w\,\sigma\,\{N(0,1),\ t_3,\ t_1\ \text{or}\ \pm 1\}, \qquad
              \hat\tau_i \sim N(\tau_i, s_i^2), \qquad c\,a_i \sim N(\tau_i, (r\sigma)^2)

    ±1 stands for two clusters of a width of .1 or .3. w, σ, shape, ρ, r and c are not chosen but integrated over a grid
    (w from .02 to .98; ρ 0, .05 or .2; σ and r uniform in their logarithm, log c ~ N(0, 0.4²)), weighted by how well
    they explain all rows; the sum over the worlds is written as an atom and four normal laws a row.

    Returns
    -------
    EffectLaws
    """
    n = len(se)
    largest = np.abs(difference).max()
    if largest == 0:
        nothing = np.zeros((1, n))
        return EffectLaws(np.ones(n), nothing, nothing, nothing + 1, float("nan"), False)
    se = np.maximum(se, _EXACT * largest)

    def part(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        rows = np.linspace(0, n - 1, min(n, count)).round().astype(int)
        return difference[rows], se[rows], None if predicted is None else predicted[rows]

    every = list(_worlds(difference, se, predicted is not None))
    glimpse = np.array([_evidence(*part(_GLIMPSED), world, coarse=True).max() for world in every])
    worlds = [world for world, fit in zip(every, glimpse, strict=True) if fit > glimpse.max() - _HOPELESS]
    fits = np.array([_evidence(*part(FITTED), world) for world in worlds])  # worlds × m × shares
    weights = np.exp(fits - fits.max())
    weights[weights < _NEGLIGIBLE * weights.max()] = 0.0
    weights /= weights.sum()
    shares, first, second = (np.zeros((4, n)) for _ in range(3))
    at_zero = np.zeros(n)
    for world, by_measured in zip(worlds, weights, strict=True):
        side = np.append(0, 2 + np.sign(world.centre).astype(int))  # others, then below, around, above zero
        for m in np.flatnonzero(by_measured.sum(1)):
            log_density, mean, variance = _parts(difference, se, predicted, world, slice(m, m + 1))
            for share, weight in zip(_SHARES, by_measured[m], strict=True):
                if weight == 0:
                    continue
                chance = _chances(log_density[0], share) * weight
                if world.other == 0:
                    at_zero += chance[:, 0]
                    chance[:, 0] = 0.0
                for total, values in (
                    (shares, chance),
                    (first, chance * mean[0]),
                    (second, chance * (mean[0] ** 2 + variance[0])),
                ):
                    np.add.at(total, side, values.T)
    there = np.maximum(shares, 1e-300)
    means = first / there
    sd = np.sqrt(np.maximum(second / there - means**2, (_EXACT * largest) ** 2))
    if predicted is None:
        return EffectLaws(at_zero, shares, means, sd, float("nan"), False)
    by_slope = np.zeros(len(_SLOPES))
    np.add.at(by_slope, np.tile(np.arange(len(_SLOPES)), len(_NOISE)), weights.sum((0, 2)))
    at_edge = bool(by_slope[0] + by_slope[-1] > 0.5)
    return EffectLaws(at_zero, shares, means, sd, float(by_slope @ _SLOPES), at_edge)


def _worlds(difference: np.ndarray, se: np.ndarray, predicted: bool) -> Iterator[_Worlds]:
    typical = float(np.median(se))
    largest = max(float(np.abs(difference).max()), 2 * _SMALLEST * typical)
    noise, slope = np.array([(np.inf, 1.0)]).T
    if predicted:
        noise, slope = np.array(list(product(_NOISE, _SLOPES))).T
    prior = -0.5 * (np.log(slope) / _SLOPE_SD) ** 2
    scales = np.geomspace(_SMALLEST * typical, largest, _SCALES)
    for scale, (centre, shape), other in product(scales, _SHAPES, _OTHERS):
        yield _Worlds(scale * centre, scale**2 * shape, (other * scale) ** 2, noise * scale, slope, prior)


def _evidence(
    difference: np.ndarray,
    se: np.ndarray,
    predicted: np.ndarray | None,
    world: _Worlds,
    *,
    coarse: bool = False,
) -> np.ndarray:
    """Return the logarithm of prior times likelihood of all rows [m, shares]; `coarse`: for every fifth m."""
    which = slice(None, None, 5 if coarse else 1)
    log_density, _, _ = _parts(difference, se, predicted, world, which)
    top = log_density.max(2)
    density = np.exp(log_density - top[..., None])
    other, larger = density[..., 0], density[..., 1:].mean(2)
    mixed = _SHARES[:, None] * larger[:, None] + (1 - _SHARES[:, None]) * other[:, None]
    return np.asarray(np.log(mixed).sum(2) + top.sum(1)[:, None] + world.prior[which, None])


def _chances(log_density: np.ndarray, share: float) -> np.ndarray:
    """Return the chance of each part, the other rows' first [n, 1 + k]."""
    k = log_density.shape[1] - 1
    prior = np.append(1 - share, np.full(k, share / k))
    weighed = prior * np.exp(log_density - log_density.max(1, keepdims=True))
    return np.asarray(weighed / weighed.sum(1, keepdims=True))


def _parts(
    difference: np.ndarray,
    se: np.ndarray,
    predicted: np.ndarray | None,
    world: _Worlds,
    which: slice,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the log density of both measurements under each part, and the effect's mean and variance given it.

    Returns
    -------
    tuple of array [m, n, 1 + k]
    """
    if predicted is None:
        middle, variance, apart = difference[None], se[None] ** 2, np.zeros((1, 1))
    else:
        guess, noise = world.slope[which, None] * predicted, world.noise[which, None] ** 2
        variance = 1 / (1 / se**2 + 1 / noise)
        middle = variance * (difference / se**2 + guess / noise)
        apart = _log_normal(difference - guess, se**2 + noise) + np.log(world.slope[which, None])
    centre, own = np.append(0.0, world.centre), np.append(world.other, world.larger)
    off, total = middle[..., None] - centre, variance[..., None] + own
    kept = own / total
    return (
        apart[..., None] + _log_normal(off, total),
        centre + kept * off,
        kept * variance[..., None],
    )


def _log_normal(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(-0.5 * (np.log(2 * np.pi * variance) + x**2 / variance))
