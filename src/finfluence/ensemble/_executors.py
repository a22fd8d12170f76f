"""Runs that cannot be stacked: one by one with one thread each, here or over processes by joblib."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from finfluence._extras import require
from finfluence.ensemble._stacked import RunSpec
from finfluence.errors import ConfigError
from finfluence.runs import Recipe, Stepper, initial_model, seeded

Executor = Literal["serial", "joblib", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the block, so that numbers do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_one(recipe: Recipe, run: RunSpec) -> nn.Module | None:
    """Train one run with the recipe's own optimiser; return the model, or None if it diverged."""
    model = initial_model(recipe, run.init_seed)
    stepper = Stepper(recipe, model, run.order_seed)
    t = 0
    with seeded(0):
        for epoch in range(recipe.epochs):
            for rows in run.epoch_order(recipe, epoch):
                stepper.step(t, rows)
                t += 1
    state = torch.empty(stepper.width, dtype=stepper.layout.dtype, device=stepper.layout.device)
    stepper.get_state(state)
    return model if bool(torch.isfinite(state).all()) else None


def over_processes(
    work: Callable[[Task], Result], tasks: Sequence[Task], n_jobs: int | None
) -> Iterator[Result]:
    """Yield `work(task)` for every task as each is finished, from `n_jobs` processes of one thread each."""
    joblib = _joblib()
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(n_jobs=processes(n_jobs), return_as="generator_unordered")
        yield from parallel(joblib.delayed(work)(task) for task in tasks)


def processes(n_jobs: int | None) -> int:
    """Return the number of processes that `over_processes` uses."""
    return n_jobs or int(_joblib().cpu_count())


def has_joblib() -> bool:
    """Whether joblib can be imported."""
    try:
        _joblib()
    except ConfigError:
        return False
    return True


def _joblib() -> Any:
    return require("joblib", "trains in several processes", "parallel", "pass executor='serial'")
