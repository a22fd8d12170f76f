"""Pairs that take part in a step only with some probability (Poisson subsampling), in either direction."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import Bound, LossMoments, TradeOff, as_level, as_order, plain
from finfluence.tradeoff._extremes import Perfect
from finfluence.tradeoff._masses import divergence, moments
from finfluence.tradeoff._piecewise import PiecewiseLinear, compose

Mixed = Literal["first", "second"]
_CELLS = 2**15  # cells of the sums behind kl, renyi and the moments


@final
@dataclass(frozen=True)
class Subsampled(TradeOff):
    r"""The pair (P, Q) of a curve f, one of its laws diluted with the other.

    .. math:: \text{second: } T(P, (1-p)P + pQ)(\alpha) = p f(\alpha) + (1-p)(1-\alpha), \qquad
              \text{first: } T((1-p)Q + pP, Q) = \bigl(T(Q, (1-p)Q + pP)\bigr)^{-1}

    Made by `subsample`. With P the law with the rows, a row that is drawn with probability p at a step gives
    "first": with the row in the data the step is a mixture, without it the step is always Q.

    Parameters
    ----------
    curve : TradeOff
        The curve of best tests f = T(P, Q), without atoms.
    rate : float
        The probability p to take part, strictly between 0 and 1.
    mixed : {"first", "second"}
        Which of the two laws is diluted with the other.

    Notes
    -----
    The curve, `delta`, `auc` and `total_variation` are closed forms of those of f ("first" inverts by
    bisection to rounding).
    `kl`, `renyi` and the moments are sums over 32,768 cells of the log ratio, relative error about 1e-7.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian, subsample
    >>> f = subsample(Gaussian(1.0), 0.01)
    >>> f
    Subsampled(Gaussian(mu=1.0), rate=0.01, mixed='second')
    >>> round(f(0.05), 6), f.inverse()
    (0.947905, Subsampled(Gaussian(mu=1.0), rate=0.01, mixed='first'))
    """

    curve: TradeOff
    rate: float
    mixed: Mixed = "second"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", float(self.rate))
        if not 0.0 < self.rate < 1.0 or self.mixed not in ("first", "second"):
            raise ConfigError(
                explain(
                    'a rate strictly between 0 and 1 and mixed="first" or "second"',
                    f"rate={self.rate!r}, mixed={self.mixed!r}",
                    "a rate in percent, or the two ends, which have simpler curves",
                    "call `subsample(curve, rate)`, which also takes the rates 0 and 1",
                )
            )

    def __repr__(self) -> str:
        return f"Subsampled({self.curve!r}, rate={self.rate:g}, mixed={self.mixed!r})"

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate at false-alarm rate `alpha`."""
        level = as_level(alpha)
        if self.mixed == "second":
            return plain(self.rate * np.asarray(self.curve(level)) + (1.0 - self.rate) * (1.0 - level))
        turned = self.inverse()
        low, high = np.zeros_like(level), np.ones_like(level)
        for _ in range(100):
            middle = (low + high) / 2.0
            above = np.asarray(turned(middle)) > level
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return plain(high)

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return compose((self, other)) if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> TradeOff:
        return compose((self,), (count,))

    @property
    def bound(self) -> Bound:
        """That of the curve inside."""
        return self.curve.bound

    @property
    def optimal(self) -> "Subsampled":
        """The curve itself."""
        return self

    def inverse(self) -> "Subsampled":
        """Return T of the same two laws in the other order."""
        return Subsampled(self.curve.inverse(), self.rate, "first" if self.mixed == "second" else "second")

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - f(alpha)."""
        if self.mixed == "second":
            level = as_level(alpha)
            return plain(self.rate * np.asarray(self.curve.power(level)) + (1.0 - self.rate) * level)
        return plain(1.0 - np.asarray(self(alpha)))

    @property
    def auc(self) -> float:
        """Rate times the AUC of the curve inside, and one half for the rest."""
        return self.rate * self.curve.auc + (1.0 - self.rate) / 2.0

    @property
    def total_variation(self) -> float:
        """Rate times that of the curve inside."""
        return self.rate * self.curve.total_variation

    @property
    def kl(self) -> float:
        """Sum over cells of p log(p/q)."""
        return divergence(*self._cells(), 1.0)

    def renyi(self, order: float) -> float:
        """Return the sum over cells."""
        return divergence(*self._cells(), as_order(order))

    def loss_moments(self) -> LossMoments:
        """Return the sums over cells."""
        return LossMoments(*moments(*self._cells()))

    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        p, q = self.masses(self.edges(_CELLS))
        some = (p > 1e-290) & (q > 1e-290)
        return p[some], q[some]

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\sup_A Q(A) - e^\varepsilon P(A)` from the profile of the curve inside."""
        eps, rate = np.asarray(epsilon, dtype=np.float64), self.rate
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.mixed == "second":
                inner = np.log1p(np.expm1(eps) / rate)
                some = rate * np.asarray(self.curve.delta(np.where(np.isnan(inner), 0.0, inner)))
                return plain(np.where(np.isnan(inner) | (inner == -np.inf), -np.expm1(eps), some))
            scale = 1.0 - np.exp(eps) * (1.0 - rate)
            inner = eps + np.log(rate) - np.log(np.where(scale > 0.0, scale, 1.0))
            return plain(np.where(scale > 0.0, scale * np.asarray(self.curve.delta(inner)), 0.0))

    @property
    def atoms(self) -> None:
        """None: finite pairs stay finite under `subsample`."""
        return None

    def edges(self, cells: int) -> np.ndarray:
        """Return the log ratios of the curve inside, diluted."""
        if self.mixed == "first":
            return -self.inverse().edges(cells)[::-1]
        return np.unique(np.log1p(self.rate * np.expm1(np.minimum(self.curve.edges(cells), 700.0))))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the P and Q mass of log(q/p) between consecutive edges, tails first and last."""
        if self.mixed == "first":
            q, p = self.inverse().masses(-edges[::-1])
            return p[::-1], q[::-1]
        inner = np.maximum(np.expm1(edges) / self.rate, -1.0)
        with np.errstate(divide="ignore"):
            p, q = self.curve.masses(np.log1p(inner))
        return p, (1.0 - self.rate) * p + self.rate * q

    def _closed(self, other: TradeOff, count: int) -> None:
        return None


def subsample(curve: TradeOff, rate: float, mixed: Mixed = "second") -> TradeOff:
    r"""Return the curve of a pair that takes part with probability `rate` (Poisson subsampling).

    .. math:: \text{second: } T(P, (1-p)P + pQ) = p f + (1-p)(1-\alpha), \qquad \text{first: } T((1-p)Q +
    pP, Q)

    Parameters
    ----------
    curve : TradeOff
        f = T(P, Q), by its best tests.
    rate : float
        p, between 0 and 1: 0 gives `Perfect()`, 1 the curve itself.
    mixed : {"first", "second"}
        Which law is diluted with the other. With P the law with the rows, "first" is removal under Poisson
        subsampling and
        "second" is addition. `subsample(f, p).inverse()` equals `subsample(f.inverse(), p, "first")`.

    Returns
    -------
    TradeOff
        `Subsampled` for families (exact), `PiecewiseLinear` for finite pairs (exact).

    References
    ----------
    Dong, Roth and Su (2022), section 4; Zhu, Dong and Wang, "Optimal accounting" (2022), for the two
    directions.

    Examples
    --------
    >>> from finfluence.tradeoff import EpsilonDelta, Gaussian
    >>> subsample(Gaussian(1.0), 1.0), subsample(Gaussian(1.0), 0.0)
    (Gaussian(mu=1.0), Perfect())
    >>> round(subsample(EpsilonDelta(1.0), 0.1)(0.05), 6)
    0.941409
    """
    rate, curve = float(as_level(rate, "rate")), curve.optimal
    if rate == 0.0:
        return Perfect()
    if rate == 1.0:
        return curve
    if curve.atoms is None:
        return Subsampled(curve, rate, mixed)
    p, q = curve.atoms
    if mixed == "second":
        return PiecewiseLinear.from_masses(p, (1.0 - rate) * p + rate * q, curve.bound)
    return PiecewiseLinear.from_masses((1.0 - rate) * q + rate * p, q, curve.bound)
