"""How a step of SGD, Adam or AdamW moves parameters along a gradient: ∂θ_{t+1}/∂g, what it divides by held."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.errors import NotSupportedError, explain

KNOWN = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def check_known(optimizer: torch.optim.Optimizer) -> None:
    """Raise unless the optimiser is one of those whose move is written down here.

    Raises
    ------
    NotSupportedError
    """
    if type(optimizer) in KNOWN:
        return
    raise NotSupportedError(
        explain(
            "torch.optim.SGD, Adam or AdamW, to follow a loop while it runs",
            f"{type(optimizer).__module__}.{type(optimizer).__name__}",
            "a row's part of its step is not a multiple of the row's gradient, coordinate by coordinate",
            "record the loop with fi.Tape.record, and use method='replay'",
        )
    )


def moves(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the number that each parameter group's next step multiplies a gradient by, before any preconditioner.

    SGD: −η, times 1 − dampening after the first step, times 1 + momentum with Nesterov's. Adam: −η(1−β₁)/(1−β₁ᵗ).

    Returns
    -------
    list of float
        One for each group; positive with `maximize`.
    """
    return [_move(optimizer, group) for group in optimizer.param_groups]


def _move(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    rate = float(group["lr"]) * (1.0 if group["maximize"] else -1.0)
    state: Mapping[str, Any] = next((optimizer.state[p] for p in group["params"] if p in optimizer.state), {})
    if isinstance(optimizer, torch.optim.SGD):
        momentum = float(group["momentum"])
        if not momentum:
            return rate
        fresh = 1.0 if state.get("momentum_buffer") is None else 1.0 - float(group["dampening"])
        return rate * (1.0 + momentum * fresh if group["nesterov"] else fresh)
    first = float(group["betas"][0])
    return rate * (1.0 - first) / (1.0 - first ** (_steps(state) + 1))


def preconditioner(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> dict[str, Tensor] | None:
    """Return 1/(√v′/√(1−β₂ᵗ) + eps) [P] of each parameter in the next step of Adam, which sees its gradient.

    v′ = β₂v + (1−β₂)g², its largest so far with `amsgrad`; zero where v′ is, in coordinates that have never moved.

    Returns
    -------
    dict or None
        None for SGD.
    """
    if isinstance(optimizer, torch.optim.SGD):
        return None
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found = {}
    with torch.no_grad():
        for name, p in named.items():
            group, state = group_of[id(p)], optimizer.state.get(p, {})
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
            if group["weight_decay"] and not decoupled:
                gradient = gradient + (-1.0 if group["maximize"] else 1.0) * group["weight_decay"] * p
            second = float(group["betas"][1])
            square = (1.0 - second) * gradient**2
            if "exp_avg_sq" in state:
                square = square + second * state["exp_avg_sq"]
            if group["amsgrad"] and "max_exp_avg_sq" in state:
                square = torch.maximum(square, state["max_exp_avg_sq"])
            root = square.sqrt() / (1.0 - second ** (_steps(state) + 1)) ** 0.5 + group["eps"]
            found[name] = torch.where(square > 0, 1.0 / root, 0.0).reshape(-1)
    return found


def _steps(state: Mapping[str, Any]) -> float:
    return float(state.get("step", 0.0))
