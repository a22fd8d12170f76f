"""The rows that an epoch's part of the variance is taken from: those with large losses more often, and weighed for it.

A row's slopes are in proportion to its gradient, and a few rows with large losses hold most of the variance. A sample
with inclusion chances π_i, and weights 1/π_i, gives unbiased sums whatever the chances are (the variance, about a mean
that is estimated too, nearly: 0.6 % too large for 64 of 200 rows); its error is small where π_i is nearly in
proportion to the row's part. Chances are count·p_i, cut at 1 and the rest scaled, with

    p_i = (1 − w)·(ℓ_i − min ℓ)/Σ_j(ℓ_j − min ℓ) + w/n,     w = 0.3,

ℓ the losses at the end of training: no row is left out for good, should its loss say little.

References
----------
Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe" (1952); systematic
sampling in random order: Madow (1949). The variance estimate is that of Hájek (1964).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finfluence._seeds import stream

ALIKE = 0.3


@dataclass(frozen=True, eq=False)
class RowSample:
    """Rows, and what each stands for.

    Parameters
    ----------
    rows : Tensor [m]
        Positions, sorted.
    chances : Tensor [m]
        π, in float64.
    """

    rows: Tensor
    chances: Tensor

    def __len__(self) -> int:
        return len(self.rows)


def draw_rows(seed: int, epoch: int, count: int, losses: np.ndarray) -> RowSample:
    """Draw the variance-sample rows of an epoch: about `count` of all, by their losses [n].

    Returns
    -------
    RowSample

    Examples
    --------
    >>> losses = np.array([4.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    >>> sample = draw_rows(0, 0, 3, losses)
    >>> 0 in sample.rows.tolist(), round(float((1 / sample.chances).sum()), 6)
    (True, 6.0)
    """
    if count >= len(losses):
        return RowSample(torch.arange(len(losses)), torch.ones(len(losses), dtype=torch.float64))
    if not count:
        return RowSample(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64))
    chances = inclusion_chances(count, losses)
    rng = stream(seed, "probe", epoch)
    order = rng.permutation(len(losses))
    ends = np.cumsum(chances[order])
    places = np.searchsorted(ends, (rng.random() + np.arange(count)) * (ends[-1] / count), side="right")
    rows = np.unique(order[np.minimum(places, len(order) - 1)])
    return RowSample(torch.from_numpy(rows), torch.from_numpy(chances[rows]))


def inclusion_chances(count: int, losses: np.ndarray) -> np.ndarray:
    """Return π [n] with sum `count`, for losses [n]; what is not finite counts as the largest that is."""
    finite = np.isfinite(losses)
    known = losses[finite] if finite.any() else np.zeros(1)
    size = np.where(finite, losses, known.max()) - known.min()
    total, n = size.sum(), len(losses)
    share = (1 - ALIKE) * size / total + ALIKE / n if total > 0 else np.full(n, 1 / n)
    chances = count * share
    while (chances > 1).any():
        sure = chances >= 1
        chances = np.where(sure, 1.0, share * (count - sure.sum()) / share[~sure].sum())
    return chances
