"""What each of two processes does in `test_distributed`; started by torchrun."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import FinfluenceError

HERE = Path(sys.argv[1]) if __name__ == "__main__" else Path()
ROWS = pt.table(24, dtype=torch.float32)
FIRST = {"one": fi.own_loss([1]), "three": fi.own_loss([1, 2, 5])}


def recipe(**changes: object) -> fr.Recipe:
    plain = {"data": ROWS, "model": pt.made(pt.mlp, dtype=torch.float32)}
    options = {
        **plain,
        "optimizer": fr.AdamW(lr=0.02),
        "batch_size": 7,
        "drop_last": False,
        "epochs": 3,
        **changes,
    }
    return pt.recipe(**options)


def arrays(influence: fi.Influence) -> dict[str, np.ndarray]:
    return {str(name): influence.data[name].values for name in ("effect", "effect_se", "spread", "mu")}


def batches(epochs: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [b for _ in range(epochs) for b in torch.randperm(24, generator=generator).split(8)]


def loop(
    model: nn.Module, trained: nn.Module, mine: slice, processes: fr.Together, out: Path | None = None
) -> fi.Tape:
    """A plain loop over this process's part of every batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, eps=1e-4)
    tape = fi.Tape.record(trained, optimizer, loss=pt.class_loss, data=ROWS, out=out, processes=processes)
    for ids in batches():
        own = ids[mine]
        pt.class_loss(trained, ROWS.batch(own)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=own)
    return tape


def message(action: object) -> str:
    with contextlib.suppress(AssertionError):
        try:
            action()  # type: ignore[operator]
        except FinfluenceError as error:
            return str(error)
    return ""


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found: dict[str, dict[str, np.ndarray]] = {}
    tape = fi.train(recipe())
    for name, query in FIRST.items():
        for method in ("online", "full")[: 2 if name == "one" else 1]:
            found[f"{name} {method}"] = arrays(
                fi.replay(tape, query, method=method, processes="all", horizon=3)
            )
    difference = fi.replay(
        tape, FIRST["one"], differentiation="finite-difference", processes="all", horizon=3
    )
    found["finite-difference"] = arrays(difference)
    dropping = fi.train(recipe(model=dropout(), drop_last=True))
    found["dropout"] = arrays(fi.replay(dropping, FIRST["one"], processes="all", horizon=3))
    streamed = fi.replay(
        tape,
        FIRST["three"],
        processes="all",
        horizon=3,
        save_to=HERE / "streamed.zarr",
        out=HERE / "progress",
    )
    found["streamed"] = arrays(streamed)
    again = fi.replay(tape, FIRST["one"], processes="all", horizon=3, out=HERE / "progress")
    found["with progress"] = arrays(
        fi.replay(tape, FIRST["one"], processes="all", horizon=3, out=HERE / "progress")
    )
    np.testing.assert_array_equal(again.data.effect, found["with progress"]["effect"])

    plain = pt.made(pt.mlp, dtype=torch.float32)
    mine = slice(4 * rank, 4 * rank + 4)
    recorded = loop(plain, DistributedDataParallel(plain), mine, "all", HERE / "tape")
    early = message(recorded.finish)
    recorded.gather()
    found["recorded"] = arrays(fi.replay(recorded, FIRST["three"], processes="all", horizon=4))
    other = fi.train(recipe(), seed=rank)
    messages = {
        "early": early,
        "disagree": message(lambda: fi.replay(other, FIRST["one"], processes="all")),
        "uneven": message(lambda: uneven(rank)),
    }
    np.savez(
        HERE / f"found-{rank}.npz", **{f"{k}/{n}": v for k, part in found.items() for n, v in part.items()}
    )
    (HERE / f"messages-{rank}.json").write_text(json.dumps(messages))
    dist.destroy_process_group()


def dropout() -> nn.Module:
    return pt.made(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3)),
        dtype=torch.float32,
    )


def uneven(rank: int) -> None:
    """One process takes a step more than the other."""
    model = pt.made(pt.mlp, dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tape = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=ROWS, processes="all")
    for ids in batches()[: 2 + rank]:
        pt.class_loss(model, ROWS.batch(ids)).mean().backward()
        optimizer.step()
        tape.step(ids=ids)
    tape.gather()


if __name__ == "__main__":
    main()
