"""Many compositions at once: tables of steps, counts per subset, two inverse transforms for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import Bound, TradeOff, as_level, direction
from finfluence.tradeoff._convolve import Sums, convolve, corners
from finfluence.tradeoff._piecewise import PiecewiseLinear


@final
@dataclass(frozen=True, eq=False, repr=False)
class Compositions:
    """Composed curves, one for each row of counts, as made by `compose_counts`.

    `curves[i]` is a `PiecewiseLinear`; the methods answer for all rows at once, on the same side as `bound`.
    """

    sums: Sums

    def __repr__(self) -> str:
        return f"Compositions({len(self)} curves, bound={self.bound!r})"

    def __len__(self) -> int:
        return self.sums.p.shape[0]

    def __getitem__(self, row: int) -> PiecewiseLinear:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} compositions")
        return PiecewiseLinear(*corners(self.sums, row % len(self)), self.bound)

    @property
    def bound(self) -> Bound:
        """What the curves are to the compositions: lower, estimate or upper."""
        return self.sums.bound

    @property
    def total_variation(self) -> np.ndarray:
        """Total variation of each composition."""
        return self.delta(0.0)

    def delta(self, epsilon: float) -> np.ndarray:
        r"""Return :math:`\delta(\varepsilon)` of each composition."""
        sums, (above_p, above_q), growth = self.sums, self._above, np.exp(float(epsilon))
        column = np.floor((float(epsilon) + sums.shift) / sums.step).astype(np.int64) + 1 - sums.first
        column = np.clip(column, 0, above_p.shape[1] - 1)[:, None]
        p, q = (np.take_along_axis(above, column, axis=1)[:, 0] for above in (above_p, above_q))
        allowance = sums.eta * (1.0 + growth)
        sign = -1.0 if self.bound == "upper" else 1.0
        trivial = -np.expm1(min(float(epsilon), 0.0))
        return np.clip(sums.alone_q + q - growth * p + sign * allowance, trivial, 1.0)

    def power(self, alpha: float) -> np.ndarray:
        r"""Return 1 - f(alpha) of each composition: on the safe side for the direction of `bound`."""
        level = float(as_level(alpha))
        sums, (above_p, above_q) = self.sums, self._above
        sign = -1.0 if self.bound == "upper" else 1.0
        answer = np.empty(len(self))
        for row in range(len(self)):
            at = min(max(level + sign * sums.eta[row], 0.0), 1.0)
            hit = float(np.interp(at, above_p[row, ::-1], above_q[row, ::-1]))
            answer[row] = sums.alone_q[row] + hit + sign * sums.eta[row]
        return np.clip(answer, level, 1.0)

    @cached_property
    def _above(self) -> tuple[np.ndarray, np.ndarray]:
        """P and Q mass at each log ratio and all larger ones; a last column of zeros."""
        zero = np.zeros((len(self), 1))
        tails = (np.cumsum(mass[:, ::-1], axis=1)[:, ::-1] for mass in (self.sums.p, self.sums.q))
        above_p, above_q = (np.concatenate((tail, zero), axis=1) for tail in tails)
        return above_p, above_q


def compose_counts(
    curves: Sequence[TradeOff], counts: ArrayLike, bound: Bound | None = None, cells: int = 2**14
) -> Compositions:
    r"""Return :math:`\bigotimes_k f_k^{\otimes n_{bk}}` for every row b of counts.

    Parameters
    ----------
    curves : Sequence[TradeOff]
        The K distinct steps, by their curves of best tests.
    counts : ArrayLike
        Whole numbers [B, K]: how often composition b takes step k.
    bound : {"lower", "estimate", "upper"}, optional
        Direction of the numerical error; "estimate" if left out and all curves are exact.
    cells : int
        Points of the FFT, a power of two. One window holds all rows: rows of very different spread need more.

    Returns
    -------
    Compositions
        B curves.

    Raises
    ------
    ConfigError
        If counts are no table of whole numbers with one column for each curve.

    Notes
    -----
    Costs one discretisation and transform a curve, a product of counts with log transforms, and two
    inverse transforms a row; frequencies at which all rows are below exp(-45) are skipped.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian
    >>> steps = [Gaussian(0.03), Gaussian(0.04)]
    >>> many = compose_counts(steps, [[100, 0], [0, 100], [100, 100]], "lower")
    >>> many
    Compositions(3 curves, bound='lower')
    >>> many.total_variation.round(4).tolist(), round(Gaussian(0.5).total_variation, 4)
    ([0.1192, 0.1585, 0.1974], 0.1974)
    """
    table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    whole = np.all(np.isfinite(table)) and np.all(table >= 0) and np.all(table == np.floor(table))
    if table.ndim != 2 or table.shape[1] != len(curves) or not len(curves) or not whole:
        raise ConfigError(
            explain(
                f"a table of whole numbers, a row for each composition and {len(curves)} columns",
                f"shape {table.shape}" + ("" if whole else " with fractions, negative or missing numbers"),
                "rows and columns exchanged, or weights instead of counts",
                "count how often each composition takes each step",
            )
        )
    best = [curve.optimal for curve in curves]
    return Compositions(convolve(best, table, direction(best, bound), cells))


def counts_on_grid(values: ArrayLike, grid: ArrayLike, bound: Bound = "estimate") -> np.ndarray:
    r"""Return how many of each row's values fall on each point of a grid, rounded in a direction.

    For a family whose curves fall as the parameter rises (Gaussian, subsampled Gaussian, Laplace), rounding up
    gives a lower bound of the composition and rounding down an upper one, so thousands of different steps need
    one table of a few hundred curves.

    Parameters
    ----------
    values : ArrayLike
        Parameters [B, T] of the steps of each composition.
    grid : ArrayLike
        Rising parameters [K] of the curves in the table.
    bound : {"lower", "estimate", "upper"}
        Round up, to the nearest, or down.

    Returns
    -------
    numpy.ndarray
        Counts [B, K] for `compose_counts`.

    Raises
    ------
    ConfigError
        If the grid does not rise or does not reach around the values.

    Examples
    --------
    >>> counts_on_grid([[0.1, 0.14, 0.3]], [0.1, 0.2, 0.3], "lower").tolist()
    [[1, 1, 1]]
    >>> counts_on_grid([[0.1, 0.14, 0.3]], [0.1, 0.2, 0.3], "upper").tolist()
    [[2, 0, 1]]
    """
    points, table = (
        np.asarray(grid, dtype=np.float64).ravel(),
        np.atleast_2d(np.asarray(values, dtype=np.float64)),
    )
    fits = (
        points.size > 0
        and np.all(np.diff(points) > 0)
        and np.all((table >= points[0]) & (table <= points[-1]))
    )
    if not fits or bound not in ("lower", "estimate", "upper"):
        raise ConfigError(
            explain(
                "a rising grid that reaches from the smallest value to the largest, and a direction",
                f"grid of {points.size} points, values from {table.min():g} to {table.max():g}, bound={bound!r}",
                "a signed or missing value, or a grid made for other steps",
                "make the grid of the absolute values, for example with numpy.geomspace, and add 0 if it occurs",
            )
        )
    if bound == "lower":
        place = np.searchsorted(points, table, side="left")
    elif bound == "upper":
        place = np.searchsorted(points, table, side="right") - 1
    else:
        place = np.searchsorted((points[1:] + points[:-1]) / 2.0, table, side="left")
    flat = place + points.size * np.arange(table.shape[0])[:, None]
    return np.bincount(flat.ravel(), minlength=points.size * table.shape[0]).reshape(
        table.shape[0], points.size
    )
