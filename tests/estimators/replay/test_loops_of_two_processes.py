"""Loops of two processes, sharded by fully_shard or under DDP, are recorded as the plain loop over the rows of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import loops_in_two_processes as two
import numpy as np
import pytest

import finfluence as fi

TOLERANCE = 2e-4
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("loops")
    here = Path(two.__file__)
    path = os.pathsep.join([str(Path(fi.__file__).parent.parent), str(here.parents[2]), str(here.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(here), str(place)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:6000]
    return place


@pytest.mark.parametrize("case", two.CASES)
def test_two_processes_give_the_influence_of_the_plain_loop(folder, case):
    """To float32 tolerance; and the two give the same bits. Recording changed no number of the training."""
    single = two.arrays(fi.replay(two.alone(two.CASES[case]), two.QUERIES, horizon=3))
    for name, want in single.items():
        found = [np.load(folder / f"found-{rank}.npz")[f"{case}/{name}"] for rank in (0, 1)]
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_allclose(found[0], want, rtol=TOLERANCE, atol=TOLERANCE * np.nanmax(np.abs(want)))
        assert np.nanmax(np.abs(want)) > 0


def test_a_sharded_loop_leaves_a_tape_that_one_process_reads_with_a_plain_model(folder):
    case = two.CASES["uneven"]
    tape = fi.Tape.open(folder / "tape", model=two.made(case), loss=two.pt.class_loss, data=two.ROWS)
    found = two.arrays(fi.replay(tape, two.QUERIES, horizon=3))
    np.testing.assert_allclose(
        found["effect"], np.load(folder / "found-0.npz")["uneven/effect"], rtol=1e-3, atol=1e-6
    )
    assert tape.steps == 9 and not hasattr(tape.model().down, "reshard")


def test_dropout_is_taken_again_under_the_random_states_of_each_process(folder):
    """The self-check compares the gradients that the sharded optimiser got."""
    for rank in (0, 1):
        (note,) = np.load(folder / f"found-{rank}.npz")["notes"]
        assert note.startswith("self-check: steps 0, 1, 3 of 9 taken again")


MESSAGES = {
    "one process": (
        "ConfigError", "processes='all'", "'0.weight' sharded over 2 processes", "a part of every state", "tape.gather()",
    ),
    "flattened": (
        "NotSupportedError", "sharded one by one", "FullyShardedDataParallel at 'the model itself'", "joins parameters",
        "use fully_shard",
    ),
    "hybrid": (
        "NotSupportedError", "along their first dimension, over all processes", "(Replicate(), Shard(dim=0))",
        "mesh of shape (2, 1)", "hybrid sharding", "one mesh of all processes",
    ),
    "tensor parallel": ("NotSupportedError", "(Replicate(),) on a mesh of shape (2,)", "tensor parallelism"),
    "partly": ("NotSupportedError", "every trained parameter", "'2.weight' whole", "ignored_params", "on the whole model"),
    "evaluated": ("ConfigError", "parts in place", "'0.weight' gathered", "an evaluation", "model.reshard()"),
    "precision": (
        "NotSupportedError", "mixed precision", "param_dtype=torch.bfloat16 at 'Sequential'", "parameters' own precision",
        "torch.autocast inside the loss",
    ),
    "opened": ("ConfigError", "a plain model", "'0.weight' sharded", "whole states", "before fully_shard"),
    "other steps": ("DataError", "as many steps in every process", "2, 3 steps", "loaders of different length"),
    "other options": (
        "TrainingError", "the same options of the optimiser", "process 1 than in process 0, first at step 0",
        "a scheduler that follows a process's own loss", "the mean of all losses",
    ),
    "no step": (
        "TrainingError", "every one of 2 processes", "none of process 1", "took no step", "message of that process",
    ),
    "other states": ("DataError", "the same kept states", "process 1 than in process 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_are_the_same_in_both_processes(folder, case):
    for rank in (0, 1):
        text = json.loads((folder / f"messages-{rank}.json").read_text())[case]
        for part in MESSAGES[case]:
            assert part in text, (rank, text)


def test_a_process_that_failed_says_why_and_the_others_say_which(folder):
    texts = [json.loads((folder / f"messages-{rank}.json").read_text())["unknown row"] for rank in (0, 1)]
    for part in (
        "TrainingError",
        "every one of 2 processes",
        "none of process 1",
        "refused, with a message of its own",
    ):
        assert part in texts[0]
    for part in ("DataError", "1 unknown at step 0, first 99"):
        assert part in texts[1]
