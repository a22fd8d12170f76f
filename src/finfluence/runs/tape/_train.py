"""train: a Recipe to a Tape."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finfluence import _files
from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, StorageError, TrainingError, explain
from finfluence.grads import gradients_on
from finfluence.runs.checkpoints import RegularCheckpoints
from finfluence.runs.describe import Recipe
from finfluence.runs.steps import RecipeSteps, check_unchanged, seeded
from finfluence.runs.tape._tape import Tape
from finfluence.runs.tape._tape import resume as resume_tape
from finfluence.runs.tape._tape_header import header_of


@gradients_on()
def train(
    recipe: Recipe,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    *,
    init_seed: int | None = None,
    order_seed: int | None = None,
    resume: bool = False,
    snapshot_bytes: int = 2**30,
    progress: Progress = silent,
) -> Tape:
    """Train as the recipe says and keep a tape of it.

    The parameters are those of a plain `torch.optim` loop over `recipe.order(seed)`, bit for bit on CPU.

    Parameters
    ----------
    seed : int
        Seed of initialisation and of batch order; `init_seed` and `order_seed` set them apart.
    out : path, optional
        Folder for the tape; in memory if None.
    resume : bool
        Go on with the tape in `out` where it stopped; the numbers are those of an uninterrupted run.
    snapshot_bytes : int
        Budget for kept states. Every k-th is kept, k the smallest that fits; replay recomputes the others.
    progress : callable
        Called as `progress("train", step, steps)`.

    Returns
    -------
    Tape

    Raises
    ------
    ConfigError
        A seed that is no whole number ≥ 0; a recipe whose weights were written on since it was made.
    DataError
        A field of the rows was written on since the recipe was first used.
    TrainingError
        The loss became NaN or infinite; the step is named.
    StorageError
        `out` holds another run, or cannot be written.

    Notes
    -----
    Cost: one training run and a copy of the state every k steps.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=2)
    >>> train(recipe, seed=0).steps
    4
    """
    init = _check_seed(seed if init_seed is None else init_seed)
    order = _check_seed(seed if order_seed is None else order_seed)
    check_unchanged(recipe)
    folder = Path(out) if out is not None else None
    if folder is not None and (folder / "tape.json").exists():
        run, checkpoints = _go_on(recipe, (init, order), folder, resume)
    else:
        run, checkpoints = _start(recipe, (init, order), folder, snapshot_bytes)
    row_losses: dict[int, Tensor] = {}
    if not checkpoints.complete:
        _run(run, checkpoints, progress, row_losses)
    return Tape(run, checkpoints, folder, order, row_losses)


def _go_on(
    recipe: Recipe, seeds: tuple[int, int], folder: Path, resume: bool
) -> tuple[RecipeSteps, RegularCheckpoints]:
    if not resume:
        raise StorageError(
            explain(
                f"an empty or new folder at {folder}",
                "the tape of another run",
                "the folder was used before",
                "choose another folder, or pass resume=True to go on with that run",
            )
        )
    run, checkpoints = resume_tape(folder, recipe)
    if (run.init_seed, run.order_seed) != seeds:
        raise StorageError(
            explain(
                f"the tape of seeds init={seeds[0]}, order={seeds[1]} in {folder}",
                f"one of seeds init={run.init_seed}, order={run.order_seed}",
                "the folder holds a run of another seed",
                "choose another folder, or the seed of that run",
            )
        )
    return run, checkpoints


def _start(
    recipe: Recipe, seeds: tuple[int, int], folder: Path | None, snapshot_bytes: int
) -> tuple[RecipeSteps, RegularCheckpoints]:
    run = RecipeSteps(recipe, *seeds)
    interval = interval_for(run.count, run.width * run.layout.dtype.itemsize, snapshot_bytes)
    run.stepper.check_first_batch(run.order[0])
    if folder is not None:
        for stale in folder.glob("states-*.safetensors"):
            stale.unlink()
        _files.write_json(folder / "tape.json", header_of(run, interval))
    return run, RegularCheckpoints(run.width, run.layout.dtype, run.count, interval, folder)


def interval_for(steps: int, state_bytes: int, snapshot_bytes: int) -> int:
    """Return k, the smallest for which every k-th state fits in `snapshot_bytes`.

    Returns
    -------
    int

    Examples
    --------
    >>> interval_for(steps=1000, state_bytes=2**20, snapshot_bytes=2**28)
    4
    """
    return min(max(1, -(-steps * state_bytes // snapshot_bytes)), steps)


def _run(
    run: RecipeSteps, checkpoints: RegularCheckpoints, progress: Progress, row_losses: dict[int, Tensor]
) -> None:
    stepper, interval, steps = run.stepper, checkpoints.interval, run.count
    start = max(0, len(checkpoints) - 1) * interval
    checkpoints.losses[start:] = []
    checkpoints.losses[:] = [loss.to(run.layout.device) for loss in checkpoints.losses]
    if len(checkpoints):
        stepper.set_state(start, checkpoints[start].to(run.layout.device))
    per_epoch = run.recipe.steps_per_epoch
    with seeded(0):
        for t in range(start, steps):
            if t % interval == 0 and t // interval == len(checkpoints):
                checkpoints.append(stepper.get_state)
            checkpoints.losses.append(stepper.step(t, run.order[t]))
            if stepper.row_losses is not None:
                row_losses[t] = stepper.row_losses
            if (t + 1) % per_epoch == 0 or t + 1 == steps:
                _check_finite(run, checkpoints.losses, t + 1 - per_epoch)
                progress("train", t + 1, steps)
    checkpoints.append(stepper.get_state)
    checkpoints.flush()


def _check_finite(run: RecipeSteps, losses: list[Tensor], since: int) -> None:
    recent = torch.stack(losses[max(0, since) :])
    bad = (~torch.isfinite(recent)).nonzero()
    if not len(bad):
        return
    step = max(0, since) + int(bad[0])
    raise TrainingError(
        explain(
            "a finite training loss at every step",
            f"{recent[bad[0]].item()} at step {step} of {run.count}",
            f"the learning rate ({run.recipe.optimizer.lr:g}) is too high, or inputs are not scaled",
            "lower the learning rate tenfold, or standardise the inputs",
        )
    )


def _check_seed(seed: object) -> int:
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0:
        return int(seed)
    raise ConfigError(
        explain(
            "seed to be a whole number ≥ 0",
            repr(seed),
            "a float or a text was passed",
            "pass for instance seed=0",
        )
    )
