"""TracIn of loops whose parameters have learning rates of their own."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
from recorded_loops import Loop


def two_rates(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.4}]  # type: ignore[index]
    )


def recorded(loop: Loop) -> fi.Tape:
    _, tape = loop.run(record=True)
    assert tape is not None
    return tape.finish()


def by_hand(tape: fi.Tape, step: int, rates: dict[str, float]) -> np.ndarray:
    """Return Σ over parameters of their rate times the product of gradients, row by row, with row 0's."""
    model, rows = tape.model(step), []
    named = dict(model.named_parameters())
    for i in range(len(tape.rows)):
        loss = tape.loss(model, tape.batch(torch.tensor([i])))[0]
        parts = torch.autograd.grad(loss, list(named.values()))
        rows.append({name: part.reshape(-1) for name, part in zip(named, parts, strict=True)})
    return np.array([sum(rates[n] * float(row[n] @ rows[0][n]) for n in named) for row in rows])


@pytest.mark.parametrize(("optimizer", "slow", "fast"), [
    (two_rates, 0.1, 0.4),
    (lambda m: torch.optim.SGD(m.parameters(), lr=0.2), 0.2, 0.2),
])  # fmt: skip
def test_each_parameter_has_the_rate_of_its_group(optimizer, slow, fast):
    tape = recorded(Loop(optimizer=optimizer))
    rates = {name: slow if name.startswith("0") else fast for name in tape.layout.names}
    assert tape.rates_at(3) == pytest.approx(list(rates.values()))
    found = fi.estimate(tape, fi.own_loss([0]), "tracin", checkpoints=2).data.score.values[:, 0]
    expected = sum(by_hand(tape, step, rates) for step in (tape.steps // 2, tape.steps))
    np.testing.assert_allclose(found, -expected, rtol=1e-8)
