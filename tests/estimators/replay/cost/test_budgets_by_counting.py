"""What a budget pays is what is done: the clock that it is measured by counts the work of operations here."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import finfluence as fi
import finfluence.runs as fr
from finfluence.runs import seeded

ROWS, BATCH, EPOCHS, INPUTS, CLASSES = 120, 10, 20, 16, 5
WITHIN = 1.35


class Work(TorchDispatchMode):
    """Inside the block, `done` grows with every operation but views, and with the numbers that it reads and writes."""

    done = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        touched = [t for t in tree_leaves((args, out)) if isinstance(t, Tensor)]
        if not getattr(func, "is_view", False):
            self.done += 1.0 + sum(t.numel() for t in touched) / 1000
        return out


def row_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def tape_of(hidden: int, optimizer: fr.Optimizer) -> fi.Tape:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, INPUTS)).astype(np.float32)
    with seeded(0):
        model = nn.Sequential(nn.Linear(INPUTS, hidden), nn.GELU(), nn.Linear(hidden, CLASSES))
    rows = fi.Rows(x=x, y=rng.integers(0, CLASSES, ROWS))
    return fi.train(fi.Recipe(rows, model, row_loss, optimizer, batch_size=BATCH, epochs=EPOCHS))


@pytest.mark.parametrize(
    ("hidden", "optimizer", "way"),
    [(64, fi.SGD(lr=0.1), "exact"), (4000, fi.AdamW(lr=1e-3), "finite-difference")],
)
@pytest.mark.quick(1)
def test_a_budget_is_spent_within_a_third(
    hidden: int, optimizer: fr.Optimizer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    work, tape = Work(), tape_of(hidden, optimizer)
    monkeypatch.setattr("time.process_time", lambda: work.done)
    query = fi.own_loss([0])
    fi.replay(tape, query, horizon=1, differentiation=way)  # derivatives are checked once a tape
    with work:
        tape.run.set_state(0, tape.state(0))
        began = work.done
        for t in range(tape.steps):
            tape.run.run_step(t)
        training = work.done - began
        for budget in (1.0, 2.0, 4.0):
            began = work.done
            found = fi.replay(tape, query, budget=budget, differentiation=way)
            spent, made = (work.done - began) / training, found.provenance.budget
            print(f"{way}: budget {budget}, {made}, spent {spent:.2f}")
            assert found.provenance.differentiation == way
            assert made["least"] < budget
            assert budget / WITHIN < spent < budget * WITHIN or (made["horizon"] == EPOCHS and spent < budget)
