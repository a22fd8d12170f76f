"""The first steps of a recipe, to look at before it is trained."""

from finfluence.runs.checkpoints import RegularCheckpoints
from finfluence.runs.describe import Recipe
from finfluence.runs.steps import RecipeSteps, seeded
from finfluence.runs.tape._tape import Tape


def dry_run(recipe: Recipe, steps: int) -> Tape:
    """Return a tape of the recipe's first `steps` steps, which knows of all its epochs."""
    run = RecipeSteps(recipe, 0, 0, steps)
    checkpoints = RegularCheckpoints(run.width, run.layout.dtype, run.count, 1, None)
    row_losses = {}
    with seeded(0):
        for t in range(run.count):
            checkpoints.append(run.get_state)
            checkpoints.losses.append(run.run_step(t))
            row_losses[t] = run.stepper.row_losses
    checkpoints.append(run.get_state)
    return Tape(run, checkpoints, row_losses={t: x for t, x in row_losses.items() if x is not None})
