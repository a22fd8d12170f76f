"""States of a run between kept ones, taken again step by step."""

import torch
from torch import Tensor

from finfluence.runs.steps._recipe_steps import RecipeSteps
from finfluence.runs.steps._recorded_steps import RecordedSteps
from finfluence.runs.steps._stepper import seeded


def states_from(
    run: RecipeSteps | RecordedSteps, first: int, start: Tensor, stop: int, every: int = 1
) -> Tensor:
    """Return the states [m, width] before steps first, first + every, … < stop, from `start`, that before `first`."""
    if stop - first <= every:
        return start.unsqueeze(0)
    states = torch.empty(-(-(stop - first) // every), run.width, dtype=run.layout.dtype)
    states[0] = start
    run.load(first, start.to(run.layout.device))
    with seeded(0):
        for done in range(1, (len(states) - 1) * every + 1):
            run.take(first + done - 1)
            if done % every == 0:
                run.read_into(states[done // every])
    return states
