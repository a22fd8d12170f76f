"""The arithmetic of optimisers as differentiable functions: torch.optim's steps, in the same order of operations.

Options are Python floats, or tensors where they change from step to step or between parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Number = float | Tensor
Slots = tuple[Tensor, ...]


def sgd_step(
    theta: Tensor,
    slots: Slots,
    grad: Tensor,
    *,
    lr: Number,
    momentum: Number,
    fresh: Number,
    weight_decay: Number,
    nesterov: bool,
) -> tuple[Tensor, Slots]:
    """Return (θ, slots) after one step of `torch.optim.SGD`; `fresh` is the weight of the new gradient in m.

    g ← g + wd·θ;  m ← momentum·m + fresh·g;  θ ← θ − lr·(g + momentum·m if nesterov else m).
    """
    if not _zero(weight_decay):
        grad = grad + weight_decay * theta
    if _zero(momentum):
        return theta - lr * grad, ()
    buffer = momentum * slots[0] + fresh * grad
    direction = grad + momentum * buffer if nesterov else buffer
    return theta - lr * direction, (buffer,)


def adam_step(
    theta: Tensor,
    slots: Slots,
    grad: Tensor,
    *,
    lr: Number,
    first: Number,
    second: Number,
    correct_first: Number,
    correct_second: Number,
    eps: Number,
    weight_decay: Number,
    decoupled: bool,
    amsgrad: bool = False,
) -> tuple[Tensor, Slots]:
    """Return (θ, slots) after one step of `torch.optim.Adam`, or of AdamW if `decoupled`.

    m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps), v its largest so far with
    `amsgrad`. A coordinate that has never had a gradient (v = 0) does not move; its derivative, infinite in the
    formula, is taken as zero.
    """
    if decoupled:
        theta = theta * (1 - lr * weight_decay)
    elif not _zero(weight_decay):
        grad = grad + weight_decay * theta
    mean = first * slots[0] + (1 - first) * grad
    square = second * slots[1] + (1 - second) * grad * grad
    largest = torch.maximum(slots[2], square) if amsgrad else square
    moved = largest != 0
    root = torch.where(moved, largest, torch.ones_like(largest)).sqrt()
    step = lr / correct_first * mean / (root / correct_second + eps)
    new = theta - torch.where(moved, step, torch.zeros_like(step))
    return new, (mean, square, largest) if amsgrad else (mean, square)


def muon_step(
    theta: Tensor,
    slots: Slots,
    grad: Tensor,
    *,
    shapes: Sequence[torch.Size],
    lr: Number,
    momentum: Number,
    weight_decay: Number,
    eps: float,
    nesterov: bool,
    coefficients: tuple[float, float, float],
    iterations: int,
    adjust: str | None,
) -> tuple[Tensor, Slots]:
    """Return (θ, slots) after one step of `torch.optim.Muon`, matrix by matrix.

    m ← momentum·m + (1−momentum)·g;  d = g + momentum·(m − g) if nesterov else m;
    θ ← θ·(1 − lr·wd) − lr·ratio·NS(d), NS the Newton–Schulz iteration. torch runs it in bfloat16; here it has the
    parameters' own precision, which its derivative needs.
    """
    buffer = momentum * slots[0] + (1 - momentum) * grad
    direction = grad + momentum * (buffer - grad) if nesterov else buffer
    sizes = [shape.numel() for shape in shapes]
    parts = []
    for part, shape in zip(direction.split(sizes), shapes, strict=True):
        wide = part.view(shape) if shape[0] <= shape[1] else part.view(shape).T
        turned = _newton_schulz(wide, coefficients, iterations, eps)
        ratio = {"match_rms_adamw": 0.2 * max(shape) ** 0.5}.get(
            adjust or "", max(1, shape[0] / shape[1]) ** 0.5
        )
        parts.append((ratio * (turned if shape[0] <= shape[1] else turned.T)).reshape(-1))
    return theta * (1 - lr * weight_decay) - lr * torch.cat(parts), (buffer,)


def clip_norm(grad: Tensor, limit: float) -> Tensor:
    """Return the gradient scaled to a norm of at most `limit`, as `torch.nn.utils.clip_grad_norm_` does."""
    return grad * (limit / (_norm(grad) + 1e-6)).clamp(max=1.0)


def _newton_schulz(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    a, b, c = coefficients
    x = x / _norm(x).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _norm(x: Tensor) -> Tensor:
    """The Euclidean norm, with derivative 0 at 0."""
    squared = (x * x).sum()
    safe = torch.where(squared == 0, torch.ones_like(squared), squared)
    return torch.where(squared == 0, torch.zeros_like(squared), safe.sqrt())


def _zero(value: Number) -> bool:
    return not isinstance(value, Tensor) and value == 0
