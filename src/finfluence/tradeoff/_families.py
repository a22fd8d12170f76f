"""Two families from differential privacy: the (epsilon, delta) curve and the Laplace curve."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import LossMoments, Symmetric, TradeOff, as_level, as_order, plain
from finfluence.tradeoff._masses import divergence, moments
from finfluence.tradeoff._piecewise import compose


@final
@dataclass(frozen=True)
class EpsilonDelta(Symmetric):
    r"""The lowest curve that an (epsilon, delta) guarantee allows, in both directions.

    .. math:: f(\alpha) = \max\{0,\ 1-\delta-e^{\varepsilon}\alpha,\ e^{-\varepsilon}(1-\delta-\alpha)\}

    Parameters
    ----------
    eps : float
        Largest log-likelihood ratio, 0 or more.
    slack : float
        The delta: probability of an event that tells the laws apart for certain, between 0 and 1.

    References
    ----------
    Dong, Roth and Su (2022), proposition 2.5.

    Examples
    --------
    >>> f = EpsilonDelta(1.0, 0.05)
    >>> round(f(0.05), 6), round(f.delta(1.0), 6), round(f.epsilon(0.05), 6)
    (0.814086, 0.05, 1.0)
    >>> (EpsilonDelta(0.5) ** 2).bound
    'exact'
    """

    eps: float
    slack: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", float(self.eps))
        object.__setattr__(self, "slack", float(as_level(self.slack, "slack")))
        if not 0.0 <= self.eps < math.inf:
            raise ConfigError(
                explain(
                    "a finite eps, 0 or more",
                    f"{self.eps}",
                    "a log ratio of the wrong sign, or no guarantee at all",
                    "use Blatant() where there is no guarantee",
                )
            )

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate at false-alarm rate `alpha`."""
        level = as_level(alpha)
        left = 1.0 - self.slack - math.exp(min(self.eps, 700.0)) * level
        right = math.exp(-self.eps) * (1.0 - self.slack - level)
        return plain(np.maximum(np.maximum(left, right), 0.0))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return compose((self, other)) if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> TradeOff:
        return compose((self,), (count,))

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - f(alpha)."""
        return plain(1.0 - np.asarray(self(alpha)))

    @property
    def auc(self) -> float:
        r""":math:`1 - (1-\delta)^2/(1+e^\varepsilon)`."""
        return 1.0 - (1.0 - self.slack) * float(self.atoms[0][1])

    @property
    def total_variation(self) -> float:
        r""":math:`\delta + (1-\delta)\tanh(\varepsilon/2)`."""
        return self.slack + (1.0 - self.slack) * math.tanh(self.eps / 2.0)

    @property
    def kl(self) -> float:
        r""":math:`\varepsilon\tanh(\varepsilon/2)`, infinite for any delta."""
        return divergence(*self.atoms, 1.0)

    def renyi(self, order: float) -> float:
        """Return the sum over the atoms."""
        return divergence(*self.atoms, as_order(order))

    def loss_moments(self) -> LossMoments:
        """Return the sums over the atoms."""
        return LossMoments(*moments(*self.atoms))

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\sup_A Q(A) - e^\varepsilon P(A)`: `slack` from `eps` on."""
        eps = np.asarray(epsilon, dtype=np.float64)
        p, q = self.atoms
        middle = np.where(eps < self.eps, q[1] - np.exp(np.minimum(eps, self.eps)) * p[1], 0.0)
        last = np.where(eps < -self.eps, q[2] - np.exp(np.minimum(eps, -self.eps)) * p[2], 0.0)
        return plain(self.slack + np.maximum(middle, 0.0) + np.maximum(last, 0.0))

    @property
    def atoms(self) -> tuple[np.ndarray, np.ndarray]:
        """P and Q probabilities at log ratios inf, eps, -eps, -inf."""
        high = (1.0 - self.slack) / (1.0 + math.exp(-self.eps))
        low = high * math.exp(-self.eps)
        return np.array([0.0, low, high, self.slack]), np.array([self.slack, high, low, 0.0])

    def edges(self, cells: int) -> np.ndarray:
        """Return log ratios from -eps to eps."""
        return np.linspace(-self.eps - 1e-9, self.eps + 1e-9, max(cells, 2))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the P and Q mass of log(q/p) between consecutive edges, tails first and last."""
        p, q = self.atoms
        cell = np.searchsorted(edges, [np.inf, self.eps, -self.eps, -np.inf], side="right")
        return np.bincount(cell, p, edges.size + 1), np.bincount(cell, q, edges.size + 1)

    def _closed(self, other: TradeOff, count: int) -> None:
        return None


@final
@dataclass(frozen=True)
class Laplace(Symmetric):
    r"""Two Laplace laws of unit scale, `mu` apart.

    .. math:: f(\alpha) = F(F^{-1}(1-\alpha) - \mu), \quad F \text{ the Laplace distribution function}

    Parameters
    ----------
    mu : float
        Distance over scale, 0 or more, without unit; also the largest log-likelihood ratio.

    References
    ----------
    Dong, Roth and Su (2022), section 2.

    Examples
    --------
    >>> f = Laplace(1.0)
    >>> round(f(0.05), 6), round(f.delta(0.5), 6), round(f.total_variation, 6)
    (0.864086, 0.221199, 0.393469)
    """

    mu: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "mu", float(self.mu))
        if not 0.0 <= self.mu < math.inf:
            raise ConfigError(
                explain(
                    "a finite mu, 0 or more",
                    f"{self.mu}",
                    "a signed effect: only the Gaussian family carries a sign",
                    "pass abs(mu), or use Gaussian(mu)",
                )
            )

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate at false-alarm rate `alpha`."""
        level, decay = as_level(alpha), math.exp(-self.mu)
        with np.errstate(divide="ignore", over="ignore"):
            middle = decay / (4.0 * np.where(level > 0.0, level, 1.0))
            left = 1.0 - level / decay if decay > 0.0 else np.zeros_like(level)
        low = np.where(level <= decay / 2.0, left, middle)
        return plain(np.where(level >= 0.5, decay * (1.0 - level), low))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return compose((self, other)) if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> TradeOff:
        return compose((self,), (count,))

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - f(alpha)."""
        return plain(1.0 - np.asarray(self(alpha)))

    @property
    def auc(self) -> float:
        r""":math:`1 - e^{-\mu}(1/2 + \mu/4)`."""
        return 1.0 - math.exp(-self.mu) * (0.5 + self.mu / 4.0)

    @property
    def total_variation(self) -> float:
        r""":math:`1 - e^{-\mu/2}`."""
        return -math.expm1(-self.mu / 2.0)

    @property
    def kl(self) -> float:
        r""":math:`\mu - 1 + e^{-\mu}`."""
        return self.mu + math.expm1(-self.mu)

    def renyi(self, order: float) -> float:
        r"""Return :math:`\frac{1}{a-1}\log(\frac{a}{2a-1}e^{(a-1)\mu} + \frac{a-1}{2a-1}e^{-a\mu})` for order a."""
        a = as_order(order)
        if a == 1.0:
            return self.kl
        if a == 0.5:
            return -2.0 * math.log((1.0 + self.mu / 2.0) * math.exp(-self.mu / 2.0))
        terms = [
            math.log(a / abs(2 * a - 1)) + (a - 1) * self.mu,
            math.log(abs((a - 1) / (2 * a - 1))) - a * self.mu,
        ]
        signs = [math.copysign(1.0, 2 * a - 1), math.copysign(1.0, (a - 1) / (2 * a - 1))]
        top = max(terms)
        total = sum(sign * math.exp(term - top) for sign, term in zip(signs, terms, strict=True))
        return (top + math.log(total)) / (a - 1.0)

    def loss_moments(self) -> LossMoments:
        r"""Return the moments of a log ratio that is :math:`-\mu` half of the time; integrals to 1e-12."""
        kl, mu = self.kl, self.mu

        def mean(value: Callable[[float], float]) -> float:
            inner, _ = quad(
                lambda x: value(2.0 * x - mu) * math.exp(-x) / 2.0, 0.0, mu, points=[mu / 2.0], epsabs=1e-13
            )
            return value(-mu) / 2.0 + inner + value(mu) * math.exp(-mu) / 2.0

        return LossMoments(
            kl,
            mean(lambda loss: loss**2),
            mean(lambda loss: abs(loss) ** 3),
            mean(lambda loss: abs(loss + kl) ** 3),
        )

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`1 - e^{(\varepsilon-\mu)/2}` for abs(epsilon) at most mu."""
        eps = np.asarray(epsilon, dtype=np.float64)
        inner = -np.expm1((np.minimum(eps, self.mu) - self.mu) / 2.0)
        return plain(np.where(eps < -self.mu, -np.expm1(np.minimum(eps, 0.0)), inner))

    @property
    def atoms(self) -> tuple[np.ndarray, np.ndarray] | None:
        """None but for mu = 0, where one point is enough."""
        return (np.ones(1), np.ones(1)) if self.mu == 0.0 else None

    def edges(self, cells: int) -> np.ndarray:
        """Return evenly spaced log ratios from -mu to mu."""
        return np.linspace(-self.mu - 1e-9, self.mu + 1e-9, max(cells, 2))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the P and Q mass of log(q/p) between consecutive edges, tails first and last."""
        mu, inner = self.mu, np.clip(edges, -self.mu, self.mu)
        p = np.where(edges <= -mu, 1.0, np.where(edges > mu, 0.0, np.exp(-(inner + mu) / 2.0) / 2.0))
        q = np.where(edges <= -mu, 0.0, np.where(edges > mu, 1.0, np.exp(-(mu - inner) / 2.0) / 2.0))
        return -np.diff(p, prepend=1.0, append=0.0), np.diff(q, prepend=0.0, append=1.0)

    def _closed(self, other: TradeOff, count: int) -> None:
        return None
