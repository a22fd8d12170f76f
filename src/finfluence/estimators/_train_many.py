"""train_many: values of queries for many runs of one recipe, stacked where possible."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, explain
from finfluence.estimators._batched import RunSpec, Stack, not_stackable
from finfluence.estimators._parallel import Executor, has_joblib, one_thread, over_processes, train_one
from finfluence.estimators._states_queried import StackedQueries, query_values
from finfluence.grads import Layout
from finfluence.runs import AnyQuery, Recipe, initial_model

_STACKS_PER_TASK = 4
Done = Callable[[np.ndarray, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class ManyRuns:
    """Values [runs, queries] of trained runs, NaN where a run diverged, and how they were trained."""

    values: np.ndarray
    how: str


@dataclass(frozen=True, eq=False)
class _Task:
    recipe: Recipe
    queries: Sequence[AnyQuery]
    runs: Sequence[RunSpec]
    indices: np.ndarray
    lanes: int


def train_many(
    recipe: Recipe,
    runs: Sequence[RunSpec],
    queries: Sequence[AnyQuery],
    *,
    executor: Executor | None = None,
    n_jobs: int | None = None,
    max_bytes: int = 2**30,
    progress: Progress = silent,
    on_done: Done | None = None,
) -> ManyRuns:
    """Train every run and ask every query of its final model.

    Parameters
    ----------
    executor : {None, "serial", "joblib"}
        None: stacked in this process; what cannot be stacked, over processes. "joblib": always over
        processes. "serial": always in this process.
    n_jobs : int, optional
        Processes; all cores by default. Results do not depend on it.
    max_bytes : int
        Memory for the copies trained at once.
    on_done : callable
        Called as `on_done(indices, values)` as soon as some runs are finished.

    Notes
    -----
    Each process uses one thread. On CPU a run's values do not depend on which runs are trained beside it,
    as long as `max_bytes` has room for a stack.
    """
    values = np.full((len(runs), sum(len(q.names) for q in queries)), np.nan)
    if not len(runs):
        return ManyRuns(values, "no run")
    with one_thread():
        seeds = list(dict.fromkeys(run.init_seed for run in runs))
        reason = not_stackable(recipe, (seeds * 2)[:2])
        lanes = 0 if reason else Stack(recipe, initial_model(recipe, seeds[0])).lanes(max_bytes)
        processes = _use_processes(executor, stacked=reason is None)
        done = 0
        for indices, part in _results(
            _tasks(recipe, runs, queries, lanes, processes, n_jobs), processes, n_jobs
        ):
            values[indices] = part
            if on_done is not None:
                on_done(indices, part)
            done += len(indices)
            progress("retrain", done, len(runs))
    how = f"stacked, {lanes} at once" if reason is None else f"one by one: {reason}"
    return ManyRuns(values, how)


def final_models(recipe: Recipe, runs: Sequence[RunSpec], max_bytes: int = 2**30) -> list[nn.Module | None]:
    """Train every run and return its final model, None where it diverged."""
    with one_thread():
        seeds = list(dict.fromkeys(run.init_seed for run in runs))
        if not runs or not_stackable(recipe, (seeds * 2)[:2]):
            return [train_one(recipe, run) for run in runs]
        stack = Stack(recipe, initial_model(recipe, seeds[0]))
        thetas = torch.cat(list(_trained(stack, runs, stack.lanes(max_bytes))))
        return [_model(recipe, run, theta) for run, theta in zip(runs, thetas, strict=True)]


def _model(recipe: Recipe, run: RunSpec, theta: Tensor) -> nn.Module | None:
    if not bool(torch.isfinite(theta).all()):
        return None
    model = initial_model(recipe, run.init_seed)
    Layout(model).assign(model, theta)
    return model


def _trained(stack: Stack, runs: Sequence[RunSpec], lanes: int) -> Iterator[Tensor]:
    """Yield the final parameters of the runs, at most `lanes` at once."""
    for first in range(0, len(runs), lanes):
        yield stack.train(runs[first : first + lanes], padded=lanes > 1)


def _use_processes(executor: Executor | None, stacked: bool) -> bool:
    if executor not in (None, "serial", "joblib"):
        raise ConfigError(
            explain(
                "executor to be None, 'serial' or 'joblib'",
                repr(executor),
                "another backend's name was passed",
                "pass executor='joblib' to use every core",
            )
        )
    return executor == "joblib" or (executor is None and not stacked and has_joblib())


def _tasks(
    recipe: Recipe,
    runs: Sequence[RunSpec],
    queries: Sequence[AnyQuery],
    lanes: int,
    processes: bool,
    n_jobs: int | None,
) -> list[_Task]:
    """Cut the runs into tasks: one stack each here, several stacks (or single runs) each over processes."""
    size = max(1, lanes)
    if processes:
        from joblib import cpu_count

        share = -(-len(runs) // (n_jobs or cpu_count()))
        size = min(share, lanes * _STACKS_PER_TASK) if lanes else min(16, -(-share // 4))
    indices = np.arange(len(runs))
    cuts = [indices[a : a + size] for a in range(0, len(runs), size)]
    return [_Task(recipe, queries, [runs[i] for i in cut], cut, lanes) for cut in cuts]


def _results(
    tasks: list[_Task], processes: bool, n_jobs: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if processes:
        yield from over_processes(_alone, tasks, n_jobs)
        return
    worker = _Worker(tasks[0])
    for task in tasks:
        yield task.indices, worker(task.runs)


def _alone(task: _Task) -> tuple[np.ndarray, np.ndarray]:
    with one_thread():
        return task.indices, _Worker(task)(task.runs)


class _Worker:
    """Trains runs of one recipe in this process and asks the queries."""

    def __init__(self, task: _Task) -> None:
        self._recipe, self._queries, self._lanes = task.recipe, task.queries, task.lanes
        if self._lanes:
            seed = task.runs[0].init_seed
            self._stack = Stack(task.recipe, initial_model(task.recipe, seed))
            self._ask = StackedQueries(
                task.recipe, initial_model(task.recipe, seed), task.queries, together=self._lanes > 1
            )

    def __call__(self, runs: Sequence[RunSpec]) -> np.ndarray:
        if self._lanes:
            thetas = _trained(self._stack, runs, self._lanes)
            return np.concatenate([self._ask(theta) for theta in thetas])
        width = sum(len(q.names) for q in self._queries)
        values = []
        for run in runs:
            model = train_one(self._recipe, run)
            values.append(
                np.full(width, np.nan) if model is None else query_values(self._recipe, model, self._queries)
            )
        return np.stack(values)
