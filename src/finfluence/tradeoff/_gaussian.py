"""The Gaussian family: one signed number says how far apart the two laws are, and in which direction."""

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import LossMoments, TradeOff, as_level, as_order, plain
from finfluence.tradeoff._extremes import Perfect
from finfluence.tradeoff._piecewise import compose

_FAR = 8.3  # standard deviations; beyond lies less than 1e-16


@final
@dataclass(frozen=True)
class Gaussian(TradeOff):
    r"""Signed one-sided Gaussian curve: tests that reject large values, P = N(0,1) against Q = N(mu,1).

    .. math:: G_\mu(\alpha) = \Phi(\Phi^{-1}(1-\alpha) - \mu)

    Parameters
    ----------
    mu : float
        Effect over spread, without unit. Positive: the statistic is larger without the rows.

    Notes
    -----
    Calling the curve and `auc` keep the sign: with mu < 0 the one-sided curve lies above 1 - alpha, because
    a test that looks at the wrong tail is worse than chance. The best test looks at the right tail, so
    `power`, `total_variation`, `bayes_error`, `kl`, `delta` and `@` belong to :math:`G_{|\mu|}`, which
    `optimal` returns.

    References
    ----------
    f-influence, arXiv 2510.10510, definition 2.5. Dong, Roth and Su (2022), section 2.2.

    Examples
    --------
    >>> round(Gaussian(1.0)(0.05), 6), round(Gaussian(-1.0)(0.05), 6)
    (0.740489, 0.995914)
    >>> round(Gaussian(2.0).power(0.05), 6)
    0.63876
    >>> Gaussian(0.3) @ Gaussian(-0.4)
    Gaussian(mu=0.5)
    """

    mu: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "mu", float(self.mu))
        if not math.isfinite(self.mu):
            raise ConfigError(
                explain(
                    "a finite mu",
                    f"{self.mu}",
                    "a spread of zero, or samples that do not overlap",
                    "use Blatant() for two laws that never overlap; drop rows whose mu is NaN",
                )
            )

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate at false-alarm rate `alpha` of the one-sided test, sign kept."""
        return plain(ndtr(-ndtri(as_level(alpha)) - self.mu))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return compose((self, other)) if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> TradeOff:
        return compose((self,), (count,))

    @property
    def bound(self) -> Literal["exact"]:
        """Always exact."""
        return "exact"

    @property
    def optimal(self) -> "Gaussian":
        r"""The unsigned curve :math:`G_{|\mu|}`."""
        return Gaussian(abs(self.mu))

    def inverse(self) -> "Gaussian":
        """Return the curve itself: the Gaussian curve is its own inverse."""
        return self

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\Phi(|\mu| - \Phi^{-1}(1-\alpha))`: chance to notice the removal in one model."""
        return plain(ndtr(abs(self.mu) + ndtri(as_level(alpha))))

    @property
    def auc(self) -> float:
        r""":math:`\Phi(\mu/\sqrt2)`, sign kept: below one half for negative mu."""
        return float(ndtr(self.mu / math.sqrt(2.0)))

    @property
    def total_variation(self) -> float:
        r""":math:`2\Phi(|\mu|/2) - 1`."""
        return math.erf(abs(self.mu) / math.sqrt(8.0))

    @property
    def kl(self) -> float:
        r""":math:`\mu^2/2`."""
        return self.mu**2 / 2.0

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\Phi(m/2-\varepsilon/m) - e^\varepsilon\Phi(-m/2-\varepsilon/m)`, m = abs(mu)."""
        eps, mu = np.asarray(epsilon, dtype=np.float64), abs(self.mu)
        if mu == 0.0:
            return Perfect().delta(eps)
        with np.errstate(over="ignore"):
            ratio = eps / mu
            far = np.exp(eps + log_ndtr(-ratio - mu / 2.0))  # at most the other term: eps cannot overflow it
        return plain(np.maximum(ndtr(-ratio + mu / 2.0) - far, 0.0))

    def renyi(self, order: float) -> float:
        r"""Return :math:`a\mu^2/2` for order a."""
        return as_order(order) * self.kl

    def loss_moments(self) -> LossMoments:
        r"""Return the moments of the normal law of mean :math:`-\mu^2/2` and deviation abs(mu)."""
        m, s = self.kl, abs(self.mu)
        if s == 0.0:
            return LossMoments(0.0, 0.0, 0.0, 0.0)
        density = math.sqrt(2.0 / math.pi) * math.exp(-(m**2) / (2.0 * s**2))
        third = (m**3 + 3.0 * m * s**2) * math.erf(m / (s * math.sqrt(2.0))) + s * density * (
            m**2 + 2.0 * s**2
        )
        return LossMoments(m, s**2 + m**2, third, 2.0 * math.sqrt(2.0 / math.pi) * s**3)

    @property
    def atoms(self) -> tuple[np.ndarray, np.ndarray] | None:
        """None but for mu = 0, where one point is enough."""
        return Perfect().atoms if self.mu == 0.0 else None

    def edges(self, cells: int) -> np.ndarray:
        """Return log ratios at evenly spaced values of the statistic."""
        mu = abs(self.mu)
        x = np.linspace(-_FAR, mu + _FAR, max(cells, 2))
        return mu * x - mu**2 / 2.0 if mu else Perfect().edges(cells)

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return normal probabilities between consecutive edges, tails first and last."""
        mu = abs(self.mu)
        if mu == 0.0:
            return Perfect().masses(edges)
        x = edges / mu + mu / 2.0
        return _between(x), _between(x - mu)

    def _closed(self, other: TradeOff, count: int) -> "Gaussian | None":
        if not isinstance(other, Gaussian):
            return None
        return Gaussian(math.hypot(self.mu, math.sqrt(count) * other.mu))


def _between(x: np.ndarray) -> np.ndarray:
    """Return the standard normal mass between consecutive points, from the nearer tail."""
    ends = np.concatenate(([-np.inf], x, [np.inf]))
    low, high = ends[:-1], ends[1:]
    flip = low > 0.0
    return ndtr(np.where(flip, -low, high)) - ndtr(np.where(flip, -high, low))
