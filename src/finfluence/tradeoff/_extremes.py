"""The two ends of the scale: equal laws, and laws that never overlap."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from finfluence.tradeoff._base import LossMoments, Symmetric, TradeOff, as_count, as_level, as_order, plain


@final
@dataclass(frozen=True)
class Perfect(Symmetric):
    r"""Two equal laws: no test beats chance, :math:`f(\alpha) = 1 - \alpha`. The unit of `@`.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian
    >>> Perfect()(0.05), Perfect() @ Gaussian(1.5)
    (0.95, Gaussian(mu=1.5))
    """

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 1 - alpha."""
        return plain(1.0 - as_level(alpha))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return other.optimal if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> "Perfect":
        as_count(count)
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

    def renyi(self, order: float) -> float:
        """Return zero."""
        as_order(order)
        return 0.0

    def loss_moments(self) -> LossMoments:
        """Return zero throughout."""
        return LossMoments(0.0, 0.0, 0.0, 0.0)

    @property
    def atoms(self) -> tuple[np.ndarray, np.ndarray]:
        """One point, certain under both laws."""
        return np.ones(1), np.ones(1)

    def edges(self, cells: int) -> np.ndarray:
        """Return a small interval around zero: no finite log ratio but zero has mass."""
        return np.linspace(-1e-9, 1e-9, max(cells, 2))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all mass in the cell of zero."""
        p, q = np.zeros(edges.size + 1), np.zeros(edges.size + 1)
        p[np.searchsorted(edges, 0.0, side="right")] = q[np.searchsorted(edges, 0.0, side="right")] = 1.0
        return p, q

    def _closed(self, other: TradeOff, count: int) -> TradeOff:
        return other**count


@final
@dataclass(frozen=True)
class Blatant(Symmetric):
    r"""Two laws that never overlap, the larger values without the rows: :math:`f = 0`. Absorbs under `@`.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian
    >>> Blatant()(0.05), Blatant() @ Gaussian(1.5)
    (0.0, Blatant())
    """

    def __call__(self, alpha: ArrayLike) -> float | np.ndarray:
        """Return 0."""
        return plain(np.zeros_like(as_level(alpha)))

    def __matmul__(self, other: TradeOff) -> TradeOff:
        return self if isinstance(other, TradeOff) else NotImplemented

    def __pow__(self, count: int) -> "Blatant | Perfect":
        return self if as_count(count) else Perfect()

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

    def renyi(self, order: float) -> float:
        """Return infinity."""
        as_order(order)
        return math.inf

    def loss_moments(self) -> LossMoments:
        """Return infinity throughout."""
        return LossMoments(*(math.inf,) * 4)

    @property
    def atoms(self) -> tuple[np.ndarray, np.ndarray]:
        """Two points, one for each law."""
        return np.array([0.0, 1.0]), np.array([1.0, 0.0])

    def edges(self, cells: int) -> np.ndarray:
        """Return a small interval around zero: no finite log ratio but zero has mass."""
        return np.linspace(-1e-9, 1e-9, max(cells, 2))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all P mass in the first cell and all Q mass in the last."""
        p, q = np.zeros(edges.size + 1), np.zeros(edges.size + 1)
        p[0] = q[-1] = 1.0
        return p, q

    def _closed(self, other: TradeOff, count: int) -> TradeOff:
        return self
