"""Rows whose backward pass saves megabytes: fewer are checked and sampled, and nothing else changes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence as fi
from finfluence.estimators.derivatives import RowGradients, choose_adjoint, dear
from finfluence.estimators.replay import RowSchedule
from finfluence.grads import Batch, RowLoss
from finfluence.runs import seeded

VOCABULARY, LENGTH, WIDTH = 16_000, 64, 4


class Wide(nn.Module):
    """A trained layer below a frozen head with many outputs."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("head", torch.randn(WIDTH, outputs, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.body(x)) @ self.head


def row_loss(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch["x"])
    return F.cross_entropy(logits.transpose(1, 2), batch["y"], reduction="none").mean(1)


def stopped(model: nn.Module, batch: Batch) -> Tensor:
    losses = row_loss(model, batch)
    return losses * losses.detach()


def tape_of(loss: RowLoss = row_loss, outputs: int = VOCABULARY) -> fi.Tape:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, LENGTH, WIDTH)).astype(np.float32)
    rows = fi.Rows(x=x, y=rng.integers(0, outputs, (6, LENGTH)))
    with seeded(0):
        model = Wide(outputs)
    return fi.train(fi.Recipe(rows, model, loss, fi.AdamW(lr=1e-2), batch_size=2, epochs=2))


def query(tape: fi.Tape) -> fi.Query:
    rows = tape.batch(torch.arange(2))
    return fi.Query(lambda model: row_loss(model, rows).mean(), name="first rows", sign=-1)


@pytest.fixture(scope="module")
def tape() -> fi.Tape:
    return tape_of()


def test_differences_are_held_against_double_precision_on_one_row(tape: fi.Tape) -> None:
    start = torch.randn(1, tape.layout.size, generator=torch.Generator().manual_seed(1))
    chosen = choose_adjoint(tape, start)
    assert dear(tape) and not dear(tape_of(outputs=10))
    assert chosen.name == "finite-difference" and chosen.against == "differences in double precision"
    assert chosen.error is not None and chosen.error < 0.02
    assert chosen.agreement.rows == 1 and "along 1 random direction are" in chosen.agreement.sentence
    assert chosen.exact is not None and chosen.exact().name == "exact"


@pytest.mark.slow
def test_effects_are_those_of_the_exact_pass(tape: fi.Tape) -> None:
    quick, exact = (
        fi.replay(tape, query(tape), late=0.0, horizon=2, differentiation=how) for how in ("auto", "exact")
    )
    assert (quick.provenance.differentiation, exact.provenance.differentiation) == (
        "finite-difference",
        "exact",
    )
    mine, theirs = quick.data["effect"].values[:, 0], exact.data["effect"].values[:, 0]
    np.testing.assert_allclose(mine, theirs, atol=0.02 * float(np.abs(theirs).max()))


@pytest.mark.slow
def test_a_derivative_that_is_not_symmetric_is_seen_on_one_row() -> None:
    found = tape_of(stopped)
    chosen = choose_adjoint(found, torch.ones(1, found.layout.size))
    assert dear(found) and chosen.name == "reverse-over-reverse"


def test_half_as_many_rows_tell_the_spread(tape: fi.Tape) -> None:
    few, many = (RowSchedule.of(t, False, 0.25) for t in (tape, tape_of(outputs=10)))
    assert (few.fewest, many.fewest) == (32, 64)


def test_gradients_of_single_rows_are_those_of_each_alone(tape: fi.Tape) -> None:
    step, theta = tape.at(0), tape.state(0)[: tape.layout.size]
    found = RowGradients(tape).of(theta, step.batch, len(step.rows), step.seed, [0, 1])
    model = tape.model(0)
    for k in range(2):
        loss = row_loss(model, {name: v[k : k + 1] for name, v in step.batch.items()}).sum()
        wanted = torch.autograd.grad(loss, list(model.parameters()))
        torch.testing.assert_close(found[k], tape.layout.flatten(list(wanted)), rtol=1e-4, atol=1e-6)


def in_double(loss: RowLoss, seen: list[torch.dtype]) -> RowLoss:
    def noted(model: nn.Module, batch: Batch) -> Tensor:
        losses = loss(model, batch)
        seen.append(losses.dtype)
        return losses

    return noted


def test_what_belongs_to_the_tape_alone_is_checked_once() -> None:
    """For the next queries, only how accurate differences are along their gradients."""
    seen: list[torch.dtype] = []
    found = tape_of(in_double(row_loss, seen))
    counts = []
    for seed in (1, 2):
        start = torch.randn(1, found.layout.size, generator=torch.Generator().manual_seed(seed))
        seen.clear()
        assert choose_adjoint(found, start).name == "finite-difference"
        counts.append(seen.count(torch.float64))
    assert 0 < counts[1] < counts[0] / 2


def test_a_query_is_held_against_the_wider_differences_first(tape: fi.Tape) -> None:
    """Its value, two points for each of two directions, its gradient: in double precision, once a tape."""
    seen: list[torch.dtype] = []
    rows = tape.batch(torch.arange(2))
    asked = fi.Query(lambda model: in_double(row_loss, seen)(model, rows).mean(), name="first rows")
    fi.replay(tape, asked, late=0.0)
    assert seen.count(torch.float64) == 1 + 4 + 1
    seen.clear()
    fi.replay(tape, asked, late=0.0)
    assert seen.count(torch.float64) == 0
