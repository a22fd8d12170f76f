"""Two processes give the influence of one: replays by rows and by queries, and loops recorded under DDP."""

import json
import os
import subprocess
import sys
from pathlib import Path

import in_two_processes as two
import numpy as np
import pytest
import torch

import finfluence as fi
from finfluence.distributed import Processes
from finfluence.errors import ConfigError
from finfluence.estimators.derivatives import by_rows, shares

TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("two")
    here = Path(two.__file__)
    path = os.pathsep.join([str(here.parents[2]), str(here.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(here), str(place)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.fixture(scope="module")
def single() -> dict[str, fi.Influence]:
    tape, rows = fi.train(two.recipe()), {}
    for name, query in two.FIRST.items():
        for method in ("online", "full")[: 2 if name == "one" else 1]:
            rows[f"{name} {method}"] = fi.replay(tape, query, method=method, horizon=3)
    rows["finite-difference"] = fi.replay(
        tape, two.FIRST["one"], differentiation="finite-difference", horizon=3
    )
    dropping = fi.train(two.recipe(model=two.dropout(), drop_last=True))
    rows["dropout"] = fi.replay(dropping, two.FIRST["one"], horizon=3)
    rows["streamed"], rows["with progress"] = rows["three online"], rows["one online"]
    model = two.pt.made(two.pt.mlp, dtype=torch.float32)
    rows["recorded"] = fi.replay(
        two.loop(model, model, slice(None), "one").finish(), two.FIRST["three"], horizon=4
    )
    return rows


CASES = (
    "one online", "one full", "three online", "finite-difference", "dropout", "streamed", "with progress",
    "recorded",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_numbers_of_one(folder, single, case):
    """To float32 tolerance; and the two give the same bits."""
    for name in ("effect", "effect_se", "spread", "mu"):
        want = single[case].data[name].values
        found = [np.load(folder / f"found-{rank}.npz")[f"{case}/{name}"] for rank in (0, 1)]
        np.testing.assert_array_equal(found[0], found[1])
        loose = 50 if case == "finite-difference" else 1
        np.testing.assert_allclose(
            found[0], want, rtol=loose * TOLERANCE, atol=loose * TOLERANCE * np.nanmax(np.abs(want))
        )
        assert np.nanmax(np.abs(want)) > 0


@pytest.mark.slow
def test_the_streamed_result_and_the_tape_of_process_0_are_whole(folder, single):
    np.testing.assert_allclose(
        fi.load(folder / "streamed.zarr").data.effect, single["streamed"].data.effect, rtol=1e-3, atol=1e-6
    )
    model = two.pt.made(two.pt.mlp, dtype=torch.float32)
    tape = fi.Tape.open(folder / "tape", model=model, loss=two.pt.class_loss, data=two.ROWS)
    found = fi.replay(tape, two.FIRST["three"], horizon=4).data.effect
    want = np.load(folder / "found-0.npz")["recorded/effect"]
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-6)
    assert tape.steps == 12 and tape.batch_size == 8


@pytest.mark.slow
@pytest.mark.parametrize(("case", "parts"), [
    ("early", ("tape.gather() after the last step", "rows of this process only", "processes='all'", "call tape.gather()")),
    ("disagree", ("the same tape, queries and options", "process 1 than in process 0", "other data, seeds", "same files")),
    ("uneven", ("as many steps in every process", "2, 3 steps", "loaders of different length", "DistributedSampler")),
])  # fmt: skip
def test_messages_of_processes(folder, case, parts):
    for rank in (0, 1):
        text = json.loads((folder / f"messages-{rank}.json").read_text())[case]
        for part in parts:
            assert part in text, (rank, text)


@pytest.mark.parametrize(("word", "parts"), [
    ("all", ("a process group", "none", "init_process_group was not called", "leave processes out")),
    ("two", ("'one' or 'all'", "'two'", "torchrun sets", "leave it out")),
])  # fmt: skip
def test_without_a_group_there_is_one_process(word, parts):
    with pytest.raises(ConfigError) as caught:
        fi.replay(fi.train(two.recipe(epochs=1)), two.FIRST["one"], processes=word)
    for part in parts:
        assert part in str(caught.value)


def test_rows_are_shared_only_where_they_do_not_depend_on_each_other():
    both, plain, dropping = Processes(0, 2), fi.train(two.recipe(epochs=1)), None
    assert by_rows(plain, 1, both) and not by_rows(plain, 2, both)
    dropping = fi.train(two.recipe(model=two.dropout(), epochs=1))
    assert not by_rows(dropping, 1, both)
    assert sum(map(len, shares(3, 5))) == 3
