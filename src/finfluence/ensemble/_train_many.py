"""train_many: values of queries for many runs of one recipe, stacked where possible."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._progress import Progress, silent
from finfluence.distributed import ray_workers
from finfluence.ensemble._executors import (
    Executor,
    has_joblib,
    one_thread,
    over_processes,
    processes,
    train_one,
)
from finfluence.ensemble._query_values import StackedQueries, query_values
from finfluence.ensemble._stacked import RunSpec, StackedRuns, not_stackable
from finfluence.errors import ConfigError, explain
from finfluence.grads import Layout
from finfluence.runs import AnyQuery, Recipe, check_unchanged, initial_model

_STACKS_PER_TASK = 4
Done = Callable[[np.ndarray, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class ManyRuns:
    """Values [runs, queries] of trained runs, NaN where a run diverged, and how they were trained."""

    values: np.ndarray
    how: str


@dataclass(frozen=True)
class Workers:
    """Where many runs are trained, and in how much memory. Results do not depend on it.

    Parameters
    ----------
    executor : {None, "serial", "joblib", "ray"}
        None: stacked in this process; what cannot be stacked, over processes. "joblib": always over
        processes. "serial": always in this process. "ray": over the Ray cluster that this process is connected
        to, or RAY_ADDRESS names, or runs on this machine; else one is started here and stopped at the end.
    n_jobs : int, optional
        Processes; all cores by default (Ray: all CPUs of the cluster).
    max_bytes : int
        Memory for the copies trained at once.
    """

    executor: Executor | None = None
    n_jobs: int | None = None
    max_bytes: int = 2**30


@dataclass(frozen=True, eq=False)
class _Common:
    """What all tasks share: what is trained, what is measured, copies at once (0: one by one)."""

    recipe: Recipe
    queries: Sequence[AnyQuery]
    replicas: int


@dataclass(frozen=True, eq=False)
class _Task:
    runs: Sequence[RunSpec]
    indices: np.ndarray


def train_many(
    recipe: Recipe,
    runs: Sequence[RunSpec],
    queries: Sequence[AnyQuery],
    workers: Workers = Workers(),
    *,
    progress: Progress = silent,
    on_done: Done | None = None,
) -> ManyRuns:
    """Train every run and evaluate every query on its final model.

    Parameters
    ----------
    recipe : Recipe
        What is trained.
    runs : sequence of RunSpec
        Seeds and rows of each run.
    queries : sequence of Query
        What is measured.
    workers : Workers
        Where.
    progress : callable
        Called as `progress("retrain", done, total)`.
    on_done : callable
        Called as `on_done(indices, values)` as soon as some runs are finished.

    Returns
    -------
    ManyRuns

    Notes
    -----
    Each process uses one thread. On CPU a run's values do not depend on which runs are trained beside it,
    as long as `workers.max_bytes` has room for a stack.
    """
    values = np.full((len(runs), sum(len(q.names) for q in queries)), np.nan)
    if not len(runs):
        return ManyRuns(values, "no run")
    check_unchanged(recipe)
    with one_thread():
        seeds = list(dict.fromkeys(run.init_seed for run in runs))
        reason = not_stackable(recipe, (seeds * 2)[:2])
        replicas = (
            0 if reason else StackedRuns(recipe, initial_model(recipe, seeds[0])).replicas(workers.max_bytes)
        )
        common = _Common(recipe, queries, replicas)
        done = 0
        for indices, part in _results(
            common, runs, _place(workers.executor, stacked=reason is None), workers.n_jobs
        ):
            values[indices] = part
            if on_done is not None:
                on_done(indices, part)
            done += len(indices)
            progress("retrain", done, len(runs))
    how = f"stacked, {replicas} at once" if reason is None else f"one by one: {reason}"
    return ManyRuns(values, how)


def final_models(recipe: Recipe, runs: Sequence[RunSpec], max_bytes: int = 2**30) -> list[nn.Module | None]:
    """Train every run and return its final model, None where it diverged."""
    with one_thread():
        seeds = list(dict.fromkeys(run.init_seed for run in runs))
        if not runs or not_stackable(recipe, (seeds * 2)[:2]):
            return [train_one(recipe, run) for run in runs]
        stack = StackedRuns(recipe, initial_model(recipe, seeds[0]))
        thetas = torch.cat(list(_trained(stack, runs, stack.replicas(max_bytes))))
        return [_model(recipe, run, theta) for run, theta in zip(runs, thetas, strict=True)]


def _model(recipe: Recipe, run: RunSpec, theta: Tensor) -> nn.Module | None:
    if not bool(torch.isfinite(theta).all()):
        return None
    model = initial_model(recipe, run.init_seed)
    Layout(model).assign(model, theta)
    return model


def _trained(stack: StackedRuns, runs: Sequence[RunSpec], replicas: int) -> Iterator[Tensor]:
    """Yield the final parameters of the runs, at most `replicas` at once."""
    for first in range(0, len(runs), replicas):
        yield stack.train(runs[first : first + replicas], padded=replicas > 1)


def _place(executor: Executor | None, stacked: bool) -> Executor:
    """Return where to train: the executor asked for, or the one that suits."""
    if executor not in (None, "serial", "joblib", "ray"):
        raise ConfigError(
            explain(
                "executor to be None, 'serial', 'joblib' or 'ray'",
                repr(executor),
                "another backend's name was passed",
                "pass executor='joblib' to use every core",
            )
        )
    return executor or ("serial" if stacked or not has_joblib() else "joblib")


def _results(
    common: _Common, runs: Sequence[RunSpec], place: Executor, n_jobs: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices and values of runs as they are finished."""
    if place == "serial":
        worker = _Worker(common, runs[0].init_seed)
        for task in _tasks(runs, max(1, common.replicas)):
            yield task.indices, worker(task.runs)
    elif place == "joblib":
        tasks = _tasks(runs, _share(len(runs), common.replicas, processes(n_jobs)))
        yield from over_processes(partial(_alone, common), tasks, n_jobs)
    else:
        with ray_workers(n_jobs) as workers:
            yield from workers.map(
                _alone, common, _tasks(runs, _share(len(runs), common.replicas, workers.count))
            )


def _share(n_runs: int, replicas: int, workers: int) -> int:
    """Return how many runs to give to a worker at once: some stacks, or a few single runs."""
    share = -(-n_runs // workers)
    return min(share, replicas * _STACKS_PER_TASK) if replicas else min(16, -(-share // 4))


def _tasks(runs: Sequence[RunSpec], size: int) -> list[_Task]:
    indices = np.arange(len(runs))
    cuts = [indices[a : a + size] for a in range(0, len(runs), size)]
    return [_Task([runs[i] for i in cut], cut) for cut in cuts]


def _alone(common: _Common, task: _Task) -> tuple[np.ndarray, np.ndarray]:
    with one_thread():
        return task.indices, _Worker(common, task.runs[0].init_seed)(task.runs)


class _Worker:
    """Trains runs of one recipe in this process and evaluates the queries."""

    def __init__(self, common: _Common, seed: int) -> None:
        self._recipe, self._queries, self._replicas = common.recipe, common.queries, common.replicas
        if self._replicas:
            recipe = self._recipe
            self._stack = StackedRuns(recipe, initial_model(recipe, seed))
            self._measure = StackedQueries(
                recipe, initial_model(recipe, seed), self._queries, together=self._replicas > 1
            )

    def __call__(self, runs: Sequence[RunSpec]) -> np.ndarray:
        if self._replicas:
            thetas = _trained(self._stack, runs, self._replicas)
            return np.concatenate([self._measure(theta) for theta in thetas])
        width = sum(len(q.names) for q in self._queries)
        values = []
        for run in runs:
            model = train_one(self._recipe, run)
            values.append(
                np.full(width, np.nan) if model is None else query_values(self._recipe, model, self._queries)
            )
        return np.stack(values)
