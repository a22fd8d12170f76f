import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

import finfluence.runs as fr
from finfluence.distributed import RayWorkers, ray_workers
from finfluence.ensemble import RunSpec, RunStore, Workers, train_many
from finfluence.errors import ConfigError, TrainingError
from finfluence.estimators.retrain import retrain
from small_recipes import class_loss, classifier, held_out, mlp

ray = pytest.importorskip("ray")
# a cluster takes ten seconds to a minute to start, and worker processes import everything anew
cluster = pytest.mark.cluster

SPECS = [RunSpec(0, k) for k in range(6)]
HERE = str(Path(__file__).parents[1])


def words(error: pytest.ExceptionInfo[Exception]) -> list[str]:
    first, *rest = str(error.value).splitlines()
    return [first.removeprefix("expected "), *(line.split(": ", 1)[1] for line in rest)]


def in_worker() -> bool:
    return ray._private.worker.global_worker.mode == ray.WORKER_MODE


# The tests of a cluster of one's own come first: while another one runs on the machine, it is used.
SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
import warnings; warnings.simplefilter("error")
from small_recipes import classifier, class_loss, held_out
from finfluence.ensemble import RunSpec, Workers, train_many
import numpy as np, os, time, ray
pause = float(sys.argv[2])
def loss(model, batch):  # of __main__, as in a notebook
    time.sleep(pause) if ray._private.worker.global_worker.mode == ray.WORKER_MODE else None
    return class_loss(model, batch)
specs = [RunSpec(0, k) for k in range(6)]
there = train_many(classifier(loss=loss), specs, held_out(), Workers("ray", 2)).values
assert not ray.is_initialized()
print(np.array_equal(there, train_many(classifier(), specs, held_out(), Workers("serial")).values))
"""


def run_script(sleep: float) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, HERE, str(sleep)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    _, left = psutil.wait_procs(processes, timeout=20)
    return left


@cluster
def test_a_cluster_of_our_own_is_started_quietly_and_stopped():
    process = run_script(0.0)
    try:
        out, error = process.communicate(timeout=240)
    finally:
        process.kill()
    assert (process.returncode, out, error) == (0, "True\n", "")


@cluster
def test_interrupted_nothing_is_left_running():
    process = run_script(600.0)
    deadline = time.monotonic() + 240
    started: list[psutil.Process] = []
    while not any("ray::_alone" in " ".join(p.cmdline()) for p in started):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
        started = [p for p in psutil.Process(process.pid).children(recursive=True) if p.is_running()]
        started = [p for p in started if p.status() != psutil.STATUS_ZOMBIE]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert alive(started) == []


@pytest.fixture(scope="module")
def two_workers():
    """A cluster that the user has started and is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_workers(2):
            yield


@cluster
def test_stacked_and_single_runs_equal_those_made_here(two_workers):
    scale = 1.5  # the loss is a closure

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return class_loss(model, batch) * scale

    for recipe in (classifier(loss=loss), classifier(loss=loss, model=mlp(1, dropout=0.3))):
        here = train_many(recipe, SPECS, held_out()[:1], Workers("serial"))
        there = train_many(recipe, SPECS, held_out()[:1], Workers("ray"))
        assert np.array_equal(here.values, there.values)
        assert here.how == there.how


@cluster
def test_retrain_takes_the_executor(two_workers):
    here, there = (
        retrain(classifier(), held_out(), ["r0"], runs=8, executor=e).data.drop_attrs() for e in (None, "ray")
    )
    assert here.identical(there)


@cluster
def test_a_killed_worker_costs_its_runs_and_no_more(two_workers, tmp_path):
    once = tmp_path / "killed"

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        # a hard end in the middle of a task, once: as from outside, nothing can be caught
        if in_worker() and any(store.iterdir()) and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return class_loss(model, batch)

    store = tmp_path / "runs"
    store.mkdir()
    finished: list[int] = []

    def count(stage: str, done: int, total: int) -> None:
        finished.append(len(RunStore(store)))

    options = {"runs": 12, "max_bytes": 1}
    there = {"executor": "ray", "n_jobs": 2, "out": store, "progress": count}
    killed = retrain(classifier(loss=loss), held_out()[:1], ["r0"], **options, **there)
    assert once.exists()
    assert finished[0] > 0
    assert finished == sorted(finished)
    whole = retrain(classifier(), held_out()[:1], ["r0"], executor="serial", **options)
    assert killed.data.drop_attrs().identical(whole.data.drop_attrs())
    assert len(RunStore(store)) == killed.data.attrs["runs_trained"] == 24


@cluster
def test_workers_that_always_die_are_told(two_workers, monkeypatch):
    monkeypatch.setattr(RayWorkers, "tries_again", 1)

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if in_worker():
            os.kill(os.getpid(), signal.SIGKILL)
        return class_loss(model, batch)

    with pytest.raises(TrainingError) as raised:
        train_many(classifier(loss=loss), SPECS, held_out()[:1], Workers("ray"))
    assert words(raised)[0] == "every worker of the Ray cluster to finish its task within 2 tries"
    assert words(raised)[1].startswith("WorkerCrashedError")
    assert words(raised)[2:] == [
        "the workers ran out of memory, or were killed from outside",
        "lower max_bytes or n_jobs and call again: runs finished so far are kept if out=… is given",
    ]


@cluster
def test_an_error_of_the_recipe_is_the_same_error(two_workers):
    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if in_worker():
            raise ZeroDivisionError("a mistake of the recipe")
        return class_loss(model, batch)

    with pytest.raises(ZeroDivisionError, match="a mistake of the recipe"):
        train_many(classifier(loss=loss), SPECS, held_out()[:1], Workers("ray"))


@cluster
def test_what_cannot_be_sent_is_told(two_workers):
    lock = threading.Lock()

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with lock:
            return class_loss(model, batch)

    with pytest.raises(ConfigError) as raised:
        train_many(classifier(loss=loss), SPECS, held_out()[:1], Workers("ray"))
    assert words(raised)[0] == "a recipe and queries that can be sent to other processes"
    assert words(raised)[1].startswith("cannot pickle '_thread.lock' object, at ")
    assert words(raised)[1].endswith("lock")
    assert words(raised)[2:] == [
        "a function refers to an open file, a lock, a generator, a database connection or a running thread",
        "open such things inside the function, or use executor='serial'",
    ]


@cluster
def test_a_module_that_workers_lack_is_told(two_workers, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text(
        "from small_recipes import class_loss\ndef loss(m, b): return class_loss(m, b)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pytest.raises(ConfigError) as raised:
        train_many(classifier(loss=only_here.loss), SPECS, held_out()[:1], Workers("ray"))
    assert words(raised)[0] == (
        "every module that the model, loss and queries come from to be importable on the workers"
    )
    assert "No module named 'only_here'" in words(raised)[1]
    assert words(raised)[2] == (
        "functions of a module travel by its name, only those of a notebook or script travel whole"
    )
    assert words(raised)[3].startswith("install the module on the cluster, or connect before by ray.init(")


@cluster
def test_a_connected_cluster_stays_connected(two_workers):
    train_many(classifier(), SPECS[:2], held_out(), Workers("ray"))
    assert ray.is_initialized()


def test_an_address_without_a_cluster_is_told(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(address: str, **options: object) -> None:
        raise ConnectionError("could not connect")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError) as raised:
        train_many(classifier(), SPECS, held_out(), Workers("ray"))
    assert words(raised) == [
        "a Ray cluster at RAY_ADDRESS=10.0.0.1:6379",
        "could not connect",
        "the cluster is not running, or another machine's name was given",
        "start it by `ray start --head`, or unset RAY_ADDRESS to start one on this machine",
    ]


@pytest.mark.slow
def test_a_machine_too_busy_to_start_ray_is_told(monkeypatch):
    def refuse(address: str, **options: object) -> None:
        raise ConnectionError("no cluster") if address == "auto" else Exception("The node timed out")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(TrainingError) as raised:
        train_many(classifier(), SPECS, held_out(), Workers("ray"))
    assert words(raised) == [
        "Ray to start on this machine within three tries of half a minute",
        "Exception: The node timed out",
        "the machine is busy, or its /tmp or memory is full",
        "call again when it is idle, or pass executor='joblib'",
    ]


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError) as raised:
        train_many(classifier(), SPECS, held_out(), Workers("ray"))
    assert words(raised) == [
        "the library 'ray', which trains on a cluster",
        "it cannot be imported (import of ray halted; None in sys.modules)",
        "finfluence was installed without its extra 'ray'",
        "pip install 'finfluence[ray]', or pass executor='joblib'",
    ]


@pytest.mark.slow
def test_ray_is_imported_in_one_file_and_only_when_asked():
    source = Path(fr.__file__).parents[1]
    files = [
        p.name
        for p in source.rglob("*.py")
        if "import ray\n" in p.read_text() or 'require("ray"' in p.read_text()
    ]
    assert files == ["_ray.py"]
    code = "import sys, finfluence.estimators; print('ray' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "False\n"
