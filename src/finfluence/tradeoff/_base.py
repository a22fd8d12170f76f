"""What every trade-off function can say."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from finfluence.errors import ConfigError, explain

Bound = Literal["exact", "lower", "estimate", "upper"]


class LossMoments(NamedTuple):
    r"""Moments of the log-likelihood ratio :math:`\log|f'|` under P.

    `kl` is :math:`-\int\log|f'|`, `kappa_2` :math:`\int\log^2|f'|`, `kappa_3` :math:`\int|\log|f'||^3` and
    `centred_3` :math:`\int|\log|f'| + kl|^3` (Dong, Roth and Su (2022), section 3.2).
    """

    kl: float
    kappa_2: float
    kappa_3: float
    centred_3: float


class TradeOff(ABC):
    r"""A trade-off curve: for each false-alarm rate the miss rate of a family of tests of P against Q.

    .. math:: f(\alpha) = \inf\{\beta_\phi : \alpha_\phi \le \alpha\}, \quad
              \alpha_\phi = E_P[\phi],\ \beta_\phi = 1 - E_Q[\phi]

    P is the law of the statistic *with* the rows, Q the law *without* them: T(P, Q) is not T(Q, P), which
    `inverse` returns. Values are frozen. `f @ g` is the curve of observing both pairs independently, `f ** k` of
    observing k pairs; they compose the curves of the best tests (`optimal`).

    Notes
    -----
    `bound` says what a curve is to the curve it stands for: "exact" (to rounding), "lower" (nowhere above it: the
    laws look at least as different as they are), "upper" (nowhere below it) or "estimate". Every operation is
    monotone, so a lower bound of the operands gives a lower bound of the result; a lower with an upper bound, or
    anything with an estimate, gives an estimate.

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

    @abstractmethod
    def __pow__(self, count: int) -> "TradeOff":
        """Return the composition of `count` copies; `Perfect()` for none."""

    @property
    @abstractmethod
    def bound(self) -> Bound:
        """What the curve is to the one it stands for: exact, lower, estimate or upper."""

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

    def type_two(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate of the best test at false-alarm rate `alpha`: the optimal curve itself."""
        return self.optimal(alpha)

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
        """Kullback-Leibler divergence of Q from P, E_P log(p/q), in nats."""

    @abstractmethod
    def renyi(self, order: float) -> float:
        r"""Return :math:`\frac{1}{a-1}\log E_Q[(p/q)^a]` for an order a > 0, in nats; `kl` at a = 1."""

    @abstractmethod
    def loss_moments(self) -> LossMoments:
        """Return the moments of the log-likelihood ratio under P that the central limit needs."""

    @abstractmethod
    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\delta(\varepsilon) = \sup_A Q(A) - e^{\varepsilon} P(A)`, elementwise."""

    def epsilon(self, delta: float) -> float:
        r"""Return the smallest :math:`\varepsilon \ge 0` with :math:`\delta(\varepsilon)` at most `delta`."""
        target = float(as_level(delta, "delta")) * (1.0 + 1e-12)
        if self.delta(0.0) <= target:
            return 0.0
        low, high = 0.0, 1.0
        while self.delta(high) > target:
            low, high = high, 2.0 * high
            if high > 1e5:
                return float("inf")
        for _ in range(80):
            middle = (low + high) / 2.0
            low, high = (middle, high) if self.delta(middle) > target else (low, middle)
        return high

    def mu_at(self, alpha: ArrayLike) -> float | np.ndarray:
        r"""Return the implied :math:`\mu = \Phi^{-1}(1-\alpha) - \Phi^{-1}(f(\alpha))`; constant if Gaussian."""
        level = as_level(alpha)
        return plain(-ndtri(level) - ndtri(np.asarray(self(level))))

    @property
    @abstractmethod
    def atoms(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Probabilities under P and under Q of a finite pair with this very curve; None if there is none."""

    @abstractmethod
    def edges(self, cells: int) -> np.ndarray:
        """Return about `cells` increasing values of log(q/p) outside which P and Q have mass below 1e-15."""

    @abstractmethod
    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the P and Q mass of log(q/p) in (-inf, e_0), [e_0, e_1), ..., [e_n, inf)."""

    @abstractmethod
    def _closed(self, other: "TradeOff", count: int) -> "TradeOff | None":
        """Return the closed form of this pair with `count` copies of another, if there is one."""


class Symmetric(TradeOff):
    """An exact curve of best tests that is the same in both directions."""

    @property
    def bound(self) -> Literal["exact"]:
        """Always exact."""
        return "exact"

    @property
    def optimal(self) -> Self:
        """The curve itself."""
        return self

    def inverse(self) -> Self:
        """Return the curve itself."""
        return self


def join(bounds: Iterable[Bound]) -> Bound:
    """Return what a monotone operation makes of operands with these bounds.

    Returns
    -------
    Bound
        The one direction among the operands; an estimate where there are several.

    Examples
    --------
    >>> join(["exact", "lower"]), join(["lower", "upper"])
    ('lower', 'estimate')
    """
    seen = set(bounds) - {"exact"}
    if not seen:
        return "exact"
    return seen.pop() if len(seen) == 1 else "estimate"


def direction(curves: Iterable[TradeOff], bound: Bound | None) -> Bound:
    """Return the bound a numerical operation on `curves` has to deliver, `bound` if they allow it."""
    have = join(curve.bound for curve in curves)
    if bound is None:
        return "estimate" if have == "exact" else have
    if bound not in ("lower", "estimate", "upper"):
        raise ConfigError(
            explain(
                "bound one of lower, estimate, upper",
                repr(bound),
                "an exact curve asked of a numerical operation",
                'leave bound out, or ask for bound="lower" and bound="upper" and compare',
            )
        )
    if bound != "estimate" and have not in ("exact", bound):
        raise ConfigError(
            explain(
                f"operands that allow a {bound} bound",
                f"operands that are together: {have}",
                "a plug-in curve or a bound of the other direction among the operands",
                'ask for bound="estimate", or give operands that are exact or bounds of that direction',
            )
        )
    return bound


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


def as_count(count: int, name: str = "count") -> int:
    """Return `count` as int after checking that it is a whole number, not negative."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
        raise ConfigError(
            explain(
                f"{name} as a whole number of copies, 0 or more",
                repr(count),
                "a fraction of a step, or a negative difference of step numbers",
                "compose whole steps; f ** 0 is Perfect()",
            )
        )
    return int(count)


def as_order(order: float) -> float:
    """Return a Renyi order after checking that it is positive."""
    if not order > 0.0 or order == float("inf"):
        raise ConfigError(
            explain(
                "a finite Renyi order above 0",
                repr(order),
                "order 0 or infinity, which count supports instead of integrating",
                "use an order such as 0.5, 1 (Kullback-Leibler) or 2",
            )
        )
    return float(order)


def plain(value: np.ndarray) -> float | np.ndarray:
    """Return a float for a scalar answer and the array otherwise."""
    return float(value) if np.ndim(value) == 0 else value
