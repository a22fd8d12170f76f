"""Random projections of parameter vectors to a few dimensions."""

import torch
from torch import Tensor

from finfluence._seeds import torch_seed

BLOCK = 4096


class Projection:
    """v ↦ v R for a random R [P, k] of signs / √k: inner products keep their mean, and their error shrinks as 1/√k.

    R is drawn in blocks of parameters and never held. With k ≥ P nothing is drawn, and vectors stay what they are.

    Parameters
    ----------
    size : int
        P.
    dimensions : int
        k.
    seed : int
        Of the signs.
    index : int
        Which of several projections of one seed.

    Examples
    --------
    >>> Projection(6, 2, seed=0)(torch.ones(3, 6)).shape, Projection(6, 9, seed=0)(torch.ones(1, 6)).shape
    (torch.Size([3, 2]), torch.Size([1, 6]))
    """

    def __init__(self, size: int, dimensions: int, seed: int, index: int = 0) -> None:
        self.size, self.dimensions, self._seed, self._index = size, dimensions, seed, index

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return vectors [K, P] projected to [K, k]."""
        if self.dimensions >= self.size:
            return vectors
        total = vectors.new_zeros(len(vectors), self.dimensions)
        for block, at in enumerate(range(0, self.size, BLOCK)):
            part = vectors[:, at : at + BLOCK]
            generator = torch.Generator().manual_seed(
                torch_seed(self._seed, "projection", self._index, block)
            )
            drawn = torch.randint(
                0, 2, (part.shape[1], self.dimensions), generator=generator, dtype=torch.int8
            )
            total += part @ (drawn * 2 - 1).to(part)
        return total / self.dimensions**0.5
