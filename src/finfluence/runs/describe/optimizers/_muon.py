"""Muon: rule and update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.runs.describe.optimizers._arithmetic import (
    MOST_REMEMBERED,
    Number,
    Slots,
    largest,
    norm,
    smallest,
)
from finfluence.runs.describe.optimizers._rule import Group, Rule, register


@dataclass(frozen=True)
class MuonOptions:
    """What a step needs; `adjust` is torch's `adjust_lr_fn`."""

    lr: Number
    momentum: Number
    weight_decay: Number
    eps: float
    nesterov: bool
    coefficients: tuple[float, float, float]
    iterations: int
    adjust: str | None


def muon_step(
    theta: Tensor, slots: Slots, grad: Tensor, options: MuonOptions, shapes: Sequence[torch.Size]
) -> tuple[Tensor, Slots]:
    """Return (θ, slots) after one step of `torch.optim.Muon`, matrix by matrix.

    m ← momentum·m + (1−momentum)·g;  d = g + momentum·(m − g) if nesterov else m;
    θ ← θ·(1 − lr·wd) − lr·ratio·NS(d), NS the Newton–Schulz iteration. torch runs it in bfloat16; here it has the
    parameters' own precision, which its derivative needs.

    Returns
    -------
    θ [P] and the momentum buffer.
    """
    o = options
    buffer = o.momentum * slots[0] + (1 - o.momentum) * grad
    direction = grad + o.momentum * (buffer - grad) if o.nesterov else buffer
    sizes = [shape.numel() for shape in shapes]
    parts = []
    for part, shape in zip(direction.split(sizes), shapes, strict=True):
        wide = part.view(shape) if shape[0] <= shape[1] else part.view(shape).T
        turned = _newton_schulz(wide, o.coefficients, o.iterations, o.eps)
        ratio = {"match_rms_adamw": 0.2 * max(shape) ** 0.5}.get(
            o.adjust or "", max(1, shape[0] / shape[1]) ** 0.5
        )
        parts.append((ratio * (turned if shape[0] <= shape[1] else turned.T)).reshape(-1))
    return theta * (1 - o.lr * o.weight_decay) - o.lr * torch.cat(parts), (buffer,)


def _newton_schulz(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    a, b, c = coefficients
    x = x / norm(x).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class _MuonRule(Rule):
    numbers = ("lr", "momentum", "weight_decay")
    flags = ("nesterov", "eps", "ns_coefficients", "ns_steps", "adjust_lr_fn")
    tolerance = 0.5  # torch iterates in bfloat16
    elementwise = False

    def __init__(self, torch_class: type[torch.optim.Optimizer]) -> None:
        self.torch_class = torch_class

    def slots(self, groups: Sequence[Group]) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def numbers_at(self, numbers: dict[str, np.ndarray], t: np.ndarray) -> dict[str, np.ndarray]:
        return numbers

    def step(
        self,
        theta: Tensor,
        slots: Slots,
        grad: Tensor,
        options: Mapping[str, Any],
        shapes: Sequence[torch.Size],
    ) -> tuple[Tensor, Slots]:
        read = MuonOptions(
            options["lr"], options["momentum"], options["weight_decay"], options["eps"], options["nesterov"],
            tuple(options["ns_coefficients"]), options["ns_steps"], options["adjust_lr_fn"],
        )  # fmt: skip
        return muon_step(theta, slots, grad, read, shapes)

    def gradient(
        self, theta: Tensor, slots: Slots, after: Slots, options: Mapping[str, Any]
    ) -> Tensor | None:
        momentum = options["momentum"]
        if largest(momentum) > MOST_REMEMBERED or smallest(momentum) == 0:
            return None
        found: Tensor = (after[0] - momentum * slots[0]) / (1 - momentum)
        return found

    def tells_gradient(self, numbers: Mapping[str, np.ndarray]) -> bool:
        momentum = numbers["momentum"]
        return bool(((momentum > 0) & (momentum <= MOST_REMEMBERED)).all())

    def state_of(
        self, group: Group, slots: dict[str, Tensor], steps_done: int, device: torch.device
    ) -> Group:
        return slots if group["momentum"] != 0 else {}


MUON_RULE = (
    register(_MuonRule(torch.optim.Muon)) if hasattr(torch.optim, "Muon") else None
)  # torch 2.9 and later
