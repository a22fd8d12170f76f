"""A gradient that the loop edits at a single step is found wherever it is, in single precision, too."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import NotSupportedError
from recorded_loops import whole

EPOCHS, FOURTH_FROM_THE_END = 3, 8  # of 12 steps: backwards, it is the fourth that is compared as a whole
ROWS, BATCH = 16, 4
SGD, Adam = torch.optim.SGD, torch.optim.Adam
LOOPS = {
    "no buffers": (whole(SGD, lr=0.1), pt.DOUBLE, "exact", FOURTH_FROM_THE_END),
    "momentum": (whole(SGD, lr=0.1, momentum=0.9), torch.float32, "exact", 5),
    "Adam": (whole(Adam, lr=0.02), pt.DOUBLE, "exact", FOURTH_FROM_THE_END),
    "Adam, single precision": (whole(Adam, lr=0.02), torch.float32, "exact", 5),
    "Adam, differences": (whole(Adam, lr=0.02), torch.float32, "finite-difference", 6),
}


def recorded(optimizer, dtype, edited=None):
    """A loop that clips its gradient at one step only, and does not say so."""
    rows, model = pt.table(ROWS, dtype=dtype), pt.made(pt.mlp, dtype=dtype)
    theirs = optimizer(model)
    tape = fi.Tape.record(model, theirs, loss=pt.class_loss, data=rows)
    for t, ids in enumerate(pt.recipe(data=rows, model=model, epochs=EPOCHS).order(0)):
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        if t == edited:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        theirs.step()
        theirs.zero_grad()
        tape.step(ids=ids)
    return tape.finish()


def replayed(tape, differentiation):
    rows = pt.table(ROWS, dtype=tape.layout.dtype, seed=4).fields
    query = fi.Query(lambda m: F.cross_entropy(m(rows["x"]), rows["y"]), name="q")
    return fi.replay(
        tape, query, late=0.0, horizon=EPOCHS, first_steps="tangent", spread=False,
        differentiation=differentiation,
    )  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_it_is_refused_and_named(name):
    optimizer, dtype, differentiation, step = LOOPS[name]
    with pytest.raises(NotSupportedError) as caught:
        replayed(recorded(optimizer, dtype, step), differentiation)
    lines = str(caught.value).splitlines()
    assert lines[0] == "expected a backward pass that belongs to the gradients that training got"
    assert f"step {step} is the first whose" in lines[1]


def test_the_same_loop_without_an_edit_is_replayed():
    optimizer, dtype, differentiation, _ = LOOPS["Adam, single precision"]
    assert replayed(recorded(optimizer, dtype), differentiation).data.score.values.any()
