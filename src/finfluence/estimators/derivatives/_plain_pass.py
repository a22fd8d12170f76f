"""Row losses and the mean loss's gradient at a point, by training's own passes over a flat copy of the model."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from finfluence.grads import Batch, RowLosses, seed_generators, without_graph
from finfluence.runs.describe import copy_model


class PlainPass:
    """Forward and backward passes at any θ, with no more than training's own work.

    Parameters
    ----------
    losses : RowLosses
        Whose model is copied; memory of frozen parameters is shared. The copy's parameters and their gradients are
        views of one vector each, so that a point is set and a gradient read by one operation.
    """

    def __init__(self, losses: RowLosses) -> None:
        layout, self._loss = losses.layout, losses.loss
        chosen = set(layout.names)
        frozen = [p for name, p in losses.model.named_parameters() if name not in chosen]
        self._model = copy_model(losses.model, frozen)
        self._theta = torch.empty(layout.size, dtype=layout.dtype, device=layout.device)
        self._gradient = torch.zeros_like(self._theta)
        points, gradients = layout.split(self._theta), layout.split(self._gradient)
        self._parameters = layout.parameters(self._model)
        self._gradients = [gradients[name] for name in layout.names]
        for name, parameter in zip(layout.names, self._parameters, strict=True):
            parameter.data = points[name]

    def gradient(
        self,
        theta: Tensor,
        batch: Batch,
        seed: int | None,
        mode: AbstractContextManager[object] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient [P], which the next call overwrites, and the row losses [B] at θ [P]."""
        self._set(theta, seed)
        self._gradient.zero_()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        with torch.enable_grad():
            with mode or nullcontext():
                losses = self._loss(self._model, batch)
            losses.mean().backward()
        return self._gradient, losses.detach()

    def losses(
        self,
        theta: Tensor,
        batch: Batch,
        seed: int | None,
        mode: AbstractContextManager[object] | None = None,
    ) -> Tensor:
        """Return the row losses [B] at θ [P]."""
        self._set(theta, seed)
        with mode or nullcontext():
            return without_graph(lambda: self._loss(self._model, batch))

    def _set(self, theta: Tensor, seed: int | None) -> None:
        self._theta.copy_(theta)
        if seed is not None:
            seed_generators(seed, theta.device)
