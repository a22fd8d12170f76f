"""Rows with many outputs are evaluated few at a time, whatever method asks for them, and come out the same."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
from finfluence.runs import Recipe, Rows, mean_loss
from finfluence.runs.tape import affordable_rows

WIDE = 2**20  # outputs of a row: some MiB for the backward pass
ROWS = 128


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 1, bias=False)
        self.register_buffer("words", torch.randn(WIDE, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale(x) * self.words


def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    together.append(len(batch["x"]))
    return -model(batch["x"]).log_softmax(-1)[:, 0]


together: list[int] = []


@pytest.fixture(scope="module")
def tape():
    x = np.linspace(-1, 1, ROWS, dtype=np.float32)[:, None]
    recipe = Recipe(
        data=Rows(x=x, y=x), model=Wide(), optimizer=fi.AdamW(lr=0.1), loss=loss, batch_size=32, epochs=1
    )
    return fi.train(recipe)


def test_what_a_row_needs_is_measured_on_few_rows(tape):
    together.clear()
    many = affordable_rows(tape, 1024)
    assert together == [8] and many == 32 < ROWS  # more than 64 MiB: as many as a step of training has
    assert affordable_rows(tape, 3) == 3 and together == [8]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["own-loss", "grad-dot", "gradient-norm", "less"])
def test_no_method_evaluates_more_rows_together_than_memory_allows(tape, method):
    together.clear()
    options = {"checkpoints": 1} if method == "less" else {}
    query = mean_loss(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), name="q")
    found = fi.estimate(tape, query, method=method, **options)
    assert max(together) <= affordable_rows(tape, 1024)
    wanted = loss(tape.model(), {"x": torch.tensor([[-1.0]])})
    assert found.data["own_loss"].values[0] == pytest.approx(wanted.item(), rel=1e-5)
