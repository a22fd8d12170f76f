"""One flat vector for all trainable parameters of a model, and the way back."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from finfluence.errors import NotSupportedError, explain


class Layout:
    """Where each trainable parameter lies in one flat vector θ ∈ ℝᴾ.

    Parameters are keyed by name, in `named_parameters()` order; tied weights appear once.

    Parameters
    ----------
    model : nn.Module
        Only parameters with `requires_grad` are laid out.
    names : collection of str, optional
        Of these only.

    Raises
    ------
    NotSupportedError
        No parameter is trainable, or the trainable ones differ in dtype or device.

    Examples
    --------
    >>> layout = Layout(nn.Linear(3, 2))
    >>> layout.names, layout.size
    (['weight', 'bias'], 8)
    """

    def __init__(self, model: nn.Module, names: Collection[str] | None = None) -> None:
        trainable = [
            (name, p)
            for name, p in model.named_parameters()
            if p.requires_grad and (names is None or name in names)
        ]
        if not trainable:
            raise NotSupportedError(
                explain(
                    "a model with trainable parameters",
                    f"{type(model).__name__} with none",
                    "every parameter has requires_grad=False",
                    "unfreeze the parameters that the optimiser trains",
                )
            )
        kinds = {(p.dtype, p.device) for _, p in trainable}
        if len(kinds) > 1:
            raise NotSupportedError(
                explain(
                    "trainable parameters of one dtype on one device",
                    ", ".join(sorted(f"{d} on {v}" for d, v in kinds)),
                    "part of the model was cast or moved",
                    "cast the trainable parameters to one dtype and move them to one device",
                )
            )
        self.names = [name for name, _ in trainable]
        self.shapes = [p.shape for _, p in trainable]
        self.sizes = [p.numel() for _, p in trainable]
        self.size = sum(self.sizes)
        ((self.dtype, self.device),) = kinds

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the laid-out parameters of `model` in order."""
        by_name = dict(model.named_parameters())
        return [by_name[name] for name in self.names]

    def flatten(self, tensors: list[Tensor]) -> Tensor:
        """Join tensors (one per parameter, in order) into one vector."""
        return torch.cat([t.detach().reshape(-1) for t in tensors])

    def theta(self, model: nn.Module) -> Tensor:
        """Return a copy of the model's trainable parameters as one vector [P]."""
        return self.flatten(list(self.parameters(model)))

    def split(self, flat: Tensor) -> Mapping[str, Tensor]:
        """Return views of `flat` [P] shaped as the parameters, by name."""
        return {
            name: part.view(shape)
            for name, part, shape in zip(self.names, flat.split(self.sizes), self.shapes, strict=True)
        }

    def split_rows(self, vectors: Tensor) -> dict[str, Tensor]:
        """Return the parts [K, p] of vectors [K, P] in each parameter, by name."""
        return dict(zip(self.names, vectors.split(self.sizes, 1), strict=True))

    def assign(self, model: nn.Module, flat: Tensor) -> None:
        """Copy `flat` [P] into the parameters of `model` (ours, never the user's)."""
        views = self.split(flat)
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters(model), strict=True):
                parameter.copy_(views[name])
