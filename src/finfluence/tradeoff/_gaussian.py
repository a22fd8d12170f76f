"""The Gaussian family: one signed number says how far apart the two laws are, and in which direction."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import TradeOff, as_level, plain


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
        if isinstance(other, Gaussian):
            return Gaussian(math.hypot(self.mu, other.mu))
        return NotImplemented

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


@final
@dataclass(frozen=True)
class Perfect(TradeOff):
    r"""Two equal laws: no test beats chance, :math:`f(\alpha) = 1 - \alpha`. The unit of `@`.

    Examples
    --------
    >>> Perfect()(0.05), Perfect() @ Gaussian(1.5)
    (0.95, Gaussian(mu=1.5))
    """

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - alpha."""
        return plain(1.0 - as_level(alpha))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return other.optimal if isinstance(other, TradeOff) else NotImplemented

    @property
    def optimal(self) -> "Perfect":
        """The curve itself."""
        return self

    def inverse(self) -> "Perfect":
        """Return the curve itself."""
        return self

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return alpha: any test notices the removal as often as it raises a false alarm."""
        return plain(as_level(alpha))

    @property
    def auc(self) -> float:
        """One half."""
        return 0.5

    @property
    def total_variation(self) -> float:
        """Zero."""
        return 0.0

    @property
    def kl(self) -> float:
        """Zero."""
        return 0.0

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\max(0, 1 - e^{\varepsilon})`."""
        return plain(np.maximum(-np.expm1(np.minimum(np.asarray(epsilon, dtype=np.float64), 0.0)), 0.0))


@final
@dataclass(frozen=True)
class Blatant(TradeOff):
    r"""Two laws that never overlap, the larger values without the rows: :math:`f = 0`. Absorbs under `@`.

    Examples
    --------
    >>> Blatant()(0.05), Blatant() @ Gaussian(1.5)
    (0.0, Blatant())
    """

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 0."""
        return plain(np.zeros_like(as_level(alpha)))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return self if isinstance(other, TradeOff) else NotImplemented

    @property
    def optimal(self) -> "Blatant":
        """The curve itself."""
        return self

    def inverse(self) -> "Blatant":
        """Return the curve itself."""
        return self

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1."""
        return plain(np.ones_like(as_level(alpha)))

    @property
    def auc(self) -> float:
        """One."""
        return 1.0

    @property
    def total_variation(self) -> float:
        """One."""
        return 1.0

    @property
    def kl(self) -> float:
        """Infinity."""
        return math.inf

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        """Return 1."""
        return plain(np.ones_like(np.asarray(epsilon, dtype=np.float64)))
