"""Optimisers: torch.optim's names and defaults, each with its update as a differentiable function.

The update maps (θ_t, slots_t, g_t) to (θ_{t+1}, slots_{t+1}); it is the same arithmetic as the optimiser's
own step, so that its vector-Jacobian product is the exact adjoint of that step.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from finfluence.errors import ConfigError, explain
from finfluence.runs.describe.optimizers._updates import adam_step, sgd_step


@dataclass(frozen=True)
class _Optimizer:
    lr: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            numbers = value if isinstance(value, (tuple, list)) else (value,)
            if any(not isinstance(v, bool) and not (0 <= v < float("inf")) for v in numbers):
                raise ConfigError(
                    explain(
                        f"{type(self).__name__}({name}=…) to be zero or positive and finite",
                        f"{name}={value!r}",
                        "a sign or a unit went wrong",
                        "pass a value ≥ 0, as torch.optim does",
                    )
                )

    def describe(self) -> dict[str, Any]:
        """Return name and hyper-parameters as plain values."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"name": type(self).__name__, **values}


@dataclass(frozen=True)
class SGD(_Optimizer):
    """Stochastic gradient descent; arguments and defaults of `torch.optim.SGD`.

    g ← g + wd·θ;  m ← momentum·m + (1 − dampening)·g (the first step: m ← g);
    θ ← θ − lr·(g + momentum·m if nesterov else m).

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
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (θ_{t+1}, slots_{t+1})."""
        lr, fresh = hyper
        return sgd_step(
            theta, slots, grad, lr=lr, momentum=self.momentum, fresh=fresh, weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )  # fmt: skip


@dataclass(frozen=True)
class Adam(_Optimizer):
    """Adam; arguments and defaults of `torch.optim.Adam`.

    g ← g + wd·θ;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;
    θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    decoupled: ClassVar[bool] = False
    slots: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def torch(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the `torch.optim` twin over `parameters`."""
        return torch.optim.Adam(parameters, **asdict(self))

    def hyper(self, step: int, rate: float) -> tuple[float, ...]:
        """Return the numbers of step `step` (from 0): learning rate, 1 − β₁ᵗ, √(1 − β₂ᵗ)."""
        first, second = self.betas
        return (self.lr * rate, 1 - first ** (step + 1), (1 - second ** (step + 1)) ** 0.5)

    def update(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (θ_{t+1}, slots_{t+1})."""
        lr, correct_first, correct_second = hyper
        first, second = self.betas
        return adam_step(
            theta, slots, grad, lr=lr, first=first, second=second, correct_first=correct_first,
            correct_second=correct_second, eps=self.eps, weight_decay=self.weight_decay, decoupled=self.decoupled,
        )  # fmt: skip


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW; arguments and defaults of `torch.optim.AdamW`: Adam with θ ← θ·(1 − lr·wd) before the step."""

    weight_decay: float = 1e-2
    decoupled: ClassVar[bool] = True

    def torch(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the `torch.optim` twin over `parameters`."""
        return torch.optim.AdamW(parameters, **asdict(self))


Optimizer = SGD | Adam | AdamW
