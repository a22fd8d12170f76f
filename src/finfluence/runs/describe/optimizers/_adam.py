"""Adam and AdamW: descriptions, rules and update."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from finfluence.runs.describe.optimizers._arithmetic import Number, Slots, is_zero
from finfluence.runs.describe.optimizers._rule import Group, Optimizer, Rule, register


@dataclass(frozen=True)
class AdamOptions:
    """What a step needs: β₁ and β₂, 1 − β₁ᵗ and √(1 − β₂ᵗ), and whether weight decay is AdamW's (`decoupled`)."""

    lr: Number
    first: Number
    second: Number
    correct_first: Number
    correct_second: Number
    eps: Number
    weight_decay: Number
    decoupled: bool
    amsgrad: bool = False


def adam_step(theta: Tensor, slots: Slots, grad: Tensor, options: AdamOptions) -> tuple[Tensor, Slots]:
    """Return (θ, slots) after one step of `torch.optim.Adam`, or of AdamW if `decoupled`.

    m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps), v its largest so far with
    `amsgrad`. A coordinate that has never had a gradient (v = 0) does not move; its derivative, infinite in the
    formula, is taken as zero.

    Returns
    -------
    θ [P], and the slots m, v and, with `amsgrad`, the largest v.
    """
    o = options
    if o.decoupled:
        theta = theta * (1 - o.lr * o.weight_decay)
    elif not is_zero(o.weight_decay):
        grad = grad + o.weight_decay * theta
    mean = o.first * slots[0] + (1 - o.first) * grad
    square = o.second * slots[1] + (1 - o.second) * grad * grad
    largest = torch.maximum(slots[2], square) if o.amsgrad else square
    moved = largest != 0
    root = torch.where(moved, largest, torch.ones_like(largest)).sqrt()
    step = o.lr / o.correct_first * mean / (root / o.correct_second + o.eps)
    new = theta - torch.where(moved, step, torch.zeros_like(step))
    return new, (mean, square, largest) if o.amsgrad else (mean, square)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam; arguments and defaults of `torch.optim.Adam`.

    g ← g + wd·θ;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;
    θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps).

    Raises
    ------
    ConfigError
        A number that is negative or infinite.

    Examples
    --------
    >>> Adam(lr=0.01).slots
    ('exp_avg', 'exp_avg_sq')
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    decoupled: ClassVar[bool] = False

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the optimiser's buffers, one vector each."""
        return ("exp_avg", "exp_avg_sq")

    def torch(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the `torch.optim` twin over `parameters`."""
        return torch.optim.Adam(parameters, **asdict(self))

    def hyper(self, step: int, rate: float) -> tuple[float, ...]:
        """Return the numbers of step `step` (from 0): learning rate, 1 − β₁ᵗ, √(1 − β₂ᵗ)."""
        first, second = self.betas
        return (self.lr * rate, 1 - first ** (step + 1), (1 - second ** (step + 1)) ** 0.5)

    def update(
        self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, Slots]:
        """Return (θ_{t+1}, slots_{t+1})."""
        lr, correct_first, correct_second = hyper
        options = AdamOptions(
            lr, *self.betas, correct_first, correct_second, self.eps, self.weight_decay, self.decoupled
        )
        return adam_step(theta, slots, grad, options)


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW; arguments and defaults of `torch.optim.AdamW`: Adam with θ ← θ·(1 − lr·wd) before the step.

    Raises
    ------
    ConfigError
        A number that is negative or infinite.

    Examples
    --------
    >>> AdamW().weight_decay
    0.01
    """

    weight_decay: float = 1e-2
    decoupled: ClassVar[bool] = True

    def torch(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the `torch.optim` twin over `parameters`."""
        return torch.optim.AdamW(parameters, **asdict(self))


class _AdamRule(Rule):
    torch_class: type[torch.optim.Optimizer] = torch.optim.Adam
    numbers = ("lr", "first", "second", "eps", "weight_decay")
    flags = ("amsgrad", "maximize", "decoupled_weight_decay")
    decoupled = False

    def slots(self, groups: Sequence[Group]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if groups[0]["amsgrad"] else []))

    def numbers_of(self, group: Group) -> tuple[float, ...]:
        return group["lr"], *group["betas"], group["eps"], group["weight_decay"]

    def set_numbers(self, group: Group, values: Sequence[float]) -> None:
        lr, first, second, eps, weight_decay = map(float, values)
        group.update(lr=lr, betas=(first, second), eps=eps, weight_decay=weight_decay)

    def numbers_at(self, numbers: dict[str, np.ndarray], t: np.ndarray) -> dict[str, np.ndarray]:
        first, second = 1 - numbers["first"] ** t, (1 - numbers["second"] ** t) ** 0.5
        return {**numbers, "correct_first": first, "correct_second": second}

    def step(
        self,
        theta: Tensor,
        slots: Slots,
        grad: Tensor,
        options: Mapping[str, Any],
        shapes: Sequence[torch.Size],
    ) -> tuple[Tensor, Slots]:
        names = ("lr", "first", "second", "correct_first", "correct_second", "eps", "weight_decay")
        decoupled = options["decoupled_weight_decay"] or self.decoupled
        named = {name: options[name] for name in names}
        read = AdamOptions(**named, decoupled=decoupled, amsgrad=options["amsgrad"])
        return adam_step(theta, slots, grad, read)

    def state_of(
        self, group: Group, slots: dict[str, Tensor], steps_done: int, device: torch.device
    ) -> Group:
        on_device = group.get("capturable") or group.get("fused")
        return {**slots, "step": torch.tensor(float(steps_done), device=device if on_device else "cpu")}


class _AdamWRule(_AdamRule):
    torch_class = torch.optim.AdamW
    decoupled = True


ADAM_RULE, ADAMW_RULE = register(_AdamRule()), register(_AdamWRule())
