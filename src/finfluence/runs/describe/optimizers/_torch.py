"""What torch.optim's optimisers keep and do: read from an instance while a loop runs, made again for a copy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, explain

Group = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A torch optimiser that is known here.

    numbers : options that may differ between groups and change from step to step.
    flags : options that must be one and the same.
    slots : names of its buffers, given its parameter groups.
    """

    numbers: tuple[str, ...]
    flags: tuple[str, ...]
    slots: Callable[[Sequence[Group]], tuple[str, ...]]


def _momentum(groups: Sequence[Group]) -> tuple[str, ...]:
    return ("momentum_buffer",) if any(g["momentum"] != 0 for g in groups) else ()


def _moments(groups: Sequence[Group]) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if groups[0]["amsgrad"] else []))


_ADAM = Kind(
    ("lr", "first", "second", "eps", "weight_decay"),
    ("amsgrad", "maximize", "decoupled_weight_decay"),
    _moments,
)
KNOWN: dict[str, Kind] = {
    "SGD": Kind(("lr", "momentum", "dampening", "weight_decay"), ("nesterov", "maximize"), _momentum),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Muon": Kind(
        ("lr", "momentum", "weight_decay"),
        ("nesterov", "eps", "ns_coefficients", "ns_steps", "adjust_lr_fn"),
        lambda groups: ("momentum_buffer",),
    ),
}


def kind_of(optimizer: torch.optim.Optimizer) -> tuple[str, Kind]:
    """Return name and kind of a torch optimiser.

    Raises
    ------
    NotSupportedError
        An optimiser whose update is not known here, or groups that differ in more than numbers.
    """
    name = type(optimizer).__name__
    if name not in KNOWN or not type(optimizer).__module__.startswith("torch.optim"):
        cause = "its step is not written down here as a function that can be differentiated"
        if "lion" in name.lower():
            cause = "Lion moves by the sign of the gradient, whose derivative is zero: no row would have any effect"
        raise NotSupportedError(
            explain(
                f"one of the optimisers {', '.join(f'torch.optim.{known}' for known in KNOWN)}",
                f"{type(optimizer).__module__}.{name}",
                cause,
                "train with one of those, or pass the torch optimiser that a wrapper holds",
            )
        )
    kind, groups = KNOWN[name], optimizer.param_groups
    for flag in kind.flags:
        if any(_flag(g, flag) != _flag(groups[0], flag) for g in groups):
            raise NotSupportedError(
                explain(
                    f"one value of {flag} for all parameter groups",
                    ", ".join(repr(_flag(g, flag)) for g in groups),
                    "groups may differ in numbers (lr, weight decay, momentum, betas, eps) only",
                    f"give every group the same {flag}",
                )
            )
    return name, kind


def numbers_of(name: str, group: Group) -> tuple[float, ...]:
    """Return the numeric options of a parameter group as they are now, in the order of `Kind.numbers`."""
    if name == "SGD":
        return group["lr"], group["momentum"], group["dampening"], group["weight_decay"]
    if name == "Muon":
        return group["lr"], group["momentum"], group["weight_decay"]
    return group["lr"], *group["betas"], group["eps"], group["weight_decay"]


def flags_of(kind: Kind, group: Group) -> dict[str, Any]:
    """Return the options that are one and the same for all groups."""
    return {flag: _flag(group, flag) for flag in kind.flags}


def _flag(group: Group, flag: str) -> Any:
    return _plain(group.get(flag, False))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def steps_taken(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps the optimiser has taken: SGD counts 1 once it has buffers.

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


def remake(
    name: str, groups: Sequence[Group], parameters: Sequence[Sequence[torch.nn.Parameter]]
) -> torch.optim.Optimizer:
    """Return a torch optimiser of the same kind and options over other parameters, one list a group."""
    cls = getattr(torch.optim, name)
    made: torch.optim.Optimizer = cls([{"params": list(p)} for p in parameters], lr=float(groups[0]["lr"]))
    for ours, theirs in zip(made.param_groups, groups, strict=True):
        ours.update({k: v for k, v in theirs.items() if k != "params"})
    return made


def set_numbers(name: str, group: Group, values: Sequence[float]) -> None:
    """Set a parameter group's numeric options."""
    named = dict(zip(KNOWN[name].numbers, map(float, values), strict=True))
    if "first" in named:
        group["betas"] = (named.pop("first"), named.pop("second"))
    group.update(named)


def options_of(group: Group) -> Group:
    """Return a parameter group's options as plain values that can be written as JSON."""
    plain = {}
    for key, value in group.items():
        if key != "params":
            plain[key] = float(value) if isinstance(value, Tensor) else _plain(value)
    return plain


def numbers_at(name: str, recorded: np.ndarray, taken: int) -> dict[str, np.ndarray]:
    """Return what the update needs at each step [T, G], by name, from the options as they were.

    Parameters
    ----------
    recorded : array [T, G, N]
        `numbers_of` at each step.
    taken : int
        Steps taken before the first.
    """
    numbers = dict(zip(KNOWN[name].numbers, np.moveaxis(recorded, 2, 0), strict=True))
    t = np.arange(taken + 1, taken + 1 + len(recorded))[:, None]
    if name == "SGD":
        fresh = np.where((t == 1) | (numbers["momentum"] == 0), 1.0, 1.0 - numbers.pop("dampening"))
        return {**numbers, "fresh": fresh}
    if name == "Muon":
        return numbers
    correct_first, correct_second = 1 - numbers["first"] ** t, (1 - numbers["second"] ** t) ** 0.5
    return {**numbers, "correct_first": correct_first, "correct_second": correct_second}
