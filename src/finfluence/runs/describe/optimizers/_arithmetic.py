"""What the updates of several optimisers share; all of it differentiable."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST_REMEMBERED = (
    0.951  # of a buffer from step to step, for the gradient to be read off it: .95, but for rounding
)

Number = float | Tensor
Slots = tuple[Tensor, ...]
Pull = Callable[[Tensor], tuple[Tensor, Tensor]]


def clip_norm(grad: Tensor, limit: float) -> Tensor:
    """Return the gradient scaled to a norm of at most `limit`, as `torch.nn.utils.clip_grad_norm_` does."""
    return grad * (limit / (norm(grad) + 1e-6)).clamp(max=1.0)


def norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm, with derivative 0 at 0."""
    squared = (x * x).sum()
    safe = torch.where(squared == 0, torch.ones_like(squared), squared)
    return torch.where(squared == 0, torch.zeros_like(squared), safe.sqrt())


def largest(value: Number) -> float:
    """Return the largest value that an option has: over parameters, if it differs between them."""
    return float(value.max()) if isinstance(value, Tensor) else value


def smallest(value: Number) -> float:
    """Return the smallest value that an option has."""
    return float(value.min()) if isinstance(value, Tensor) else value


def is_zero(value: Number) -> bool:
    """Whether an option is the Python number 0, so that its term can be left out."""
    return not isinstance(value, Tensor) and value == 0
