"""Heads of several tasks under `zero_grad(set_to_none=False)`: one that a step does not reach decays and coasts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.runs import seeded
from recorded_loops import whole

TASK, SHIFT = torch.arange(12) % 2, 1e-5
ROWS = fi.Rows(**pt.table().fields, task=TASK)
ORDER = [torch.tensor(ids) for ids in ([0, 1, 2, 3], [4, 6, 8, 10], [5, 7, 9, 11])] * 3


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.heads = nn.Linear(4, 5), nn.ModuleList([nn.Linear(5, 3), nn.Linear(5, 3)])

    def forward(self, x, task):
        return self.heads[task](torch.tanh(self.body(x)))


def loss(model, batch):
    found = torch.zeros(len(batch["y"]), dtype=batch["x"].dtype)
    for task in batch["task"].unique().tolist():
        chosen = (batch["task"] == task).nonzero()[:, 0]
        each = F.cross_entropy(model(batch["x"][chosen], task), batch["y"][chosen], reduction="none")
        found = found.index_put((chosen,), each)
    return found


def query(model):
    return sum((p**3).sum() for p in model.parameters())


def trained(optimizer, weights, record=False):
    with seeded(1):
        model = Heads().double()
    theirs = optimizer(model)
    tape = fi.Tape.record(model, theirs, loss=loss, data=ROWS, snapshot_bytes=1) if record else None
    for ids in ORDER:
        ((loss(model, ROWS.batch(ids)) * weights[ids]).sum() / weights[ids].sum()).backward()
        theirs.step()
        theirs.zero_grad(set_to_none=False)
        if tape is not None:
            tape.step(ids=ids)
    return model if tape is None else tape.finish()


@pytest.mark.parametrize(
    "optimizer",
    [
        whole(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.2),
        whole(torch.optim.AdamW, lr=0.02, eps=1e-3, weight_decay=0.2),
    ],
)
def test_effects_are_those_of_the_whole_training(optimizer):
    even = torch.ones(12, dtype=pt.DOUBLE)
    tape = trained(optimizer, even, record=True)
    found = fi.replay(
        tape, fi.Query(query, name="q"), late=0.0, horizon=len(tape.epochs), first_steps="tangent"
    )
    for row in (1, 4):
        shift = torch.zeros(12, dtype=pt.DOUBLE)
        shift[row] = SHIFT
        ends = [float(query(trained(optimizer, even + sign * shift)).detach()) for sign in (-1, 1)]
        want = (ends[0] - ends[1]) / (2 * SHIFT) * 4 / 3
        np.testing.assert_allclose(found.data.effect.values[row, 0], want, rtol=1e-6)
