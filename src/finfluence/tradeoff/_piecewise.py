"""Piecewise linear curves, to which every operation can fall back, and composition."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import (
    Bound,
    LossMoments,
    TradeOff,
    as_count,
    as_level,
    as_order,
    direction,
    join,
    plain,
)
from finfluence.tradeoff._convolve import convolve, corners
from finfluence.tradeoff._extremes import Blatant, Perfect
from finfluence.tradeoff._masses import (
    divergence,
    fault,
    log_ratio,
    lower_hull,
    moments,
    ordered,
    product,
    spread,
    vertices,
)

_EXACT_ATOMS = 4096  # products of finite pairs up to this size are kept exactly
_CELLS = 2**16


@final
@dataclass(frozen=True, eq=False, repr=False)
class PiecewiseLinear(TradeOff):
    r"""Curve through given corners: the curve of a pair of laws on finitely many points.

    Parameters
    ----------
    alpha, beta : ArrayLike
        Corners, alpha rising from 0 to 1 and beta falling to 0. beta[0] < 1 is mass that only Q has.
    bound : {"exact", "lower", "estimate", "upper"}
        What the curve is to the one it stands for.

    Notes
    -----
    Convexity, falling values and :math:`f(\alpha) \le 1-\alpha` are checked once, here, to 1e-9.

    Examples
    --------
    >>> f = PiecewiseLinear([0, 0.2, 1], [1, 0.4, 0])
    >>> f
    PiecewiseLinear(3 corners, auc=0.7)
    >>> round(f(0.1), 12), round(f.inverse()(0.4), 12), round(f.total_variation, 12)
    (0.7, 0.2, 0.4)
    """

    alpha: np.ndarray
    beta: np.ndarray
    bound: Bound = "exact"

    def __post_init__(self) -> None:
        alpha = np.array(self.alpha, dtype=np.float64).ravel()
        beta = np.array(self.beta, dtype=np.float64).ravel()
        wrong = fault(alpha, beta)
        if wrong:
            raise ConfigError(
                explain(
                    "corners of a convex, falling curve from alpha = 0 to (1, 0), below 1 - alpha",
                    wrong,
                    "power instead of miss rate, an uncorrected empirical curve, or corners in another order",
                    "pass miss rates sorted by alpha; `hull` makes a curve of any points",
                )
            )
        if self.bound not in ("exact", "lower", "estimate", "upper"):
            raise ConfigError(
                explain(
                    "bound one of exact, lower, estimate, upper",
                    repr(self.bound),
                    "a misspelt direction",
                    'use bound="estimate" when the direction is not known',
                )
            )
        for name, value in (("alpha", alpha), ("beta", beta)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        p, q = np.diff(alpha, prepend=0.0), -np.diff(beta, prepend=1.0)
        self._keep(*ordered(np.maximum(p, 0.0), np.maximum(q, 0.0)))

    def _keep(self, p: np.ndarray, q: np.ndarray) -> None:
        p.setflags(write=False)
        q.setflags(write=False)
        object.__setattr__(self, "_atoms", (p, q))

    @classmethod
    def from_masses(cls, p: ArrayLike, q: ArrayLike, bound: Bound = "exact") -> "PiecewiseLinear":
        """Return the curve of the best tests between two laws on the same points, given as probabilities.

        Keeps the masses, so that far tails lose nothing to rounding.

        Returns
        -------
        PiecewiseLinear
            With one corner for each different ratio of the two laws.

        Examples
        --------
        >>> PiecewiseLinear.from_masses([0.8, 0.2], [0.4, 0.6])(0.1)
        0.7
        """
        atoms = ordered(np.asarray(p, dtype=np.float64).ravel(), np.asarray(q, dtype=np.float64).ravel())
        curve = cls(*vertices(*atoms), bound)
        curve._keep(*atoms)
        return curve

    @classmethod
    def of(cls, curve: TradeOff, bound: Bound | None = None, cells: int = 4096) -> "PiecewiseLinear":
        """Return `curve` as polygon: itself if it has corners, else chords, or tangents for a lower bound.

        Returns
        -------
        PiecewiseLinear
            Of the direction asked for, or the curve's own.

        Examples
        --------
        >>> from finfluence.tradeoff import Gaussian
        >>> low, up = (PiecewiseLinear.of(Gaussian(1.0), bound) for bound in ("lower", "upper"))
        >>> bool(low(0.05) <= Gaussian(1.0)(0.05) <= up(0.05)), bool(up(0.05) - low(0.05) < 1e-5)
        (True, True)
        """
        if isinstance(curve, PiecewiseLinear):
            return curve if bound is None else curve.as_bound(bound)
        curve = curve.optimal
        if curve.atoms is not None:
            return cls.from_masses(*curve.atoms, bound=curve.bound)
        bound = direction((curve,), bound)
        edges = curve.edges(cells)
        p, q = curve.masses(edges)
        if bound == "lower":
            at_p, at_q, alone_p, alone_q = spread(p, q, edges)
            p, q = np.append(at_p, [float(alone_p), 0.0]), np.append(at_q, [0.0, float(alone_q)])
        return cls.from_masses(p / p.sum(), q / q.sum(), bound)

    def as_bound(self, bound: Bound) -> "PiecewiseLinear":
        """Return the curve with the weaker name `bound`: exact may become anything, a bound an estimate."""
        if bound != self.bound and self.bound != "exact" and bound != "estimate":
            direction((self,), bound)
        curve = PiecewiseLinear(self.alpha, self.beta, bound)
        curve._keep(*self.atoms)
        return curve

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return the miss rate at false-alarm rate `alpha`."""
        return plain(np.interp(as_level(alpha), self.alpha, self.beta))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return compose((self, other)) if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> TradeOff:
        return compose((self,), (count,))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PiecewiseLinear):
            return NotImplemented
        same = np.array_equal(self.alpha, other.alpha) and np.array_equal(self.beta, other.beta)
        return same and self.bound == other.bound

    def __hash__(self) -> int:
        return hash((self.alpha.tobytes(), self.beta.tobytes(), self.bound))

    def __repr__(self) -> str:
        bound = "" if self.bound == "exact" else f", bound={self.bound!r}"
        return f"PiecewiseLinear({self.alpha.size} corners, auc={self.auc:.6g}{bound})"

    @property
    def optimal(self) -> "PiecewiseLinear":
        """The curve itself."""
        return self

    @property
    def atoms(self) -> tuple[np.ndarray, np.ndarray]:
        """P and Q probabilities of the segments, by falling q/p."""
        return self._atoms  # type: ignore[attr-defined]

    def inverse(self) -> "PiecewiseLinear":
        """Return T(Q, P)."""
        p, q = self.atoms
        return PiecewiseLinear.from_masses(q[::-1], p[::-1], self.bound)

    def power(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - f(alpha)."""
        return plain(1.0 - np.asarray(self(alpha)))

    @property
    def auc(self) -> float:
        r""":math:`1 - \int_0^1 f`."""
        return 1.0 - float(np.trapezoid(self.beta, self.alpha))

    @property
    def total_variation(self) -> float:
        r""":math:`\max_\alpha 1 - \alpha - f(\alpha)`."""
        return float(np.max(1.0 - self.alpha - self.beta))

    @property
    def kl(self) -> float:
        """Sum of p log(p/q); infinite if P has mass where Q has none."""
        return divergence(*self.atoms, 1.0)

    def renyi(self, order: float) -> float:
        """Return the divergence of the given order as a sum over segments."""
        return divergence(*self.atoms, as_order(order))

    def loss_moments(self) -> LossMoments:
        """Return the sums over segments."""
        return LossMoments(*moments(*self.atoms))

    def delta(self, epsilon: ArrayLike) -> float | np.ndarray:
        r"""Return :math:`\max_k 1 - \beta_k - e^\varepsilon \alpha_k`, reached at the corner with that slope."""
        eps = np.asarray(epsilon, dtype=np.float64)
        loss, p, q = self._sums
        taken = np.searchsorted(-loss, -eps, side="left")
        with np.errstate(over="ignore", invalid="ignore"):
            far = np.where(p[taken] > 0.0, np.exp(eps) * p[taken], 0.0)
        return plain(np.maximum(q[taken] - far, 0.0))

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p, q = self.atoms
        zero = np.zeros(1)
        return log_ratio(p, q), np.concatenate((zero, np.cumsum(p))), np.concatenate((zero, np.cumsum(q)))

    def edges(self, cells: int) -> np.ndarray:
        """Return log ratios from the lowest to the highest finite one that has mass above 1e-15."""
        p, q = self.atoms
        loss = log_ratio(p, q)
        some = np.isfinite(loss) & ((p > 1e-15) | (q > 1e-15))
        low, high = (loss[some].min(), loss[some].max()) if np.any(some) else (0.0, 0.0)
        return np.linspace(low - 1e-9, high + 1e-9, max(cells, 2))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the P and Q mass of log(q/p) between consecutive edges, tails first and last."""
        p, q = self.atoms
        cell = np.searchsorted(edges, log_ratio(p, q), side="right")
        return np.bincount(cell, p, edges.size + 1), np.bincount(cell, q, edges.size + 1)

    def _closed(self, other: TradeOff, count: int) -> None:
        return None


def hull(alpha: ArrayLike, beta: ArrayLike, bound: Bound = "estimate") -> PiecewiseLinear:
    """Return the largest trade-off curve that is nowhere above the points (alpha, beta)."""
    x = np.concatenate((as_level(alpha).ravel(), [0.0, 1.0]))
    y = np.concatenate((as_level(beta, "beta").ravel(), [1.0, 0.0]))
    return PiecewiseLinear(*lower_hull(x, y), bound)


def compose(
    curves: Sequence[TradeOff],
    counts: Sequence[int] | None = None,
    bound: Bound | None = None,
    cells: int = _CELLS,
) -> TradeOff:
    r"""Return :math:`f_1^{\otimes n_1} \otimes f_2^{\otimes n_2} \otimes \dots`, the curve of all pairs seen together.

    Parameters
    ----------
    curves : Sequence[TradeOff]
        The pairs, by their curves of best tests.
    counts : Sequence[int], optional
        Copies of each curve, one each if left out.
    bound : {"lower", "estimate", "upper"}, optional
        Direction of the numerical error. By default what the operands are, and "estimate" for exact ones.
        Closed forms and small finite pairs are composed exactly whatever is asked.
    cells : int
        Points of the FFT, a power of two; the gap between lower and upper falls with its square, or with itself
        where single atoms matter (Laplace).

    Returns
    -------
    TradeOff
        Closed form if there is one, else `PiecewiseLinear`. The estimate is the lower curve before its
        allowance for float error.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian, Laplace
    >>> compose([Gaussian(0.3), Gaussian(0.4)])
    Gaussian(mu=0.5)
    >>> low, up = (compose([Laplace(0.1)], [100], bound) for bound in ("lower", "upper"))
    >>> low.bound, up.bound, bool(0 < up(0.05) - low(0.05) < 2e-3)
    ('lower', 'upper', True)
    """
    numbers = [as_count(count) for count in (counts if counts is not None else [1] * len(curves))]
    todo: list[tuple[TradeOff, int]] = []
    for curve, count in zip(curves, numbers, strict=True):
        if count:
            _absorb(todo, curve.optimal, count)
    apart = [curve for curve, _ in todo if curve.total_variation == 1.0]
    if apart:
        have = join(curve.bound for curve in apart)
        return Blatant() if have == "exact" else PiecewiseLinear(np.array([0.0, 1.0]), np.zeros(2), have)
    if not todo:
        return Perfect()
    if len(todo) == 1 and todo[0][1] == 1:
        return todo[0][0]
    exact = _exact(todo)
    if exact is not None:
        return exact
    wanted = direction((curve for curve, _ in todo), bound)
    pairs, times = [curve for curve, _ in todo], np.array([[float(count) for _, count in todo]])
    curve = PiecewiseLinear(*corners(convolve(pairs, times, wanted, cells), 0), wanted)
    if wanted != "upper":
        return curve
    # rounding down under Q and rounding up under P are two upper bounds; so is the smaller of them
    other = PiecewiseLinear(
        *corners(convolve([pair.inverse() for pair in pairs], times, wanted, cells), 0), wanted
    )
    back = other.inverse()
    return hull(np.concatenate((curve.alpha, back.alpha)), np.concatenate((curve.beta, back.beta)), wanted)


def _absorb(todo: list[tuple[TradeOff, int]], curve: TradeOff, count: int) -> None:
    """Add `count` copies of a curve to the list, joined with an entry where there is a closed form."""
    if curve == Perfect():
        return
    closed = curve._closed(curve, count - 1)
    if closed is not None:
        curve, count = closed, 1
    for place, (other, number) in enumerate(todo):
        if other == curve and closed is None:
            todo[place] = (other, number + count)
            return
        joined = other._closed(curve, 1) if number == count == 1 else None
        if joined is not None:
            todo[place] = (joined, 1)
            return
    todo.append((curve, count))


def _exact(todo: Sequence[tuple[TradeOff, int]]) -> PiecewiseLinear | None:
    """Return the product of finite pairs while it stays small."""
    total: tuple[np.ndarray, np.ndarray] = (np.ones(1), np.ones(1))
    for curve, count in todo:
        atoms = curve.atoms
        if atoms is None or count > _EXACT_ATOMS:
            return None
        for _ in range(count):
            if total[0].size * atoms[0].size > 4 * _EXACT_ATOMS:
                return None
            total = product(total, atoms)
    return PiecewiseLinear.from_masses(*total, bound=join(curve.bound for curve, _ in todo))
