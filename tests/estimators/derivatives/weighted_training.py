"""The right value of an effect: the derivative of a whole training in one row's weight, by central differences."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import finfluence as fi

EPOCHS, BATCH, STEP = 3, 4, 1e-5
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.5),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, eps=1e-3, weight_decay=0.1),
}


@dataclass(frozen=True)
class Problem:
    """A training: its model, row losses and rows, and what is asked of it."""

    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    data: dict[str, Tensor]
    query: Callable[[nn.Module], Tensor]


def trained(problem: Problem, optimizer: str, weights: Tensor, record: bool = False) -> nn.Module | fi.Tape:
    """An ordinary loop with a weight on every row's loss; returns the model, or the tape of the loop."""
    model = problem.model()
    theirs = OPTIMIZERS[optimizer](model.parameters())
    rows = fi.Rows(**problem.data)
    tape = fi.Tape.record(model, theirs, loss=problem.loss, data=rows) if record else None
    generator = torch.Generator().manual_seed(3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(weights), generator=generator).split(BATCH):
            losses = problem.loss(model, {k: v[batch] for k, v in problem.data.items()})
            ((losses * weights[batch]).sum() / weights[batch].sum()).backward()
            theirs.step()
            theirs.zero_grad()
            if tape is not None:
                tape.step(ids=batch)
    return model if tape is None else tape.finish()


def recorded(problem: Problem, optimizer: str) -> fi.Tape:
    """The tape of the loop in which all rows count alike."""
    return trained(problem, optimizer, torch.ones(len(problem.data["y"]), dtype=torch.float64), record=True)


def replayed(problem: Problem, tape: fi.Tape, **options: object) -> fi.Influence:
    """The effects on the final state, of all epochs."""
    options = {"first_steps": "tangent", **options}
    return fi.replay(tape, fi.Query(problem.query, name="q"), late=0.0, horizon=EPOCHS, **options)  # type: ignore[arg-type]


def right_effects(problem: Problem, optimizer: str, rows: list[int]) -> np.ndarray:
    """Minus the derivative of the query in a row's weight; times B/(B−1), as other rows take its place."""

    def outcome(row: int, shift: float) -> float:
        weights = torch.ones(len(problem.data["y"]), dtype=torch.float64)
        weights[row] += shift
        model = trained(problem, optimizer, weights)
        with torch.no_grad():
            return float(problem.query(model))

    found = [(outcome(row, -STEP) - outcome(row, STEP)) / (2 * STEP) for row in rows]
    return np.array(found) * BATCH / (BATCH - 1)
