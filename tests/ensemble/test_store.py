import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import finfluence.runs as fr
from finfluence.ensemble import RunSpec, RunStore, run_key, signature
from finfluence.errors import StorageError
from finfluence.estimators.retrain import retrain
from small_recipes import class_loss, classifier, held_out, mlp, rows

SUBSETS = {"first": ["r0"], "pair": ["r4", "r7"]}


def truth(out: Path | None, runs: int = 6, **options: object):
    return retrain(
        classifier(), held_out(), SUBSETS, runs=runs, runs_without=4, out=out, max_bytes=1, **options
    )


def test_values_come_back_bit_for_bit(tmp_path):
    values = np.array([[0.1, np.nan], [1e-300, -3.0]])
    RunStore(tmp_path).add(["a", "b"], values)
    again = RunStore(tmp_path)
    assert len(again) == 2
    np.testing.assert_array_equal([again.get("a"), again.get("b")], values)
    assert again.get("c") is None


def test_files_are_only_ever_added(tmp_path):
    store = RunStore(tmp_path)
    store.add(["a"], np.array([[1.0]]))
    (first,) = tmp_path.glob("runs-*.parquet")
    before = first.stat().st_mtime_ns, first.read_bytes()
    RunStore(tmp_path).add(["b"], np.array([[2.0, 3.0]]))
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_more_runs_later_reuse_the_old_ones(tmp_path):
    few = truth(tmp_path, runs=3)
    assert (few.data.attrs["runs_trained"], few.data.attrs["runs_reused"]) == (11, 0)
    more = truth(tmp_path, runs=6)
    assert (more.data.attrs["runs_trained"], more.data.attrs["runs_reused"]) == (3, 11)
    assert more.data.drop_attrs().identical(truth(None).data.drop_attrs())


def test_a_subset_added_later_keeps_the_runs_of_the_others(tmp_path):
    options = {"runs": 3, "out": tmp_path}
    retrain(classifier(), held_out(), {"first": ["r0"]}, **options)
    more = retrain(classifier(), held_out(), {"new": ["r9"], "renamed": ["r0"]}, **options)
    assert (more.data.attrs["runs_trained"], more.data.attrs["runs_reused"]) == (3, 6)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_numbers(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from test_store import truth\n"
        "truth(Path(sys.argv[1]), runs=400)\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        str(tmp_path),
        str(Path(__file__).parent),
        str(Path(__file__).parents[1]),
    ]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs-*.parquet"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(RunStore(tmp_path))
    assert 3 <= kept < 400
    resumed = truth(tmp_path, runs=30)
    assert resumed.data.attrs["runs_reused"] >= min(3, kept)
    assert resumed.data.drop_attrs().identical(truth(None, runs=30).data.drop_attrs())


@pytest.mark.parametrize(
    "changed",
    [
        classifier(fr.SGD(lr=0.21)),
        classifier(epochs=4),
        classifier(schedule=lambda t, total: 1.0 if t < 5 else 0.5),
        classifier(schedule=lambda t, total: 1.0 if t < 6 else 0.5),
        classifier(model=mlp(2)),
        classifier(model=nn.Sequential(*mlp(1)[:1], nn.ReLU(), *mlp(1)[2:])),
        classifier(loss=lambda m, b: class_loss(m, b) * 2),
        classifier(data=rows(30)),
    ],
    ids=["rate", "epochs", "schedule", "schedule later", "weights", "activation", "loss", "data"],
)
def test_what_a_value_depends_on_is_in_its_key(changed):
    assert signature(changed, held_out()) != signature(classifier(), held_out())


def test_queries_are_told_apart_by_what_they_say():
    recipe = classifier()
    x = torch.ones(2, 5, dtype=torch.float64)

    def ask(row: int) -> list[fr.AnyQuery]:
        return [fr.Query(lambda m: m(x * (row + 1))[0, 0], name="logit")]

    assert signature(recipe, ask(0)) == signature(recipe, ask(0))
    assert signature(recipe, ask(0)) != signature(recipe, ask(1))


def test_seeds_and_rows_are_in_the_key():
    fixed, drawn = classifier(), classifier(model=mlp)
    assert run_key("s", fixed, RunSpec(0, 5)) == run_key("s", fixed, RunSpec(1, 5))
    keys = {
        run_key("s", drawn, run)
        for run in (
            RunSpec(0, 5),
            RunSpec(1, 5),
            RunSpec(0, 6),
            *(RunSpec(0, 5, np.arange(n)) for n in (29, 30)),
        )
    }
    assert len(keys) == 5


def test_a_truncated_file_says_which_and_what_to_do(tmp_path):
    RunStore(tmp_path).add(["a"], np.array([[1.0]]))
    (path,) = tmp_path.glob("runs-*.parquet")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StorageError) as raised:
        RunStore(tmp_path)
    text = str(raised.value)
    assert text.startswith(f"expected a whole file of finished runs at {path}\n  got: ")
    assert text.endswith("next step: delete this one file: its runs are trained again, all others are kept")


def test_a_foreign_file_is_refused(tmp_path):
    pq.write_table(pa.table({"key": ["a"], "values": [[1.0]]}), tmp_path / "runs-x.parquet")
    with pytest.raises(StorageError, match="got: a Parquet file of another program or version"):
        RunStore(tmp_path)
