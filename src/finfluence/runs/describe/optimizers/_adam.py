"""Adam and AdamW: descriptions, rules and update."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import threshold

from finfluence.runs.describe.optimizers._arithmetic import (
    MOST_REMEMBERED,
    Number,
    Pull,
    Slots,
    is_zero,
    largest,
)
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
    most = torch.maximum(slots[2], square) if o.amsgrad else square
    # v = 0: a step of 0. A mask would take as long as all the rest.
    root = threshold(most, 0.0, torch.inf).sqrt()
    new = theta - o.lr / o.correct_first * mean / (root / o.correct_second + o.eps)
    return new, (mean, square, most) if o.amsgrad else (mean, square)


def adam_pull_back(theta: Tensor, slots: Slots, grad: Tensor, options: AdamOptions) -> Pull | None:
    """Return the map of λ to (∂U/∂s)ᵀλ and (∂U/∂g)ᵀλ of `adam_step`, in closed form.

    With D = √v'/√(1−β₂ᵗ) + eps, a = lr/(1−β₁ᵗ) and primes for what the step leaves:

        b_m = λ_m − a·λ_θ/D,   b_v = λ_v + a·λ_θ·m'/(2D²√v'·√(1−β₂ᵗ)),   u = (1−β₁)·b_m + 2(1−β₂)·g·b_v.

    Returns
    -------
    callable, or None with `amsgrad`
    """
    o = options
    if o.amsgrad:
        return None
    decays = not o.decoupled and not is_zero(o.weight_decay)
    if decays:
        grad = grad + o.weight_decay * theta
    mean = o.first * slots[0] + (1 - o.first) * grad
    twice = (2 * (1 - o.second)) * grad
    square = torch.addcmul(o.second * slots[1], twice, grad, value=0.5)
    root = threshold(square, 0.0, torch.inf).sqrt()  # v = 0: nothing of θ
    scale = root / o.correct_second + o.eps
    step = o.lr / o.correct_first / scale
    bend = step * mean / (2 * o.correct_second * root * scale)

    def pull(after: Tensor) -> tuple[Tensor, Tensor]:
        of_theta, of_mean, of_square = after.unbind(-2)
        of_mean = torch.addcmul(of_mean, step, of_theta, value=-1)
        of_square = torch.addcmul(of_square, bend, of_theta)
        direction = torch.addcmul((1 - o.first) * of_mean, twice, of_square)
        if decays:
            of_theta = of_theta + o.weight_decay * direction
        elif o.decoupled:
            of_theta = of_theta * (1 - o.lr * o.weight_decay)
        return torch.stack([of_theta, o.first * of_mean, o.second * of_square], -2), direction

    return pull


def adam_gradient(slots: Slots, after: Slots, theta: Tensor, options: AdamOptions) -> Tensor | None:
    """Return the gradient that took the buffers from `slots` to `after`: (m' − β₁m)/(1−β₁), less weight decay.

    Returns
    -------
    Tensor [P], or None where 1 − β₁ is so small that rounding of m' would show
    """
    o = options
    if largest(o.first) > MOST_REMEMBERED:
        return None
    found = (after[0] - o.first * slots[0]) / (1 - o.first)
    return found if o.decoupled or is_zero(o.weight_decay) else found - o.weight_decay * theta


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

    @property
    def translates(self) -> bool:
        """Whether what a gradient does to θ and the slots is the same at every θ: weights do not decay through it."""
        return self.decoupled or self.weight_decay == 0

    def update(
        self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, Slots]:
        """Return (θ_{t+1}, slots_{t+1})."""
        return adam_step(theta, slots, grad, self._options(hyper))

    def pull_back(self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]) -> Pull | None:
        """Return the map of λ to (∂U/∂s)ᵀλ and (∂U/∂g)ᵀλ."""
        return adam_pull_back(theta, slots, grad, self._options(hyper))

    def gradient(self, theta: Tensor, slots: Slots, after: Slots, hyper: tuple[Tensor, ...]) -> Tensor | None:
        """Return the gradient of the step that left the buffers `after`."""
        return adam_gradient(slots, after, theta, self._options(hyper))

    def _options(self, hyper: tuple[Tensor, ...]) -> AdamOptions:
        lr, correct_first, correct_second = hyper
        return AdamOptions(
            lr, *self.betas, correct_first, correct_second, self.eps, self.weight_decay, self.decoupled
        )


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
        return adam_step(theta, slots, grad, self._read(options))

    def pull_back(self, theta: Tensor, slots: Slots, grad: Tensor, options: Mapping[str, Any]) -> Pull | None:
        return adam_pull_back(theta, slots, grad, self._read(options))

    def gradient(
        self, theta: Tensor, slots: Slots, after: Slots, options: Mapping[str, Any]
    ) -> Tensor | None:
        return adam_gradient(slots, after, theta, self._read(options))

    def translates(self, options: Mapping[str, Any]) -> bool:
        decay = options.get("weight_decay")
        return bool(
            self.decoupled or options["decoupled_weight_decay"] or (decay is not None and is_zero(decay))
        )

    def tells_gradient(self, numbers: Mapping[str, np.ndarray]) -> bool:
        return bool((numbers["first"] <= MOST_REMEMBERED).all())

    def _read(self, options: Mapping[str, Any]) -> AdamOptions:
        names = ("lr", "first", "second", "correct_first", "correct_second", "eps", "weight_decay")
        decoupled = options["decoupled_weight_decay"] or self.decoupled
        named = {name: options[name] for name in names}
        return AdamOptions(**named, decoupled=decoupled, amsgrad=options["amsgrad"])

    def state_of(
        self, group: Group, slots: dict[str, Tensor], steps_done: int, device: torch.device
    ) -> Group:
        on_device = group.get("capturable") or group.get("fused")
        return {**slots, "step": torch.tensor(float(steps_done), device=device if on_device else "cpu")}


class _AdamWRule(_AdamRule):
    torch_class = torch.optim.AdamW
    decoupled = True


ADAM_RULE, ADAMW_RULE = register(_AdamRule()), register(_AdamWRule())
