"""What is known of an optimiser: one rule a file, found by the class of the torch optimiser.

A rule says which options an optimiser of torch has, how to read them while a loop runs and to set them again, which
buffers it keeps, and its update as a differentiable function: torch.optim's step in the same order of operations.
Options are Python floats, or tensors where they change from step to step or between parameters.

A new optimiser is one file here: a `Rule`, passed to `register`, and a description for recipes if there is to be one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.runs.describe.optimizers._arithmetic import Pull, Slots

Group = dict[str, Any]


@dataclass(frozen=True)
class Optimizer(ABC):
    """An optimiser as a recipe describes it: torch.optim's names and defaults, and the update as a function.

    The update maps (θ_t, slots_t, g_t) to (θ_{t+1}, slots_{t+1}); its vector-Jacobian product is the exact adjoint of
    that step.

    Raises
    ------
    ConfigError
        A negative or infinite number.
    """

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

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the optimiser's buffers, one vector each."""

    @abstractmethod
    def torch(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the `torch.optim` twin over `parameters`."""

    @abstractmethod
    def hyper(self, step: int, rate: float) -> tuple[float, ...]:
        """Return the numbers of step `step` (from 0) that `update` takes, with the learning rate times `rate`."""

    @abstractmethod
    def update(
        self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, Slots]:
        """Return (θ_{t+1}, slots_{t+1})."""

    @property
    def translates(self) -> bool:
        """Whether what a gradient does to θ and the slots is the same at every θ, as without decay in the gradient."""
        return False

    def part(self, some: slice) -> "Optimizer":
        """Return the update of some coordinates alone: the same, for each coordinate of a recipe's moves by itself."""
        return self

    def pull_back(self, theta: Tensor, slots: Slots, grad: Tensor, hyper: tuple[Tensor, ...]) -> Pull | None:
        """Return the map of λ [..., 1+S, P] to (∂U/∂s)ᵀλ [..., 1+S, P] and (∂U/∂g)ᵀλ [..., P], if written out."""
        return None

    def gradient(self, theta: Tensor, slots: Slots, after: Slots, hyper: tuple[Tensor, ...]) -> Tensor | None:
        """Return the gradient of the step that left the buffers `after`, if they tell it to a few roundings."""
        return None

    @property
    def hides_gradient(self) -> bool:
        """Whether what a step leaves does not tell its gradient; no matter here, for a recipe's steps are our own."""
        return False

    @property
    def coarse(self) -> bool:
        """Whether steps may have been computed in fewer bits than their parameters have; not known of a recipe's."""
        return True

    def departure(
        self,
        state: Tensor,
        after: Tensor,
        hyper: tuple[Tensor, ...],
        gradient: Tensor | None,
        read: Tensor | None = None,
    ) -> tuple[str, float] | None:
        """Return how a step taken by others departs from this update; a recipe's steps are taken by it."""
        return None


class Rule(ABC):
    """How one optimiser of torch is found, made again, and differentiated.

    Attributes
    ----------
    torch_class : type
        The class of torch.optim; sub-classes may step otherwise, and are not meant.
    numbers : tuple of str
        Options that may differ between groups and change from step to step; the first is the learning rate.
    flags : tuple of str
        Options that must be one and the same.
    tolerance : float, optional
        How far the update may differ from torch's step, relative to the step; None: by the parameters' precision.
    elementwise : bool
        Whether each coordinate moves by itself.
    """

    torch_class: type[torch.optim.Optimizer]
    numbers: tuple[str, ...]
    flags: tuple[str, ...]
    tolerance: float | None = None
    elementwise: bool = True

    def translates(self, options: Mapping[str, Any]) -> bool:
        """Whether what a gradient does to θ and the slots is the same at every θ, with these options."""
        return False

    @property
    def name(self) -> str:
        """The name of torch's class: how a tape on disk calls the rule."""
        return self.torch_class.__name__

    @abstractmethod
    def slots(self, groups: Sequence[Group]) -> tuple[str, ...]:
        """Return the names of the optimiser's buffers."""

    def numbers_of(self, group: Group) -> tuple[float, ...]:
        """Return a parameter group's numeric options as they are now, in the order of `numbers`."""
        return tuple([group[name] for name in self.numbers])

    def set_numbers(self, group: Group, values: Sequence[float]) -> None:
        """Set a parameter group's numeric options."""
        group.update(zip(self.numbers, map(float, values), strict=True))

    @abstractmethod
    def numbers_at(self, numbers: dict[str, np.ndarray], t: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the update needs at each step [T, G], by name.

        Parameters
        ----------
        numbers : dict of arrays [T, G]
            The numeric options at each step.
        t : array [T, 1]
            The number of each step, counted from 1 since the optimiser was made.
        """

    @abstractmethod
    def step(
        self,
        theta: Tensor,
        slots: Slots,
        grad: Tensor,
        options: Mapping[str, Any],
        shapes: Sequence[torch.Size],
    ) -> tuple[Tensor, Slots]:
        """Return (θ_{t+1}, slots_{t+1}); `options` are those of `numbers_at` and the flags."""

    def pull_back(self, theta: Tensor, slots: Slots, grad: Tensor, options: Mapping[str, Any]) -> Pull | None:
        """Return the map of λ [..., 1+S, P] to (∂U/∂s)ᵀλ [..., 1+S, P] and (∂U/∂g)ᵀλ [..., P], if written out."""
        return None

    def gradient(
        self, theta: Tensor, slots: Slots, after: Slots, options: Mapping[str, Any]
    ) -> Tensor | None:
        """Return the gradient of the step that left the buffers `after`, if they tell it to a few roundings."""
        return None

    def tells_gradient(self, numbers: Mapping[str, np.ndarray]) -> bool:
        """Whether `gradient`, or without buffers the move of the parameters, tells the gradient of every step.

        Parameters
        ----------
        numbers : dict of arrays [T, G]
            As of `numbers_at`.

        Returns
        -------
        bool
        """
        return False

    def state_of(
        self, group: Group, slots: dict[str, Tensor], steps_done: int, device: torch.device
    ) -> Group:
        """Return what torch's optimiser holds of a parameter of `group` after `steps_done` steps, at least one."""
        return slots

    def remake(
        self, groups: Sequence[Group], parameters: Sequence[Sequence[nn.Parameter]]
    ) -> torch.optim.Optimizer:
        """Return a torch optimiser of the same class and options over other parameters, one list a group."""
        cls: Any = self.torch_class
        made: torch.optim.Optimizer = cls(
            [{"params": list(p)} for p in parameters], lr=float(groups[0]["lr"])
        )
        for ours, theirs in zip(made.param_groups, groups, strict=True):
            ours.update({k: v for k, v in theirs.items() if k != "params"})
        return made

    def flags_of(self, group: Group) -> dict[str, Any]:
        """Return the options that are one and the same for all groups."""
        return {flag: _plain(group.get(flag, False)) for flag in self.flags}


_RULES: dict[type[torch.optim.Optimizer], Rule] = {}


def register(rule: Rule) -> Rule:
    """Let torch's class be known by this rule."""
    _RULES[rule.torch_class] = rule
    return rule


def rule_of(optimizer: torch.optim.Optimizer) -> Rule:
    """Return the rule of a torch optimiser.

    Returns
    -------
    Rule

    Raises
    ------
    NotSupportedError
        An optimiser whose update is not known here, or groups that differ in more than numbers.
    """
    rule = _RULES.get(type(optimizer))
    if rule is None:
        cause = "its step is not written down here as a function that can be differentiated"
        if "lion" in type(optimizer).__name__.lower():
            cause = "Lion moves by the sign of the gradient, whose derivative is zero: no row would have any effect"
        raise NotSupportedError(
            explain(
                f"one of the optimisers {', '.join(_known('torch.optim.'))}",
                f"{type(optimizer).__module__}.{type(optimizer).__name__}",
                cause,
                "train with one of those, or pass the torch optimiser that a wrapper holds",
            )
        )
    groups = optimizer.param_groups
    for flag in rule.flags:
        if any(_plain(g.get(flag, False)) != _plain(groups[0].get(flag, False)) for g in groups):
            raise NotSupportedError(
                explain(
                    f"one value of {flag} for all parameter groups",
                    ", ".join(repr(_plain(g.get(flag, False))) for g in groups),
                    "groups may differ in numbers (lr, weight decay, momentum, betas, eps) only",
                    f"give every group the same {flag}",
                )
            )
    return rule


def rule_named(name: str) -> Rule:
    """Return the rule that a tape on disk names.

    Returns
    -------
    Rule

    Raises
    ------
    NotSupportedError
        This version of torch, or of this package, does not have the optimiser.
    """
    for rule in _RULES.values():
        if rule.name == name:
            return rule
    raise NotSupportedError(
        explain(
            f"one of the optimisers {', '.join(_known())}",
            name,
            "the tape was recorded with another version of torch or of this package",
            "open it with that version",
        )
    )


def _known(prefix: str = "") -> list[str]:
    """Name the optimisers of torch that are known."""
    return sorted(
        prefix + rule.name for cls, rule in _RULES.items() if cls.__module__.startswith("torch.optim")
    )


def options_of(group: Group) -> Group:
    """Return a parameter group's options as plain values that can be written as JSON."""
    plain = {}
    for key, value in group.items():
        if key != "params":
            plain[key] = float(value) if isinstance(value, Tensor) else _plain(value)
    return plain


def steps_done(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps the optimiser has taken: SGD counts 1 once it has buffers.

    Returns
    -------
    int

    Raises
    ------
    NotSupportedError
        Its parameters have taken different numbers of steps.
    """
    counts = {
        int(state.get("step", 1 if state.get("momentum_buffer") is not None else 0))
        for state in optimizer.state.values()
    }
    if len(counts) > 1:
        raise NotSupportedError(
            explain(
                "parameters that have all taken the same number of steps",
                f"{min(counts)} for some and {max(counts)} for others",
                "some were frozen for a while, or added to the optimiser later",
                "start recording with a new optimiser",
            )
        )
    return counts.pop() if counts else 0


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
