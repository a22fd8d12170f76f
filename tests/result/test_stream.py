"""Results written while they are computed: the same numbers, the same file, little memory."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, StorageError
from finfluence.result import ESTIMATES, Provenance, Stream

QUERIES = [fi.own_loss([1, 4, 7])]
LABELS = {"subsets": ["a", "b", "c"], "queries": ["p", "q"], "units": ["nats"] * 2, "signs": [-1, -1]}
MADE = Provenance(method="example", runs=1, covers=(), n_rows=3)

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import finfluence as fi, plain_training as pt
from finfluence.estimators.replay import SavedProgress
SavedProgress.seconds = 0.0
calls = []
def stop(*a):
    calls.append(a)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
tape, queries = fi.train(pt.recipe()), fi.own_loss([1, 4, 7])
fi.replay(tape, queries, memory_bytes=pt.least_memory(tape, queries), out=sys.argv[1], progress=stop)
"""


def columns(value: float) -> dict[str, np.ndarray]:
    return {name: np.full((3, 1), value) for name in ESTIMATES}


@pytest.mark.parametrize("memory_bytes", [2**30, 1])
@pytest.mark.quick(1)
def test_a_result_written_on_the_way_is_the_one_in_memory(tmp_path, memory_bytes):
    tape = fi.train(pt.recipe())
    memory_bytes = pt.least_memory(tape, QUERIES) if memory_bytes == 1 else memory_bytes
    held = fi.replay(tape, QUERIES, memory_bytes=memory_bytes, subsets={"a": [1], "b": [2, 3]})
    there = fi.replay(
        tape, QUERIES, memory_bytes=memory_bytes, subsets={"a": [1], "b": [2, 3]}, save_to=tmp_path / "r.zarr"
    )
    for found in (there, fi.load(tmp_path / "r.zarr")):
        assert _same(found, held)
    held.save(tmp_path / "saved.zarr")
    heads = [json.loads((tmp_path / n / "zarr.json").read_text()) for n in ("r.zarr", "saved.zarr")]
    assert heads[0]["attributes"] == heads[1]["attributes"]  # content hash and all
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def _same(found: fi.Influence, held: fi.Influence) -> bool:
    assert found.data.attrs == held.data.attrs
    assert set(found.data.variables) == set(held.data.variables)
    for name in held.data.variables:
        np.testing.assert_array_equal(found.data[name].values, held.data[name].values)
    return True


def test_a_lazy_result_reads_what_is_used_and_works_like_any_other(tmp_path):
    influence = fi.replay(fi.train(pt.recipe()), QUERIES, save_to=tmp_path / "r.zarr")
    lazy = fi.load(tmp_path / "r.zarr", lazy=True)
    assert not isinstance(lazy.data["mu"].variable._data, np.ndarray)
    np.testing.assert_array_equal(lazy.top(3).mu, influence.top(3).mu)
    lazy.save(tmp_path / "again.zarr")
    assert _same(fi.load(tmp_path / "again.zarr"), fi.load(tmp_path / "r.zarr"))


def test_columns_come_in_any_order_and_unsigned_nan_counts_as_nan(tmp_path):
    with Stream(tmp_path / "r", **LABELS) as stream:
        stream.write(range(1, 2), columns(2.0))
        stream.write(range(1), columns(-float("nan")))
        found = stream.finish(MADE)
    assert (
        found.data.mu.values[:, 1].tolist() == [2.0, 2.0, 2.0] and np.isnan(found.data.mu.values[:, 0]).all()
    )
    assert fi.load(tmp_path / "r").data.attrs["level"] == 0.95


def test_a_stream_that_is_broken_off_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError) as caught, Stream(tmp_path / "r", **LABELS) as stream:
        stream.write(range(1), columns(1.0))
        stream.finish(MADE)
    for part in ("columns of all queries", "none of 'q'", "broken off", "then finish"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_replaces_no_foreign_folder_and_finds_lost_chunks(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("keep")
    with pytest.raises(StorageError, match="another program"):
        Stream(tmp_path / "r", **LABELS)
    with Stream(tmp_path / "s", **LABELS) as stream:
        stream.write(range(2), {name: np.full((3, 2), 1.5) for name in ESTIMATES})
        stream.finish(MADE)
    next((tmp_path / "s" / "mu").rglob("c/*/*")).unlink()
    for lazy in (False, True):
        with pytest.raises(StorageError, match="other numbers than were saved"):
            fi.load(tmp_path / "s", lazy=lazy)


@pytest.mark.slow
def test_a_replay_killed_half_way_goes_on_to_the_same_bits(tmp_path):
    tests = str(Path(pt.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), tests], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.glob("replay-*.safetensors"))
    tape, seen = fi.train(pt.recipe()), []
    least = pt.least_memory(tape, fi.own_loss([1, 4, 7]))
    resumed = fi.replay(
        tape, fi.own_loss([1, 4, 7]), memory_bytes=least, out=tmp_path, progress=lambda *a: seen.append(a)
    )
    whole = fi.replay(tape, fi.own_loss([1, 4, 7]), memory_bytes=least)
    assert _same(resumed, whole)
    assert 0 < sum(stage == "replay" for stage, *_ in seen) < 3 * 3 + 1  # not all epochs again


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def of_another_version(path: Path) -> None:
    save_file({"lam": load_file(path)["lam"]}, path)


@pytest.mark.parametrize("damage", [cut, of_another_version])
def test_progress_that_cannot_be_read_is_made_again_and_said_so(tmp_path, damage):
    tape = fi.train(pt.recipe())
    whole = fi.replay(tape, QUERIES, out=tmp_path)
    (path,) = tmp_path.glob("replay-*.safetensors")
    damage(path)
    again = fi.replay(tape, QUERIES, out=tmp_path)
    np.testing.assert_array_equal(again.data.effect.values, whole.data.effect.values)
    assert any("saved progress could not be read" in f for f in again.data.attrs["findings"])
