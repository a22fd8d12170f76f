"""Stochastic gradient descent: description, rule and update."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.errors import ConfigError, explain
from finfluence.runs.describe.optimizers._arithmetic import Number, Pull, Slots, is_zero, smallest
from finfluence.runs.describe.optimizers._rule import Group, Optimizer, Rule, register

LEAST_FRESH = 0.05


@dataclass(frozen=True)
class SGDOptions:
    """What a step needs; `fresh` is the weight of the new gradient in the momentum buffer."""

    lr: Number
    momentum: Number
    fresh: Number
    weight_decay: Number
    nesterov: bool


def sgd_step(theta: Tensor, slots: Slots, grad: Tensor, options: SGDOptions) -> tuple[Tensor, Slots]:
    """Return (θ, slots) after one step of `torch.optim.SGD`.

    g ← g + wd·θ;  m ← momentum·m + fresh·g;  θ ← θ − lr·(g + momentum·m if nesterov else m).

    Returns
    -------
    θ [P] and the momentum buffer, of which there is none without momentum.
    """
    o = options
    if not is_zero(o.weight_decay):
        grad = grad + o.weight_decay * theta
    if is_zero(o.momentum):
        return theta - o.lr * grad, ()
    buffer = o.momentum * slots[0] + o.fresh * grad
    direction = grad + o.momentum * buffer if o.nesterov else buffer
    if isinstance(o.momentum, Tensor):  # groups without momentum leave theirs as it is
        buffer = torch.where(o.momentum == 0, slots[0], buffer)
    return theta - o.lr * direction, (buffer,)


def sgd_pull_back(options: SGDOptions) -> Pull:
    """Return the map of λ [..., 1+S, P] to (∂U/∂s)ᵀλ and (∂U/∂g)ᵀλ of `sgd_step`, which is linear."""
    o = options

    def pull(after: Tensor) -> tuple[Tensor, Tensor]:
        of_theta = after[..., 0, :]
        if is_zero(o.momentum):
            direction, parts = -o.lr * of_theta, []
        else:
            buffer = after[..., 1, :] - (o.lr * o.momentum if o.nesterov else o.lr) * of_theta
            direction = o.fresh * buffer - o.lr * of_theta if o.nesterov else o.fresh * buffer
            parts = [o.momentum * buffer]
            if isinstance(o.momentum, Tensor):  # groups without momentum leave their buffer as it is
                still = o.momentum == 0
                direction = torch.where(still, -o.lr * of_theta, direction)
                parts = [torch.where(still, after[..., 1, :], parts[0])]
        if not is_zero(o.weight_decay):
            of_theta = of_theta + o.weight_decay * direction
        return torch.stack([of_theta, *parts], -2), direction

    return pull


def sgd_gradient(slots: Slots, after: Slots, theta: Tensor, options: SGDOptions) -> Tensor | None:
    """Return the gradient that took the buffer from `slots` to `after`; None where there is none to read it from.

    The parameters' own difference would lose too many digits.

    Returns
    -------
    Tensor [P] or None
    """
    o = options
    if not after or smallest(o.momentum) == 0 or smallest(o.fresh) < LEAST_FRESH:
        return None  # a group without momentum keeps no buffer
    found = (after[0] - o.momentum * slots[0]) / o.fresh
    return found if is_zero(o.weight_decay) else found - o.weight_decay * theta


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent; arguments and defaults of `torch.optim.SGD`.

    g ← g + wd·θ;  m ← momentum·m + (1 − dampening)·g (the first step: m ← g);
    θ ← θ − lr·(g + momentum·m if nesterov else m).

    Raises
    ------
    ConfigError
        A number that is negative or infinite; nesterov without momentum, or with dampening.

    Examples
    --------
    >>> SGD(lr=0.1, momentum=0.9).slots
    ('momentum_buffer',)
    """

    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ConfigError(
                explain(
                    "momentum > 0 and dampening = 0 with nesterov=True",
                    f"momentum={self.momentum}, dampening={self.dampening}",
                    "Nesterov momentum is defined only there",
                    "pass momentum=0.9 or nesterov=False",
                )
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the optimiser's buffers, one vector each."""
        return ("momentum_buffer",) if self.momentum else ()

    def torch(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the `torch.optim` twin over `parameters`."""
        return torch.optim.SGD(parameters, **asdict(self))

    def hyper(self, step: int, rate: float) -> tuple[float, ...]:
        """Return the numbers of step `step` (from 0): learning rate, weight of the new gradient in m."""
        return (self.lr * rate, 1.0 if step == 0 else 1.0 - self.dampening)

    def update(
        self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, Slots]:
        """Return (θ_{t+1}, slots_{t+1})."""
        return sgd_step(theta, slots, grad, self._options(hyper))

    def pull_back(self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]) -> Pull | None:
        """Return the map of λ to (∂U/∂s)ᵀλ and (∂U/∂g)ᵀλ."""
        return sgd_pull_back(self._options(hyper))

    def gradient(self, theta: Tensor, slots: Slots, after: Slots, hyper: tuple[Tensor, ...]) -> Tensor | None:
        """Return the gradient of the step that left the buffer `after`."""
        return sgd_gradient(slots, after, theta, self._options(hyper))

    def _options(self, hyper: tuple[Tensor, ...]) -> SGDOptions:
        lr, fresh = hyper
        return SGDOptions(lr, self.momentum, fresh, self.weight_decay, self.nesterov)


class _SGDRule(Rule):
    torch_class = torch.optim.SGD
    numbers = ("lr", "momentum", "dampening", "weight_decay")
    flags = ("nesterov", "maximize")

    def slots(self, groups: Sequence[Group]) -> tuple[str, ...]:
        return ("momentum_buffer",) if any(g["momentum"] != 0 for g in groups) else ()

    def numbers_at(self, numbers: dict[str, np.ndarray], t: np.ndarray) -> dict[str, np.ndarray]:
        rest = {name: values for name, values in numbers.items() if name != "dampening"}
        first = (t == 1) | (numbers["momentum"] == 0)
        return {**rest, "fresh": np.where(first, 1.0, 1.0 - numbers["dampening"])}

    def step(
        self,
        theta: Tensor,
        slots: Slots,
        grad: Tensor,
        options: Mapping[str, Any],
        shapes: Sequence[torch.Size],
    ) -> tuple[Tensor, Slots]:
        return sgd_step(theta, slots, grad, self._read(options))

    def pull_back(self, theta: Tensor, slots: Slots, grad: Tensor, options: Mapping[str, Any]) -> Pull | None:
        return sgd_pull_back(self._read(options))

    def gradient(
        self, theta: Tensor, slots: Slots, after: Slots, options: Mapping[str, Any]
    ) -> Tensor | None:
        return sgd_gradient(slots, after, theta, self._read(options))

    def tells_gradient(self, numbers: Mapping[str, np.ndarray]) -> bool:
        momentum, fresh = numbers["momentum"], numbers["fresh"]
        return bool((momentum == 0).all() or ((momentum != 0).all() and (fresh >= LEAST_FRESH).all()))

    def _read(self, options: Mapping[str, Any]) -> SGDOptions:
        names = ("lr", "momentum", "fresh", "weight_decay", "nesterov")
        return SGDOptions(*(options[name] for name in names))

    def state_of(
        self, group: Group, slots: dict[str, Tensor], steps_done: int, device: torch.device
    ) -> Group:
        return slots if group["momentum"] != 0 else {}


SGD_RULE = register(_SGDRule())
