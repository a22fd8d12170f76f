"""What large models need: differences as wide as their rounding asks for, and checks on few rows."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
from finfluence.estimators.derivatives import OneSided, choose_adjoint
from finfluence.runs import Recipe, Rows, seeded


def tape(width: int, offset: float = 0.0, hidden: int = 32) -> fi.Tape:
    rng = np.random.default_rng(0)

    def loss(model, batch):
        return (
            (model(batch["x"])[:, 0] - batch["y"]) ** 2 + offset - offset
        )  # its digits beyond the offset's are lost

    with seeded(0):
        model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), Wide(width), nn.Linear(hidden, 1))
    rows = Rows(x=rng.normal(size=(16, 4)).astype(np.float32), y=rng.normal(size=16).astype(np.float32))
    return fi.train(
        Recipe(data=rows, model=model, loss=loss, optimizer=fi.Adam(lr=0.01), batch_size=8, epochs=2)
    )


class Wide(nn.Module):
    """Keeps what it is given, by way of a mean over many numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.unsqueeze(-1) * self.ones).mean(-1)


def chosen(made: fi.Tape):
    with seeded(0):
        query = torch.randn(1, made.layout.size)
    return choose_adjoint(made, query, "finite-difference", queries=1)


def test_the_move_grows_with_the_rounding_of_the_losses():
    plain, rounded = chosen(tape(1)), chosen(tape(1, offset=256.0))
    assert plain.adjoint.inner.kappa == pytest.approx(3e-4)
    assert rounded.adjoint.inner.kappa > plain.adjoint.inner.kappa
    assert rounded.error <= 0.02


@pytest.mark.slow
def test_checks_take_fewer_rows_where_a_row_saves_much():
    assert chosen(tape(1)).agreement.rows == 16
    found = chosen(tape(2**16))
    assert found.agreement.rows < 8 and found.agreement.holds
    assert found.one_by_one


class Adapted(nn.Module):
    """A frozen matrix and an adapter B A that starts from B = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frozen", torch.randn(8, 4))
        self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ (self.frozen + self.b @ self.a).T).sum(1, keepdim=True)


def test_slopes_of_a_step_that_has_next_to_none_are_judged_by_those_of_others():
    """Along A the first step has no slope, for B is 0; a little of B's lies below the rounding of the losses there."""
    rng = np.random.default_rng(0)

    def loss(model, batch):
        return (model(batch["x"])[:, 0] - batch["y"]) ** 2 + 64.0 - 64.0

    with seeded(0):
        model = Adapted()
    rows = Rows(x=rng.normal(size=(16, 4)).astype(np.float32), y=rng.normal(size=16).astype(np.float32))
    made = fi.train(
        Recipe(data=rows, model=model, loss=loss, optimizer=fi.Adam(lr=0.05), batch_size=8, epochs=8)
    )
    with seeded(0):
        along = torch.cat([torch.randn(8), 1e-3 * torch.randn(16)])[None]
    found = choose_adjoint(made, along, "finite-difference", queries=1)
    assert isinstance(found.adjoint.inner, OneSided) and found.error <= 0.02
