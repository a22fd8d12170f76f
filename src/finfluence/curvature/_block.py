"""The curvature of one layer as a Kronecker product, and with its eigenvalues corrected."""

from collections.abc import Callable

import torch
from torch import Tensor

HELD = 2**24  # numbers of row gradients held at once


class KroneckerBlock:
    """C ≈ A ⊗ S of a layer with row gradients G_i = Σ_t b_it a_itᵀ: A = mean of aaᵀ, S = mean of Σ_t bbᵀ.

    In the eigenbases Q_A, Q_S the curvature is diagonal: K-FAC's eigenvalues are products of those of A and S, EK-FAC's
    are the mean of (Q_Sᵀ G_i Q_A)² itself, the best diagonal in this basis.

    Call `add` on all rows, then `rotate`; for EK-FAC call `correct` on all rows, then `corrected`.

    Examples
    --------
    >>> a = torch.tensor([[1.0, 0], [1, 1], [0, 2]])[:, None]
    >>> b = torch.tensor([[1.0, 0], [0, 1], [1, -1]])[:, None]
    >>> block = KroneckerBlock()
    >>> block.add(a, b)
    >>> block.rotate()
    >>> block.correct(a, b)
    >>> block.corrected()
    >>> x = block.apply(torch.tensor([[[1.0, 2], [0, -1]]]), lambda e: 1 / (e + 0.1))
    >>> [round(v, 4) for v in x.flatten().tolist()]
    [1.7, 1.8176, 1.2222, 0.7893]
    """

    def __init__(self) -> None:
        self._inputs: Tensor | None = None
        self._outputs: Tensor | None = None
        self._sum: Tensor | None = None
        self._rows = self._positions = self._corrections = 0

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add rows to A and S: a [B, T, in], b [B, T, out]."""
        a, b = inputs.flatten(0, 1), outputs.flatten(0, 1)
        of_a, of_b = (a.T @ a).double(), (b.T @ b).double()
        self._inputs = of_a if self._inputs is None else self._inputs + of_a
        self._outputs = of_b if self._outputs is None else self._outputs + of_b
        self._rows += len(inputs)
        self._positions += len(a)

    def rotate(self) -> None:
        """Find the eigenbases, in double precision; the eigenvalues are then K-FAC's."""
        assert self._inputs is not None and self._outputs is not None
        of_a, q_a = torch.linalg.eigh(self._inputs / self._positions)
        of_s, q_s = torch.linalg.eigh(self._outputs / self._rows)
        self.values = of_s.clamp_min(0)[:, None] * of_a.clamp_min(0)
        self._q_a, self._q_s = q_a, q_s
        self._inputs = self._outputs = None

    def correct(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add rows to the mean of (Q_Sᵀ G_i Q_A)²; without positions no G_i is formed."""
        a, b = inputs @ self._q_a.to(inputs), outputs @ self._q_s.to(outputs)
        if a.shape[1] == 1:
            found = (b[:, 0] ** 2).T @ a[:, 0] ** 2
        else:
            at_once = max(1, HELD // (a.shape[2] * b.shape[2]))
            found = a.new_zeros(b.shape[2], a.shape[2])
            for some_a, some_b in zip(a.split(at_once), b.split(at_once), strict=True):
                found += ((some_b.transpose(1, 2) @ some_a) ** 2).sum(0)
        self._sum = found.double() if self._sum is None else self._sum + found
        self._corrections += len(inputs)

    def corrected(self) -> None:
        """Take EK-FAC's eigenvalues in place of K-FAC's."""
        assert self._sum is not None
        self.values, self._sum = self._sum / self._corrections, None

    def apply(self, matrices: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return f(C) applied to matrices [K, out, in], f a function of the eigenvalues."""
        q_a, q_s = self._q_a.to(matrices), self._q_s.to(matrices)
        turned = q_s.T @ matrices @ q_a * function(self.values).to(matrices)
        found: Tensor = q_s @ turned @ q_a.T
        return found
