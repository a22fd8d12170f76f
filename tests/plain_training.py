"""The slow truth: training written again with torch.optim only, with a weight on every row's loss."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
from finfluence.errors import ConfigError
from finfluence.runs import seeded, step_seed

DOUBLE = torch.float64

OPTIMIZERS: dict[str, tuple[fr.Optimizer, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]] = {
    "sgd": (fr.SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd-decay": (fr.SGD(lr=0.1, weight_decay=0.03), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.03)),
    "momentum": (fr.SGD(lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "dampening": (
        fr.SGD(lr=0.1, momentum=0.8, dampening=0.4, weight_decay=0.02),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.4, weight_decay=0.02),
    ),
    "nesterov": (
        fr.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.02),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.02),
    ),
    "adam": (fr.Adam(lr=0.02), lambda p: torch.optim.Adam(p, lr=0.02)),
    "adam-l2": (
        fr.Adam(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
    ),
    "adamw": (fr.AdamW(lr=0.02, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1)),
}


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def square_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return 0.5 * (model(batch["x"])[:, 0] - batch["y"]) ** 2


def made(factory: Callable[[], nn.Module], seed: int = 0, dtype: torch.dtype = DOUBLE) -> nn.Module:
    with seeded(seed):
        return factory().to(dtype)


def table(
    n: int = 12, width: int = 4, classes: int = 3, dtype: torch.dtype = DOUBLE, seed: int = 3
) -> fr.Rows:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(n, width))).to(dtype)
    return fr.Rows(x=x, y=torch.from_numpy(rng.integers(0, classes, n)))


def mlp(width: int = 4, classes: int = 3, activation: type[nn.Module] = nn.GELU) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 5), activation(), nn.Linear(5, classes))


def recipe(**changes: object) -> fr.Recipe:
    options: dict[str, object] = {
        "data": table(), "model": made(mlp), "loss": class_loss, "optimizer": fr.SGD(lr=0.1),
        "batch_size": 4, "epochs": 3,
    }  # fmt: skip
    return fr.Recipe(**{**options, **changes})  # type: ignore[arg-type]


def plain(
    described: fr.Recipe,
    model: nn.Module,
    order: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    rates: Sequence[float] | None = None,
    weights: Tensor | None = None,
    order_seed: int | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train `model` in place: g_t = (1/B) Σ_{i∈B_t} w_i ∇ℓ_i(θ_t). Return it and the mean loss of each step."""
    base = optimizer.param_groups[0]["lr"]
    losses = []
    with seeded(0):
        for t, rows in enumerate(order):
            if rates is not None:
                for group in optimizer.param_groups:
                    group["lr"] = base * rates[t]
            batch = {name: field[rows] for name, field in described.rows.fields.items()}  # type: ignore[attr-defined]
            if order_seed is not None:
                torch.default_generator.manual_seed(step_seed(order_seed, t))
            each = described.loss(model, {**batch, "id": rows})
            loss = each.mean() if weights is None else (weights[rows] * each).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return model, losses


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])


def least_memory(tape: fr.Tape, queries: Any, **options: Any) -> int:
    """The least `memory_bytes` that a replay says would do: one query at a time."""
    try:
        fi.replay(tape, queries, memory_bytes=1, **options)
    except ConfigError as error:
        return int(re.search(r"pass memory_bytes=(\d+)", str(error))[1])
    raise AssertionError("a replay within one byte")
