"""What every trade-off function can say."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, explain


class TradeOff(ABC):
    r"""A trade-off curve: for each false-alarm rate the miss rate of a family of tests of P against Q.

    .. math:: f(\alpha) = \inf\{\beta_\phi : \alpha_\phi \le \alpha\}, \quad
              \alpha_\phi = E_P[\phi],\ \beta_\phi = 1 - E_Q[\phi]

    P is the law of the statistic *with* the rows, Q the law *without* them. Values are frozen. `f @ g` is
    the curve of observing both pairs independently; it composes the curves of the best tests (`optimal`).

    References
    ----------
    Dong, Roth and Su, "Gaussian differential privacy" (2022); f-influence, arXiv 2510.10510.
    """

    @abstractmethod
    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate at false-alarm rate `alpha`, elementwise."""

    @abstractmethod
    def __matmul__(self, other: "TradeOff") -> "TradeOff":
        """Return the composition of the two curves of best tests."""

    def __rmatmul__(self, other: "TradeOff") -> "TradeOff":
        return self.__matmul__(other)

    @property
    @abstractmethod
    def optimal(self) -> "TradeOff":
        """The curve of the best tests between the two laws: convex, non-increasing, at most 1 - alpha."""

    @abstractmethod
    def inverse(self) -> "TradeOff":
        """Return the function that maps a miss rate back to the false-alarm rate; for best tests, T(Q, P)."""

    @abstractmethod
    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - f(alpha) of the best test: the chance to notice the removal at that false-alarm rate."""

    @property
    @abstractmethod
    def auc(self) -> float:
        """Chance that the statistic is larger without the rows than with them (ties count one half)."""

    @property
    @abstractmethod
    def total_variation(self) -> float:
        """Largest difference in probability that P and Q give to one event."""

    @property
    def bayes_error(self) -> float:
        """Error rate of the best guess between P and Q when a fair coin chose."""
        return (1.0 - self.total_variation) / 2.0

    @property
    @abstractmethod
    def kl(self) -> float:
        """Kullback-Leibler divergence of Q from P, in nats."""

    @abstractmethod
    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\delta(\varepsilon) = \sup_A Q(A) - e^{\varepsilon} P(A)`, elementwise."""


def as_level(alpha: ArrayLike, name: str = "alpha") -> np.ndarray:
    """Return `alpha` as float64 after checking that it is a probability."""
    value = np.asarray(alpha, dtype=np.float64)
    if not np.all((value >= 0.0) & (value <= 1.0)):
        raise ConfigError(
            explain(
                f"{name} between 0 and 1",
                f"{alpha!r}",
                "a false-alarm rate given in percent, or NaN",
                f"divide by 100: {name}=0.05 stands for 5 %",
            )
        )
    return value


def plain(value: np.ndarray) -> float | np.ndarray:
    """Return a float for a scalar answer and the array otherwise."""
    return float(value) if np.ndim(value) == 0 else value
