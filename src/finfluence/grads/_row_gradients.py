"""Gradients of rows in some parameters written out, for what no factors give."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from finfluence.grads._checkpointing import no_checkpointing
from finfluence.grads._flat import Layout
from finfluence.grads._losses import Batch, RowLoss, RowLosses


class WrittenRows:
    """Row gradients in some parameters: one `vmap` over the rows where the loss allows it, else row by row.

    Parameters
    ----------
    model : nn.Module
        Ours.
    loss : callable
        `loss(model, batch) -> Tensor[B]`; one that draws no random numbers.
    names : sequence of str
        The parameters.
    mapped : bool
        Otherwise row by row from the start: for few rows.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> rows = WrittenRows(model, lambda m, b: m(b["x"])[:, 0], ["weight"])
    >>> rows.gradients({"x": torch.eye(2)}).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, model: nn.Module, loss: RowLoss, names: Sequence[str], mapped: bool = True) -> None:
        self.model, self.loss = model, loss
        self.layout = Layout(model, names)
        self._losses = RowLosses(model, loss, self.layout)
        self._maps: bool | None = None if mapped else False

    def gradients(self, batch: Batch) -> Tensor:
        """Return the gradients [B, P] of the rows of a batch, P over the parameters in the model's order."""
        theta = self.layout.theta(self.model)
        if self._maps is not False:
            try:
                found: Tensor = vmap(self._of_one, in_dims=(None, 0), randomness="same")(theta, batch)
                self._maps = True
                return found.detach()  # other parameters have a graph
            except Exception:  # its code asks for values, or an operation has no batching rule
                if self._maps:
                    raise
                self._maps = False
        count = len(next(iter(batch.values())))
        return torch.stack([self._alone({k: v[i : i + 1] for k, v in batch.items()}) for i in range(count)])

    def _of_one(self, theta: Tensor, row: Batch) -> Tensor:
        batch = {name: value.unsqueeze(0) for name, value in row.items()}
        gradient: Tensor = grad(lambda p: self._losses(p, batch).sum())(theta)
        return gradient

    def _alone(self, batch: Batch) -> Tensor:
        parameters = self.layout.parameters(self.model)
        with torch.enable_grad(), no_checkpointing():
            parts = torch.autograd.grad(self.loss(self.model, batch).sum(), parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        return self.layout.flatten(filled)
