"""States of a run between kept ones, taken again step by step."""

import torch
from torch import Tensor

from finfluence.runs.steps._stepper import seeded
from finfluence.runs.steps._steps import Steps


def states_from(
    run: Steps, first: int, start: Tensor, stop: int, every: int = 1, losses: dict[int, Tensor] | None = None
) -> Tensor:
    """Return the states [m, width] before steps first, first + every, … < stop, from `start`, that before `first`.

    The row losses of the steps taken are put into `losses`.

    Returns
    -------
    Tensor
    """
    if stop - first <= every:
        return start.unsqueeze(0)
    states = torch.empty(-(-(stop - first) // every), run.width, dtype=run.layout.dtype)
    states[0] = start
    run.set_state(first, start.to(run.layout.device))
    with seeded(0):
        for done in range(1, (len(states) - 1) * every + 1):
            run.run_step(first + done - 1)
            if losses is not None and run.last_losses is not None:
                losses[first + done - 1] = run.last_losses
            if done % every == 0:
                run.get_state(states[done // every])
    return states
