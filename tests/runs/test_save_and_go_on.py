"""A recording that goes on where the loop had saved its own checkpoint: the tape of the loop that never stopped."""

import copy
import json
import time

import pytest
import torch

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, StorageError, TrainingError
from finfluence.runs import seeded
from four_parts import assert_parts
from recorded_loops import Loop, dropping, grouped, whole

LOOPS = {
    "adam": Loop(whole(torch.optim.AdamW, lr=0.02), micro=(0.5, 0.5), epochs=6),
    "dropout and groups": Loop(
        grouped(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.05, "momentum": 0.5}),
        dropping,
        epochs=6,
    ),
}
SAVED = (4, 9, 14)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # nothing is written because time has passed


class Run:
    """A loop that keeps checkpoints, and can begin at one."""

    def __init__(self, loop: Loop, folder, **options) -> None:
        self.loop, self.folder, self.options, self.checkpoints = loop, folder, options, {}

    def begin(self, at: int | None = None):
        self.model = self.loop.start().train()
        self.optimizer = self.loop.optimizer(self.model)
        if at is not None:
            weights, state, self.random = copy.deepcopy(self.checkpoints[at])
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(state)
        else:
            with seeded(3):
                self.random = torch.get_rng_state()
        self.rows = self.loop.data()
        return fi.Tape.record(
            self.model, self.optimizer, self.loop.loss, self.rows, self.folder, resume_at=at, **self.options
        )

    def go(self, tape, first: int = 0, last: int = 10**9):
        with seeded(0):
            torch.set_rng_state(self.random)
            for t, ids in list(enumerate(self.loop.order()))[first:last]:
                parts = list(ids.chunk(len(self.loop.micro) or 1))
                for part in parts:
                    (self.loop.loss(self.model, self.rows.batch(part)).mean() / len(parts)).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                tape.step(parts)
                if t + 1 in SAVED:
                    tape.save()
                    kept = self.model.state_dict(), self.optimizer.state_dict(), torch.get_rng_state()
                    self.checkpoints[t + 1] = copy.deepcopy(kept)
        return tape


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("options", [{}, {"snapshot_bytes": 6 * 8 * 200}], ids=["all", "thinned"])
@pytest.mark.parametrize(("broken", "at"), [(12, 9), (9, 9), (18, 4)])
@pytest.mark.quick(5)
def test_the_tape_is_that_of_the_loop_that_never_stopped(name, options, broken, at, tmp_path):
    never = Run(LOOPS[name], tmp_path / "whole", **options)
    whole_tape = never.go(never.begin()).finish()
    stopped = Run(LOOPS[name], tmp_path / "parts", **options)
    stopped.go(stopped.begin(), last=broken)
    tape = stopped.go(stopped.begin(at), first=at).finish()
    assert tape.steps == whole_tape.steps == 18 and tape.notes == whole_tape.notes
    assert pt.flat(stopped.model).equal(pt.flat(never.model))
    assert all(torch.equal(tape.state(t), whole_tape.state(t)) for t in range(19))
    assert tape.checkpoints.steps == whole_tape.checkpoints.steps
    if (
        not options
    ):  # what was thinned is spread over other files where it was thinned before the loop broke off
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_finished_training_is_taken_further(tmp_path):
    loop = LOOPS["adam"]
    longer = Run(loop, tmp_path / "whole")
    longer.go(longer.begin()).finish()
    run = Run(loop, tmp_path / "parts")
    run.go(run.begin(), last=9).finish()
    run.go(run.begin(9), first=9).finish()
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    opened = fi.Tape.open(tmp_path / "parts", model=loop.start(), loss=loop.loss, data=loop.data())
    assert opened.steps == 18


def test_a_folder_is_needed():
    run = Run(LOOPS["adam"], None)
    tape = run.begin()
    with pytest.raises(ConfigError) as caught:
        tape.save()
    assert_parts(caught.value, "a recording with out=", "no folder", "in memory", 'out="folder"')
    run.checkpoints[4] = run.model.state_dict(), run.optimizer.state_dict(), run.random
    with pytest.raises(ConfigError) as caught:
        run.begin(4)
    assert_parts(
        caught.value, "a folder, to go on", "resume_at=4 without out=", "in memory", "out=…, resume_at=…"
    )


def test_where_it_cannot_be_saved(tmp_path):
    run = Run(LOOPS["adam"], tmp_path)
    tape = run.begin()
    with pytest.raises(ConfigError) as caught:
        tape.save()
    assert_parts(
        caught.value, "a step of it, before tape.save()", "no step", "before the first", "saves a checkpoint"
    )
    run.go(tape, last=3)
    run.loop.loss(run.model, run.rows.batch(torch.arange(4))).mean().backward()
    run.optimizer.step()
    with pytest.raises(TrainingError, match="rows were not named"):
        tape.save()


def test_where_it_cannot_go_on(tmp_path):
    run = Run(LOOPS["adam"], tmp_path / "tape")
    run.go(run.begin(), last=12)
    before = contents(tmp_path / "tape")
    run.checkpoints[5] = run.checkpoints[4]
    with pytest.raises(StorageError) as caught:
        run.begin(5)
    assert_parts(
        caught.value, "saved at step 5", "saved at 4, 9", "without the tape", "a checkpoint that was saved"
    )
    run.checkpoints[4], kept = run.checkpoints[9], run.checkpoints[4]
    with pytest.raises(StorageError) as caught:
        run.begin(4)
    assert_parts(caught.value, "as they were when", "others", "of another training", "the optimiser's state")
    run.checkpoints[4] = kept
    other = Run(Loop(whole(torch.optim.AdamW, lr=0.02), rows=11, micro=(0.5, 0.5)), tmp_path / "tape")
    other.checkpoints = run.checkpoints
    with pytest.raises(StorageError) as caught:
        other.begin(4)
    assert_parts(caught.value, "the loop that the tape in", "another data", "changed since", "another folder")
    assert contents(tmp_path / "tape") == before, "a refusal leaves the folder as it was"
    (tmp_path / "tape" / "kept-0000000000.safetensors").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        run.begin(9)
    assert_parts(caught.value, "at step 9", "cannot be read: kept-0000000000", "", "record a new training")
    empty = Run(LOOPS["adam"], tmp_path / "empty")
    empty.checkpoints = run.checkpoints
    with pytest.raises(StorageError, match="no such file"):
        empty.begin(9)


def test_marks_are_those_of_this_training(tmp_path):
    run = Run(LOOPS["adam"], tmp_path)
    run.go(run.begin(), last=12)
    run.begin(4)
    assert [m["step"] for m in json.loads((tmp_path / "marks.json").read_text())] == [4]
