"""Memory foretold for one-sided differences: what replays of them hold at most, rows dear or not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence as fi
from finfluence.estimators.replay.cost import PeakMemory, plan
from finfluence.runs import seeded

PLACES, INPUTS, CLASSES = 4, 16, 5
Batch = dict[str, Tensor]


class Wide(nn.Module):
    """Two layers at each place of a row, their mean, and a frozen head where rows shall be dear."""

    def __init__(self, hidden: int, outputs: int = 0) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(INPUTS, hidden), nn.Linear(hidden, CLASSES)
        self.register_buffer("head", torch.randn(CLASSES, outputs) if outputs else None)

    def forward(self, x: Tensor) -> Tensor:
        out = self.outer(F.gelu(self.inner(x)))
        return out.mean(1) if self.head is None else (out @ self.head).mean(1)


def row_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def tape_of(hidden: int, outputs: int) -> fi.Tape:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, PLACES, INPUTS)).astype(np.float32)
    with seeded(0):
        model = Wide(hidden, outputs)
    rows = fi.Rows(x=x, y=rng.integers(0, CLASSES, 30))
    return fi.train(fi.Recipe(rows, model, row_loss, fi.AdamW(lr=1e-3), batch_size=10, epochs=3))


def queries(tape: fi.Tape, count: int) -> list[fi.Query]:
    def one(k: int) -> fi.Query:
        rows = tape.batch(torch.arange(k, k + 1))
        return fi.Query(lambda model: row_loss(model, rows).mean(), name=f"row {k}")

    return [one(k) for k in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "outputs", "count", "late"), [(1500, 0, 2, 0.2), (900, 0, 1, 0.0), (20, 100_000, 1, 0.0)]
)
def test_the_memory_foretold_is_the_peak(hidden: int, outputs: int, count: int, late: float) -> None:
    """Within 30 per cent of the most that tensors of a replay held."""
    tape = tape_of(hidden, outputs)
    stages = plan(tape, queries(tape, count), late=late).stages
    foretold = max(s.memory_bytes for s in stages if s.name != "result")  # which is NumPy's
    recorded = tape_of(hidden, outputs)
    with PeakMemory() as counted:
        found = fi.replay(recorded, queries(recorded, count), late=late)
    assert found.provenance.differentiation == "finite-difference"
    assert foretold == pytest.approx(counted.peak, rel=0.3)
