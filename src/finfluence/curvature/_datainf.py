"""DataInf: the inverse of a mean of rank-one matrices taken as the mean of their inverses."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from finfluence.curvature._solution import Solution

SHARE = 0.1
ROUNDING = 10  # a tensor whose gradients are so many rounding errors of the largest tensor's has none


class DataInf:
    """Approximates (F + λ)⁻¹v, F = (1/n) Σ g_i g_iᵀ, layer by layer: the mean of inverses for the inverse of the mean.

    x = (1/n) Σ_i (1/λ) [v − (vᵀg_i) / (λ + ‖g_i‖²) g_i], with v, g_i and λ those of one parameter tensor.

    Parameters
    ----------
    row_gradients : callable
        Called for each pass; yields g [B, P].
    sizes : sequence of int
        Numbers in each parameter tensor, in order: P in all.
    damping : float, optional
        λ of every tensor; unless given a tenth of the mean squared entry of its rows' gradients.

    decay : float
        Weight decay, added to λ.

    Attributes
    ----------
    damping : Tensor [tensors]
        λ.

    References
    ----------
    Kwon et al., "DataInf: efficiently estimating data influence in LoRA-tuned LLMs" (2024), equation 5.

    Examples
    --------
    >>> g = torch.tensor([[0.0, 0.0], [-1 / 3, -1 / 3], [-2 / 3, -4 / 3], [1.0, 3.0]])
    >>> solver = DataInf(lambda: [g], [2])
    >>> [round(x, 3) for x in solver.solve(torch.tensor([[-2 / 3, -8 / 3]])).vectors[0].tolist()]
    [0.464, -7.848]
    """

    def __init__(
        self,
        row_gradients: Callable[[], Iterable[Tensor]],
        sizes: Sequence[int],
        damping: float | None = None,
        decay: float = 0.0,
    ) -> None:
        self._row_gradients, self._sizes = row_gradients, list(sizes)
        if damping is not None:
            self.damping = torch.full((len(self._sizes),), float(damping) + decay, dtype=torch.float64)
            return
        total, rows = torch.zeros(sum(self._sizes), dtype=torch.float64), 0
        for gradients in row_gradients():
            total += (gradients.double() ** 2).sum(0).cpu()
            rows += len(gradients)
        means = torch.stack([part.mean() / rows for part in total.split(self._sizes)])
        still = means <= (ROUNDING * torch.finfo(gradients.dtype).eps) ** 2 * means.max()
        self.damping = torch.where(still, 0.0, SHARE * means) + decay

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P]; zero in a tensor in which no row has a gradient, and λ is therefore zero."""
        total, rows = torch.zeros_like(vectors, dtype=torch.float64), 0
        parts = vectors.double().split(self._sizes, 1)
        damping = self.damping.to(vectors.device)
        for gradients in self._row_gradients():
            found = []
            for v, g, each in zip(parts, gradients.double().split(self._sizes, 1), damping, strict=True):
                size = (g**2).sum(1)
                weight = (v @ g.T) / torch.where(each + size > 0, each + size, torch.ones_like(size))
                found.append(weight @ g)
            total += torch.cat(found, 1)
            rows += len(gradients)
        spread = damping.repeat_interleave(torch.tensor(self._sizes, device=vectors.device))
        x = (vectors.double() - total / rows) / torch.where(spread > 0, spread, torch.ones_like(spread))
        return Solution(torch.where(spread > 0, x, torch.zeros_like(x)).to(vectors))
