"""Which step of a recorded loop is the first that its rows, loss and optimiser do not make."""

from dataclasses import dataclass

import torch

from finfluence.estimators.derivatives._returned import ReturnedGradient
from finfluence.runs import Tape, seeded


@dataclass(frozen=True)
class Departure:
    """Step t: what of it departs, "gradient" or "parameters", and by how much, relative to the step."""

    t: int
    what: str
    size: float


def first_departure(tape: Tape, last: int) -> Departure | None:
    """Look at the steps of a recorded loop in their order, up to step `last`: one plain pass each.

    Returns
    -------
    Departure or None
        None where no step departs, or states between kept ones would be made by the very steps that are doubted.
    """
    if not tape.recorded or tape.interval > 1:
        return None
    plain = ReturnedGradient(tape.working, tape.step_loss)
    with seeded(0):
        for t in range(last + 1):
            step = tape.at(t)
            state, after = (tape.state(k).to(tape.layout.device) for k in (t, t + 1))
            even = torch.full((len(step.rows),), 1 / len(step.rows)).to(state)
            gradient = plain.at(state[: tape.layout.size], step.batch, step.seed, even)
            off = tape.optimizer.departure(state, after, step.hyper.unbind(), gradient)
            if off is not None:
                return Departure(t, *off)
    return None
