"""How many rows of a tape are evaluated together: as many as there is memory for, logits included."""

from dataclasses import dataclass

import torch

from finfluence.grads import saved_tensors
from finfluence.runs.steps import seeded
from finfluence.runs.tape._cache import Key
from finfluence.runs.tape._tape import Tape

ROOM_BYTES = 2**26
MEASURED = 8


@dataclass(frozen=True)
class _RowBytes(Key[float]):
    """What autograd saves for a row among others; it depends on nothing but the tape."""


def affordable_rows(tape: Tape, most: int) -> int:
    """Return how many rows to evaluate together: at most `most`, and where rows are dear no more than a step has.

    Dear are rows for which autograd would save more than 64 MiB together: beyond, more rows at once are no quicker, and
    nothing should take more memory than training did. What it saves is measured on a few rows of the first batch,
    whatever the model is: of a language model it is mostly logits.

    Returns
    -------
    int
    """
    each = tape.cache.get(_RowBytes(), lambda: _row_bytes(tape))
    return min(most, max(len(tape.order[0]), int(ROOM_BYTES // max(each, 1.0))))


def _row_bytes(tape: Tape) -> float:
    rows = torch.as_tensor(tape.at(0).rows[:MEASURED])
    model, batch = tape.model().eval(), tape.batch(rows)
    with seeded(0):
        held = dict(saved_tensors(lambda: tape.loss(model, batch)))
    return sum(held.values()) / len(rows)
