"""Tasks over a Ray cluster: the one file that imports Ray, and only when asked to."""

import gc
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from finfluence._extras import require
from finfluence.errors import ConfigError, TrainingError, explain

Common = TypeVar("Common")
Task = TypeVar("Task")
Result = TypeVar("Result")


class RayWorkers:
    """Workers of a Ray cluster, one CPU each.

    Parameters
    ----------
    ray : module
        The module, connected to a cluster.
    n_jobs : int, optional
        Tasks at a time; by default as many as the cluster has CPUs.

    Attributes
    ----------
    tries_again : int
        How often a task is tried again whose worker died.
    """

    tries_again = 3

    def __init__(self, ray: Any, n_jobs: int | None) -> None:
        self._ray = ray
        self.count = n_jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(
        self, work: Callable[[Common, Task], Result], common: Common, tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Yield `work(common, task)` for every task as each is finished; `common` is sent once to each machine.

        A task whose worker dies is tried three times more.

        Yields
        ------
        Result

        Raises
        ------
        ConfigError
            Something cannot be sent, or a worker cannot import what a function refers to.
        TrainingError
            A task's worker died every time, or the cluster is gone.
        """
        ray = self._ray
        with _sendable(ray):
            shared = ray.put(common)
            remote = ray.remote(num_cpus=1, max_retries=self.tries_again, retry_exceptions=False)(work)
            waiting = list(reversed(tasks))
            running: list[Any] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.count:
                    running.append(remote.remote(shared, waiting.pop()))
                done, running = ray.wait(running, num_returns=1)
                yield _answer(ray, done[0])
        finally:
            for task in running:
                ray.cancel(task, force=True)


@contextmanager
def ray_workers(n_jobs: int | None) -> Iterator[RayWorkers]:
    """Yield the workers of a Ray cluster; what was started or connected here is ended with the block.

    In this order: the cluster this process is connected to; that of the environment variable RAY_ADDRESS; one that
    runs on this machine; else one is started here, with `n_jobs` CPUs (default: all) and without a dashboard.

    Yields
    ------
    RayWorkers

    Raises
    ------
    ConfigError
        Ray is not installed, or the cluster of RAY_ADDRESS cannot be reached.
    TrainingError
        Ray does not start.
    """  # noqa: DOC501 - made by a function
    ray = _ray()
    if ray.is_initialized():
        yield RayWorkers(ray, n_jobs)
        return
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    try:
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError as error:
            if address := os.environ.get("RAY_ADDRESS"):
                raise _unreachable(address, error) from error
            _start(ray, n_jobs, quiet)
        yield RayWorkers(ray, n_jobs)
    finally:
        _stop(ray)


def _start(ray: Any, n_jobs: int | None, quiet: dict[str, Any]) -> None:
    # what the caller can import by its sys.path, workers of this machine can import as well
    paths = os.pathsep.join(dict.fromkeys(os.path.abspath(path) for path in sys.path))
    for last in (
        False,
        False,
        True,
    ):  # Ray gives its own processes half a minute, which a busy machine may exceed
        try:
            ray.init(
                address="local", num_cpus=n_jobs, include_dashboard=False, **quiet,
                runtime_env={"env_vars": {"PYTHONPATH": paths}},
            )  # fmt: skip
            return
        except Exception as error:  # Ray has no class of its own for this
            _stop(ray)
            if last:
                raise TrainingError(
                    explain(
                        "Ray to start on this machine within three tries of half a minute",
                        f"{type(error).__name__}: {_first_line(error)}",
                        "the machine is busy, or its /tmp or memory is full",
                        "call again when it is idle, or pass executor='joblib'",
                    )
                ) from error


def _stop(ray: Any) -> None:
    ray.shutdown()
    with warnings.catch_warnings():  # Ray leaves log files and ended processes to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _answer(ray: Any, finished: Any) -> Any:
    errors = ray.exceptions
    try:
        return ray.get(finished)
    except (
        errors.WorkerCrashedError,
        errors.OutOfMemoryError,
        errors.NodeDiedError,
        errors.ObjectLostError,
    ) as error:
        raise TrainingError(
            explain(
                f"every worker of the Ray cluster to finish its task within {1 + RayWorkers.tries_again} tries",
                f"{type(error).__name__}: {_first_line(error)}",
                "the workers ran out of memory, or were killed from outside",
                "lower max_bytes or n_jobs and call again: runs finished so far are kept if out=… is given",
            )
        ) from error
    except errors.RayTaskError as error:
        cause = error.cause
        missing = _missing_module(cause)
        if missing is None:
            raise (cause if isinstance(cause, Exception) else error) from error
        raise ConfigError(
            explain(
                "every module that the model, loss and queries come from to be importable on the workers",
                missing,
                "functions of a module travel by its name, only those of a notebook or script travel whole",
                "install the module on the cluster, or connect before by "
                "ray.init(runtime_env={'py_modules': [module]})",
            )
        ) from error
    except errors.RaySystemError as error:
        raise TrainingError(
            explain(
                "the Ray cluster to stay until the end",
                f"{type(error).__name__}: {_first_line(error)}",
                "the cluster was stopped, or the connection to it was lost",
                "start it and call again: runs finished so far are kept if out=… is given",
            )
        ) from error


def _missing_module(cause: Any) -> str | None:
    """Return what a worker could not import, if that is why it failed.

    A failure to unpack the task itself comes as a text only.

    Returns
    -------
    str | None
    """
    if isinstance(cause, ImportError):
        return str(cause)
    lines = [
        line for line in str(cause).splitlines() if line.startswith(("ModuleNotFoundError", "ImportError"))
    ]
    return lines[-1] if lines else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


@contextmanager
def _sendable(ray: Any) -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        raise ConfigError(
            explain(
                "a recipe and queries that can be sent to other processes",
                _unsendable(str(error)),
                "a function refers to an open file, a lock, a generator, a database connection or a running thread",
                "open such things inside the function, or use executor='serial'",
            )
        ) from error


def _unsendable(report: str) -> str:
    """Return what cannot be sent and where it is, from Ray's report of several pages."""
    what = re.search(r"cannot pickle [^\n\x1b]*", report)
    where = re.search(r"\[path=([^,\]]*)", report)
    if what is None:
        return (report.strip().splitlines() or ["TypeError"])[0][:200]
    return what.group().strip() + (f", at {where.group(1)}" if where else "")


def _unreachable(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        explain(
            f"a Ray cluster at RAY_ADDRESS={address}",
            _first_line(error),
            "the cluster is not running, or another machine's name was given",
            "start it by `ray start --head`, or unset RAY_ADDRESS to start one on this machine",
        )
    )


def _ray() -> Any:
    return require("ray", "trains on a cluster", "ray", "pass executor='joblib'")
