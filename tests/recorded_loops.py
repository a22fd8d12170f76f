"""Training loops as users write them, with the two lines of a recording if asked for, and weights on rows for derivatives."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.runs import seeded


@dataclass
class Loop:
    """One way to train: `run` is the loop; `options` go to `Tape.record`."""

    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = lambda m: torch.optim.SGD(
        m.parameters(), lr=0.1
    )
    model: Callable[[], nn.Module] = pt.mlp
    loss: Callable[..., Tensor] = pt.class_loss
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    clip: Callable[[list[nn.Parameter]], Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    micro: tuple[float, ...] = ()
    rows: int = 12
    batch: int = 4
    epochs: int = 4
    dtype: torch.dtype = pt.DOUBLE
    seed: int = 5

    def data(self) -> fr.Rows:
        return pt.table(self.rows, dtype=self.dtype)

    def start(self) -> nn.Module:
        return pt.made(self.model, dtype=self.dtype)

    def order(self) -> list[Tensor]:
        described = pt.recipe(data=self.data(), model=self.start(), batch_size=self.batch, epochs=self.epochs)
        return described.order(self.seed)

    def run(
        self,
        record: bool = False,
        weights: Tensor | None = None,
        start: nn.Module | None = None,
        out: Any = None,
        **options: Any,
    ) -> tuple[nn.Module, fr.TapeRecorder | None]:
        """Train a copy of the model; return it, and its recorder."""
        rows, model = self.data(), copy.deepcopy(start or self.start())
        model.train()
        optimizer = self.optimizer(model)
        scheduler = self.scheduler(optimizer) if self.scheduler else None
        trained = [p for g in optimizer.param_groups for p in g["params"]]
        tape = None
        if record:
            tape = fi.Tape.record(
                model, optimizer, loss=self.loss, data=rows, out=out, **{**self.options, **options}
            )
        with seeded(3):
            for ids in self.order():
                parts = ids.chunk(len(self.micro)) if self.micro else [ids]
                for part, share in zip(parts, self.micro or (1.0,), strict=True):
                    each = self.loss(model, rows.batch(part))
                    mean = each.mean() if weights is None else (each * weights[part]).sum() / len(part)
                    (mean * share).backward()
                if self.clip is not None:
                    self.clip(trained)
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                optimizer.zero_grad()
                if tape is not None and self.micro:
                    tape.step(ids=list(parts), weights=self.micro)
                elif tape is not None:
                    tape.step(ids=ids)
        return model, tape


class Checkpointed(nn.Module):
    def __init__(self, dropout: float = 0.0, reentrant: bool = False):
        super().__init__()
        self.reentrant = reentrant
        self.body = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Dropout(dropout))
        self.into, self.head = nn.Linear(4, 4), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, self.into(x), use_reentrant=self.reentrant))


class Tied(nn.Module):
    """Two layers with one weight, one frozen, one that the loss never reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.unused, self.head = nn.Linear(2, 3), nn.Linear(4, 3)
        self.other.weight = self.one.weight
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.other(torch.tanh(self.one(self.frozen(x))))))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))


def matrices() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))


def precise_newton_schulz(grad: Tensor, coefficients: tuple[float, ...], steps: int, eps: float) -> Tensor:
    """torch.optim.Muon's iteration without its cast to bfloat16."""
    a, b, c = coefficients
    x = grad if len(grad) <= grad.shape[1] else grad.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if len(grad) <= grad.shape[1] else x.T


def grouped(
    cls: type[torch.optim.Optimizer], first: dict[str, Any], second: dict[str, Any]
) -> Callable[..., Any]:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
        matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        return cls([{"params": matrices, **first}, {"params": vectors, **second}])  # type: ignore[call-arg]

    return make


def whole(cls: type[torch.optim.Optimizer], **options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: cls([p for p in m.parameters() if p.requires_grad], **options)  # type: ignore[call-arg]


SGD, Adam, AdamW, Muon = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Muon
LOOPS: dict[str, Loop] = {
    "sgd": Loop(),
    "momentum": Loop(whole(SGD, lr=0.05, momentum=0.9, weight_decay=0.02, nesterov=True)),
    "dampening": Loop(whole(SGD, lr=0.1, momentum=0.8, dampening=0.4, maximize=True)),
    "adam": Loop(whole(Adam, lr=0.02, weight_decay=0.05, eps=1e-4)),
    "adamw": Loop(whole(AdamW, lr=0.02, weight_decay=0.1, eps=1e-4, maximize=True)),
    "amsgrad": Loop(whole(AdamW, lr=0.02, amsgrad=True, betas=(0.5, 0.6), eps=1e-4)),
    "groups": Loop(
        grouped(AdamW, {"lr": 0.02, "weight_decay": 0.1}, {"lr": 0.03, "weight_decay": 0.0, "betas": (0.7, 0.9)})
    ),
    "groups of sgd": Loop(grouped(SGD, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.03, "momentum": 0.0})),
    "cosine": Loop(
        whole(AdamW, lr=0.03, eps=1e-4), scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12)
    ),
    "one cycle": Loop(
        whole(SGD, lr=0.03, momentum=0.9),
        scheduler=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20),
    ),
    "clip norm": Loop(
        whole(SGD, lr=0.3, momentum=0.5),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 0.4), options={"clip_norm": 0.4},
    ),
    "clip value": Loop(
        whole(SGD, lr=0.3), clip=lambda p: nn.utils.clip_grad_value_(p, 0.05), options={"clip_value": 0.05}
    ),
    "accumulation": Loop(whole(SGD, lr=0.1, momentum=0.9), micro=(0.5, 0.5)),
    "uneven accumulation": Loop(whole(AdamW, lr=0.02, eps=1e-4), micro=(0.5, 0.25, 1.0), batch=6),
    "dropout": Loop(whole(AdamW, lr=0.02, eps=1e-4), model=dropping),
    "dropout in micro-batches": Loop(whole(SGD, lr=0.1), model=dropping, micro=(0.5, 0.5)),
    "checkpointing": Loop(whole(SGD, lr=0.1), model=Checkpointed),
    "checkpointing with dropout": Loop(whole(SGD, lr=0.1), model=lambda: Checkpointed(0.3)),
    "reentrant checkpointing": Loop(whole(SGD, lr=0.1), model=lambda: Checkpointed(reentrant=True)),
    "tied": Loop(whole(AdamW, lr=0.02, weight_decay=0.1, eps=1e-4), model=Tied),
    "muon": Loop(whole(Muon, lr=0.02), model=matrices),
}  # fmt: skip
EXACT = {name: loop for name, loop in LOOPS.items() if name != "muon"}


SGD = whole(torch.optim.SGD, lr=0.1)


def begin(model=None, optimizer=None, loss=pt.class_loss, data=None, **options):
    model = pt.made(pt.mlp) if model is None else model
    optimizer = SGD(model) if optimizer is None else optimizer
    return (
        model,
        optimizer,
        fi.Tape.record(model, optimizer, loss, pt.table() if data is None else data, **options),
    )


def descend(model, optimizer, ids, rows=None, loss=pt.class_loss) -> None:
    loss(model, (rows or pt.table()).batch(torch.as_tensor(ids))).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def recorded(order, rows=12, **options):
    model, optimizer, tape = begin(**options)
    for ids in order:
        descend(model, optimizer, ids, pt.table(rows))
        tape.step(ids=ids)
    return tape
