"""What each of two processes does in `test_loops_of_two_processes`: loops under fully_shard and DDP; started by torchrun."""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import finfluence as fi
import plain_training as pt
from finfluence.errors import FinfluenceError

HERE = Path(sys.argv[1]) if __name__ == "__main__" else Path()
ROWS = pt.table(24, dtype=torch.float32)
QUERIES = fi.own_loss([1, 2, 5])
ARRAYS = ("effect", "effect_se", "spread", "mu")


class Uneven(nn.Module):
    """Parameters of 5, 3 and 1 rows, tied weights, a frozen layer, and a buffer that is not learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 5).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(1, 5))
        self.down = nn.Linear(5, 3)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.full((3,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(torch.tanh(self.base(x)) * self.scale)
        return self.second(torch.tanh(self.first(hidden) + self.shift))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))


def whole(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def nested(model: nn.Module) -> nn.Module:
    fully_shard([model.first, model.second])
    fully_shard(model.down)
    return fully_shard(model)


def blocks(model: nn.Module) -> nn.Module:
    """Every layer, and not the model."""
    for layer in (model[0], model[2]):
        fully_shard(layer)
    return model


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.02)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.02, eps=1e-4)


@dataclass(frozen=True)
class Case:
    """A loop: how its model is spread, and what part of a batch is process 0's."""

    spread: Callable[[nn.Module], nn.Module]
    made: Callable[[], nn.Module] = pt.mlp
    optimizer: Callable[[Any], torch.optim.Optimizer] = adamw
    clip: float | None = None
    batch: int = 8
    first: float = 0.5
    accumulated: bool = False
    snapshot_bytes: int = 2**30


CASES = {
    "momentum": Case(whole, optimizer=momentum),
    "clipped": Case(blocks, clip=0.5),
    "uneven": Case(nested, Uneven, clip=0.2, snapshot_bytes=1),
    "unequal parts": Case(whole, batch=9, first=0.6, accumulated=True),
    "unequal parts, DDP": Case(DistributedDataParallel, batch=7, first=0.6),
}


def batches(size: int, epochs: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [b for _ in range(epochs) for b in torch.randperm(24, generator=generator).split(size)]


def parts_of(case: Case, ids: Tensor) -> list[list[Tensor]]:
    """Return the micro-batches of each process."""
    cut = -(-int(len(ids) * case.first * 10) // 10)
    parts = [ids[:cut], ids[cut:]]
    return [[p[:1], p[1:]] if case.accumulated and len(p) > 1 else [p] for p in parts]


def run(
    case: Case, trained: nn.Module, mine: Callable[[Tensor], list[Tensor]], tape_of: Callable[..., Any] | None
) -> Any:
    """Train on the micro-batches `mine(ids)` of every batch; return the tape, if recorded."""
    optimizer = case.optimizer([p for p in trained.parameters() if p.requires_grad])
    tape = tape_of(trained, optimizer) if tape_of is not None else None
    for ids in batches(case.batch):
        own = mine(ids)
        for m, part in enumerate(own):
            if case.accumulated and hasattr(trained, "set_requires_gradient_sync"):
                trained.set_requires_gradient_sync(m == len(own) - 1)
            (pt.class_loss(trained, ROWS.batch(part)).mean() / len(own)).backward()
        if case.clip is not None:
            nn.utils.clip_grad_norm_(trained.parameters(), case.clip)
        optimizer.step()
        optimizer.zero_grad()
        if tape is not None:
            tape.step(ids=own)
    return tape


def recorded(case: Case, out: Path | None = None, **options: Any) -> Callable[..., fi.Tape]:
    return lambda model, optimizer: fi.Tape.record(
        model, optimizer, loss=pt.class_loss, data=ROWS, out=out, clip_norm=case.clip,
        snapshot_bytes=case.snapshot_bytes, **options,
    )  # fmt: skip


def made(case: Case) -> nn.Module:
    return pt.made(case.made, dtype=torch.float32)


def alone(case: Case) -> fi.Tape:
    """Record the plain loop over both processes' rows; as one batch where their parts are alike."""

    def mine(ids: Tensor) -> list[Tensor]:
        return [ids] if case.first == 0.5 else [part for parts in parts_of(case, ids) for part in parts]

    return run(case, made(case), mine, recorded(case)).finish()


def arrays(influence: fi.Influence) -> dict[str, np.ndarray]:
    return {name: influence.data[name].values for name in ARRAYS}


def local(model: nn.Module) -> list[Tensor]:
    return [(p.to_local() if isinstance(p, DTensor) else p).detach().clone() for p in model.parameters()]


def message(action: Callable[[], object]) -> str:
    with contextlib.suppress(AssertionError):
        try:
            action()
        except FinfluenceError as error:
            return f"{type(error).__name__}: {error}"
    return ""


def plain() -> nn.Module:
    return pt.made(pt.mlp, dtype=torch.float32)


def begun(
    model: nn.Module, parameters: list[nn.Parameter] | None = None, **options: Any
) -> tuple[fi.Tape, torch.optim.Optimizer]:
    """Begin to record a loop of SGD, of class_loss, in all processes."""
    lr = options.pop("lr", 0.1)
    optimizer = torch.optim.SGD(parameters or list(model.parameters()), lr=lr)
    options = {"loss": pt.class_loss, "data": ROWS, "processes": "all", **options}
    tape = fi.Tape.record(model, optimizer, **options)
    return tape, optimizer


def looped(rank: int, steps: int = 2, first_id: int | None = None, **options: Any) -> fi.Tape:
    """Gather a short loop."""
    model = options.pop("model", None) or plain()
    tape, optimizer = begun(model, **options)
    for ids in batches(8)[:steps]:
        own = ids[4 * rank : 4 * rank + 4]
        pt.class_loss(model, ROWS.batch(own)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        message(lambda own=own: tape.step(ids=own if first_id is None else [first_id]))
    return tape.gather()


def partly(model: nn.Module) -> nn.Module:
    fully_shard(model[0])
    return model


def evaluated(model: nn.Module) -> tuple[nn.Module, list[nn.Parameter]]:
    """Return a model after a forward pass without a backward pass, and its parts."""
    parameters = list(fully_shard(model).parameters())
    with torch.no_grad():
        model(ROWS.batch(torch.arange(4))["x"])
    return model, parameters


def tensor_parallel(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model[0], model[2]):
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Replicate()])))
    return model


def messages(rank: int) -> dict[str, str]:
    hybrid = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    first = rank == 0
    actions: dict[str, Callable[[], object]] = {
        "one process": lambda: begun(fully_shard(plain()), processes="one"),
        "flattened": lambda: begun(FullyShardedDataParallel(plain(), device_id=torch.device("cpu"))),
        "hybrid": lambda: begun(fully_shard(plain(), mesh=hybrid)),
        "tensor parallel": lambda: begun(tensor_parallel(plain())),
        "partly": lambda: begun(partly(plain())),
        "evaluated": lambda: begun(*evaluated(plain())),
        "precision": lambda: begun(fully_shard(plain(), mp_policy=policy)),
        "opened": lambda: fi.Tape.open(
            HERE / "tape", model=fully_shard(plain()), loss=pt.class_loss, data=ROWS
        ),
        "other steps": lambda: looped(rank, steps=2 + rank),
        "other options": lambda: looped(rank, lr=0.1 if first else 0.2),
        "no step": lambda: looped(rank, steps=2 if first else 0),
        "unknown row": lambda: looped(rank, first_id=None if first else 99),
        "other states": lambda: looped(
            rank, 6, model=fully_shard(plain()), snapshot_bytes=2**30 if first else 1
        ),
    }
    return {name: message(action) for name, action in actions.items()}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found: dict[str, np.ndarray] = {}
    for name, case in CASES.items():

        def mine(ids: Tensor, case: Case = case) -> list[Tensor]:
            return parts_of(case, ids)[rank]

        out = HERE / "tape" if name == "uneven" else None
        watched, unwatched = case.spread(made(case)), case.spread(made(case))
        tape = run(case, watched, mine, recorded(case, out, processes="all"))
        run(case, unwatched, mine, None)
        for ours, theirs in zip(local(watched), local(unwatched), strict=True):
            assert torch.equal(ours, theirs), name
        if name == "momentum" and rank == 1:  # the last state is then taken from the tape, in both
            with torch.no_grad():
                for parameter in watched.parameters():
                    parameter.add_(1.0)
        tape.gather()
        influence = fi.replay(tape, QUERIES, processes="all", horizon=3)
        found.update({f"{name}/{k}": v for k, v in arrays(influence).items()})
    dropping = Case(whole, dropout)
    tape = run(
        dropping,
        whole(made(dropping)),
        lambda ids: parts_of(dropping, ids)[rank],
        recorded(dropping, processes="all"),
    )
    found["notes"] = np.array(tape.gather().notes)
    np.savez(HERE / f"found-{rank}.npz", **found)
    (HERE / f"messages-{rank}.json").write_text(json.dumps(messages(rank)))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads, of groups that meshes still hold, may abort an ordinary exit


if __name__ == "__main__":
    main()
