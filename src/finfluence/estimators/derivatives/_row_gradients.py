"""Gradients of single rows of a step: for the few steps at which slopes along a direction do not say enough."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from finfluence.estimators.derivatives._check import dear
from finfluence.estimators.derivatives._returned import ReturnedGradient, batch_normalised
from finfluence.grads import Batch, RowLosses
from finfluence.runs import Tape

AGREES = {torch.float64: 1e-8, torch.float32: 1e-3}
COARSE = 3e-2


class RowGradients:
    """∇̃ℓ_i(θ) of single rows, whatever autograd returns for them, weighed as the step weighs its rows.

    One `vmap` over rows where the loss allows it and gives the first row the gradient that it has among the others; of
    rows that are dear, a pass of each by itself, under the same condition; else one backward pass of the whole batch a
    row, under the step's own random numbers.

    Parameters
    ----------
    tape : Tape
    """

    def __init__(self, tape: Tape) -> None:
        self._losses = RowLosses(tape.working, tape.step_loss, tape.layout)
        self._plain = ReturnedGradient(tape.working, tape.step_loss)
        self._dear = dear(tape)
        apart = not tape.stochastic and not batch_normalised(tape.working)
        self._mapped: bool | None = None if apart else False

    def mean(self, theta: Tensor, batch: Batch, count: int, seed: int | None) -> Tensor:
        """Return the gradient [P] of the mean loss of a batch of `count` rows."""
        return self._plain.at(theta, batch, seed, theta.new_full((count,), 1 / count))

    def of(self, theta: Tensor, batch: Batch, count: int, seed: int | None, rows: Sequence[int]) -> Tensor:
        """Return the gradients [r, P] of some of the `count` rows of a batch."""
        separate = all(v.ndim and len(v) == count for v in batch.values())
        if separate and self._mapped is None:
            self._mapped = self._agrees(theta, batch, count, seed)
        if separate and self._mapped:
            return self._together(theta, {k: v[list(rows)] for k, v in batch.items()})
        return torch.stack([self._alone(theta, batch, count, seed, i) for i in rows])

    def _together(self, theta: Tensor, batch: Batch) -> Tensor:
        """Return the gradients [r, P] of rows that do not look at each other."""
        if self._dear:
            rows = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(_rows(batch))]
            return torch.stack([self._plain.at(theta, row, None, theta.new_ones(1)) for row in rows])

        def loss(point: Tensor, row: Batch) -> Tensor:
            return self._losses(point, {k: v.unsqueeze(0) for k, v in row.items()}).sum()

        found: Tensor = vmap(grad(loss), in_dims=(None, 0), randomness="error")(theta, batch)
        return found.detach()

    def _alone(self, theta: Tensor, batch: Batch, count: int, seed: int | None, row: int) -> Tensor:
        chosen = theta.new_zeros(count)
        chosen[row] = 1.0
        return self._plain.at(theta, batch, seed, chosen)

    def _agrees(self, theta: Tensor, batch: Batch, count: int, seed: int | None) -> bool:
        """Whether the first rows have the same gradients in `vmap` and among the others."""
        some = list(range(min(2, count)))
        try:
            found = self._together(theta, {k: v[some] for k, v in batch.items()})
        except (RuntimeError, ValueError, TypeError):  # an operation without a batching rule
            return False
        wanted = torch.stack([self._alone(theta, batch, count, seed, i) for i in some])
        apart, size = (found - wanted).norm(), wanted.norm()
        return bool(apart <= AGREES.get(theta.dtype, COARSE) * size)


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))
