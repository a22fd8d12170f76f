"""A tape recomputes any state bit for bit, from memory or a folder, whole or resumed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import count

import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import NotSupportedError, StorageError
from four_parts import assert_parts


class Gated(nn.Module):
    """The unused layer lies between used ones, so that optimiser slots have a gap."""

    def __init__(self):
        super().__init__()
        self.body, self.unused, self.head = nn.Linear(4, 5), nn.Linear(2, 7), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def states(tape: fr.Tape) -> list[torch.Tensor]:
    segments = []
    for t in range(0, tape.steps, tape.interval):
        first, stop, start = tape.checkpoint_before(t)
        segments.append(tape.states_from(first, start, stop).clone())
    return [*torch.cat(segments).unbind(), tape.state()]


@pytest.mark.parametrize("model", [pt.mlp, Gated])
@pytest.mark.parametrize("name", ["sgd", "dampening", "nesterov", "adam-l2", "adamw"])
def test_recomputed_states_equal_kept_ones(name, model):
    described = pt.recipe(model=pt.made(model), optimizer=pt.OPTIMIZERS[name][0], epochs=4, schedule="cosine")
    whole = fi.train(described, seed=1)
    assert whole.interval == 1
    width = whole.stepper.width * 8
    for keep in (5, 2):
        sparse = fi.train(described, seed=1, snapshot_bytes=keep * width)
        assert sparse.interval == -(-12 // keep)
        assert all(torch.equal(a, b) for a, b in zip(states(whole), states(sparse), strict=True))
    assert len(set(map(lambda s: s.numpy().tobytes(), states(whole)))) == 13


def test_any_single_state_can_be_asked_for():
    tape = fi.train(pt.recipe(optimizer=fr.Adam(lr=0.1)), snapshot_bytes=1)
    assert tape.interval == 9
    for t, expected in enumerate(states(tape)):
        assert torch.equal(tape.state(t), expected)
    assert torch.equal(pt.flat(tape.model(4)), tape.state(4)[: tape.stepper.layout.size])


def test_state_holds_parameters_and_slots_in_order():
    described = pt.recipe(model=pt.made(Gated), optimizer=fr.SGD(lr=0.1, momentum=0.9))
    tape = fi.train(described)
    size = tape.stepper.layout.size
    optimizer = torch.optim.SGD((model := pt.made(Gated)).parameters(), lr=0.1, momentum=0.9)
    pt.plain(described, model, described.order(0), optimizer)
    assert torch.equal(tape.state()[:size], pt.flat(model))
    buffers = [
        optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)).reshape(-1) for p in model.parameters()
    ]
    assert torch.equal(tape.state()[size:], torch.cat(buffers))
    assert torch.equal(tape.state(0)[size:], torch.zeros(size, dtype=pt.DOUBLE))


def test_dropout_is_recomputed_bit_for_bit():
    def dropping():
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 3))

    described = pt.recipe(model=pt.made(dropping), optimizer=fr.Adam(lr=0.02))
    whole, sparse = fi.train(described), fi.train(described, snapshot_bytes=1)
    assert whole.stepper.stochastic and sparse.interval == 9
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(sparse), strict=True))
    other = fi.train(described, init_seed=0, order_seed=1)
    assert not torch.equal(other.state(), whole.state())


def test_folder_and_memory_hold_the_same(tmp_path):
    described = pt.recipe(optimizer=fr.AdamW(lr=0.02))
    memory, folder = fi.train(described, seed=2), fi.train(described, seed=2, out=tmp_path / "run")
    opened = fr.Tape.open(tmp_path / "run", described)
    for tape in (folder, opened):
        assert all(torch.equal(a, b) for a, b in zip(states(memory), states(tape), strict=True))
        assert tape.losses.tolist() == memory.losses.tolist()
    assert sorted(p.suffix for p in (tmp_path / "run").iterdir()) == [".json", ".safetensors"]


def test_same_seed_same_bytes(tmp_path):
    described = pt.recipe()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        fi.train(described, seed=seed, out=tmp_path / name)
    read = {n: {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "abc"}
    assert read["a"] == read["b"]
    assert read["a"]["states-00000000.safetensors"] != read["c"]["states-00000000.safetensors"]


@pytest.mark.parametrize("budget", [2**30, 1500])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_training_goes_on_to_the_same_numbers(tmp_path, monkeypatch, stop, budget):
    monkeypatch.setattr(time, "monotonic", count(step=60).__next__)  # a minute passes at every look
    described = pt.recipe(optimizer=fr.AdamW(lr=0.02), epochs=5)
    whole = fi.train(described, seed=2, snapshot_bytes=budget)
    calls = []

    def interrupt(stage, done, total):
        calls.append((stage, done, total))
        if len(calls) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fi.train(described, seed=2, out=tmp_path, snapshot_bytes=budget, progress=interrupt)
    assert calls[0] == ("train", 3, 15)
    with pytest.raises(StorageError, match="finished tape"):
        fr.Tape.open(tmp_path, described)
    calls.clear()
    seen = []
    resumed = fi.train(described, seed=2, out=tmp_path, resume=True, progress=lambda *a: seen.append(a))
    assert seen[0][1] >= (3 * stop if whole.interval == 1 else 3) and seen[-1] == ("train", 15, 15)
    assert resumed.interval == whole.interval
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(resumed), strict=True))
    assert resumed.losses.tolist() == whole.losses.tolist()
    untouched = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert fi.train(described, seed=2, out=tmp_path, resume=True).steps == 15
    assert untouched == {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}


def test_a_lost_chunk_is_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", count(step=60).__next__)  # a minute passes at every look
    described = pt.recipe(epochs=4)
    whole = fi.train(described, out=tmp_path)
    expected, losses = states(whole), whole.losses.tolist()
    (tmp_path / "states-00000004.safetensors").unlink()
    with pytest.raises(StorageError, match="ends after 3 of 12 steps"):
        fr.Tape.open(tmp_path, described)
    again = fi.train(described, out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(states(again), expected, strict=True))
    assert again.losses.tolist() == losses


KILLED = """
    import itertools, sys, time
    sys.path[:0] = {path!r}
    import plain_training as pt, finfluence as fi, finfluence.runs as fr
    time.monotonic = itertools.count(step=60).__next__
    def slowly(stage, done, total):
        print(done, flush=True)
        time.sleep(0.05)
    fi.train(pt.recipe(optimizer=fr.AdamW(lr=0.02), epochs=40), seed=2, out={out!r}, progress=slowly)
"""


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_numbers(tmp_path):
    code = textwrap.dedent(KILLED).format(path=[os.path.dirname(pt.__file__)], out=str(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(9):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()
    described = pt.recipe(optimizer=fr.AdamW(lr=0.02), epochs=40)
    resumed = fi.train(described, seed=2, out=tmp_path / "run", resume=True)
    whole = fi.train(described, seed=2)
    assert torch.equal(resumed.state(), whole.state())
    assert resumed.losses.tolist() == whole.losses.tolist()
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(resumed), strict=True))


def test_a_full_disk_leaves_the_tape_as_it_was(tmp_path, monkeypatch):
    described = pt.recipe()
    monkeypatch.setattr(os, "replace", _no_space)
    with pytest.raises(StorageError) as caught:
        fi.train(described, out=tmp_path)
    assert_parts(
        caught.value, f"to write {tmp_path}/states-00000000.safetensors", "No space left on device",
        "the disk is full", "with --resume (resume=True) where it is taken",
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["tape.json"]
    monkeypatch.undo()
    assert torch.equal(fi.train(described, out=tmp_path, resume=True).state(), fi.train(described).state())


def _no_space(part, target, replace=os.replace):
    if target.name.startswith("states-"):
        raise OSError(28, "No space left on device")
    replace(part, target)


def test_folder_of_another_run(tmp_path):
    described = pt.recipe()
    fi.train(described, out=tmp_path)
    with pytest.raises(StorageError) as caught:
        fi.train(described, out=tmp_path)
    assert_parts(
        caught.value, f"an empty or new folder at {tmp_path}", "the tape of another run", "used before",
        "resume=True",
    )  # fmt: skip
    with pytest.raises(StorageError) as caught:
        fi.train(described, seed=1, out=tmp_path, resume=True)
    assert_parts(
        caught.value,
        "seeds init=1, order=1",
        "init=0, order=0",
        "a run of another seed",
        "the seed of that run",
    )
    for changed, word in (
        (pt.recipe(optimizer=fr.SGD(lr=0.2)), "optimizer"), (pt.recipe(data=pt.table(seed=4)), "data"),
        (pt.recipe(model=pt.made(pt.mlp, seed=1)), "initial_weights"), (pt.recipe(epochs=4), "epochs"),
        (pt.recipe(schedule="cosine"), "schedule"), (pt.recipe(sampling="independent"), "sampling"),
        (pt.recipe(batch_size=3), "batch_size"),
    ):  # fmt: skip
        with pytest.raises(StorageError) as caught:
            fi.train(changed, out=tmp_path, resume=True)
        assert_parts(
            caught.value, f"the recipe that made the tape in {tmp_path}", f"{word}: ", "changed since",
            "train into a new folder",
        )  # fmt: skip


def test_no_tape_and_foreign_tape(tmp_path):
    described = pt.recipe()
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, described)
    assert_parts(
        caught.value,
        f"a tape in {tmp_path} (a file tape.json)",
        "no such file",
        "mistyped",
        "fi.train(recipe, out=…)",
    )
    for text in ("{", "[]", '{"format": "other"}', json.dumps({"format": "finfluence-tape", "version": 99})):
        (tmp_path / "tape.json").write_text(text)
        with pytest.raises(StorageError, match="another program or version"):
            fr.Tape.open(tmp_path, described)


def test_damaged_states(tmp_path):
    described = pt.recipe()
    fi.train(described, out=tmp_path)
    path = tmp_path / "states-00000000.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, described)
    assert_parts(
        caught.value, f"a whole safetensors file at {path}", "", "cut short, moved", "restore the file"
    )


def test_states_of_another_width(tmp_path):
    from safetensors.torch import save_file

    described = pt.recipe()
    fi.train(described, out=tmp_path)
    save_file(
        {"states": torch.zeros(2, 3), "losses": torch.zeros(1)}, tmp_path / "states-00000000.safetensors"
    )
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, described)
    assert_parts(
        caught.value,
        "numbers in states-00000000.safetensors",
        "3",
        "another model or optimiser",
        "choose another folder",
    )


def test_unfinished_tape_words(tmp_path):
    described = pt.recipe()
    fi.train(described, out=tmp_path)
    (tmp_path / "states-00000000.safetensors").unlink()
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, described)
    assert_parts(
        caught.value,
        f"a finished tape in {tmp_path}",
        "ends after 0 of 9 steps",
        "interrupted",
        "resume=True",
    )


def test_layers_skipped_at_some_steps_are_refused():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            out = self.always(x)
            return out + self.sometimes(x) if x[0, 0] > 0 else out

    with pytest.raises(NotSupportedError) as caught:
        fi.train(pt.recipe(model=pt.made(Skipping), optimizer=fr.Adam(lr=0.1), epochs=5))
    assert_parts(
        caught.value,
        "the same parameters at every step",
        "'sometimes.weight'",
        "skips layers",
        "multiplied by zero",
    )


def test_time_of_keeping_states_is_recorded_nowhere(tmp_path):
    """Nothing in the folder depends on the clock: equal runs at different times are equal files."""
    fi.train(pt.recipe(), out=tmp_path / "a")
    time.sleep(0.01)
    fi.train(pt.recipe(), out=tmp_path / "b")
    assert (tmp_path / "a" / "tape.json").read_text() == (tmp_path / "b" / "tape.json").read_text()
