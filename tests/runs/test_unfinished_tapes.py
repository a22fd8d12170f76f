"""Tapes that were not finished, were cut short, or belong to something else."""

import json
import time
from itertools import count

import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, StorageError
from four_parts import assert_parts
from recorded_loops import LOOPS, Checkpointed, Loop, begin, descend, whole


def stopped(tmp_path, monkeypatch, steps=9):
    monkeypatch.setattr(time, "monotonic", count(step=60).__next__)  # a minute passes at every look
    loop = Loop(whole(torch.optim.AdamW, lr=0.02))
    rows, model = loop.data(), loop.start()
    optimizer = loop.optimizer(model)
    tape = fi.Tape.record(model, optimizer, loop.loss, rows, out=tmp_path)
    for ids in loop.order()[:steps]:
        descend(model, optimizer, ids, rows)
        tape.step(ids=ids)
    return loop, tape, pt.flat(model)


def test_an_unfinished_tape_is_read_up_to_its_last_whole_step(tmp_path, monkeypatch):
    loop, tape, reached = stopped(tmp_path, monkeypatch)
    given = {"model": loop.start(), "loss": loop.loss, "data": loop.data()}
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, **given)
    assert_parts(
        caught.value, f"a whole tape in {tmp_path}", "9 whole steps", "before tape.finish()", "partial=True"
    )
    opened = fr.Tape.open(tmp_path, **given, partial=True)
    assert opened.steps == 9 and torch.equal(opened.state()[: opened.layout.size], reached)
    assert (
        "up to step 9, and was not checked" in fi.replay(opened, fi.own_loss([0])).data.attrs["findings"][0]
    )
    tape.finish()
    assert fr.Tape.open(tmp_path, **given).notes[0].startswith("self-check")


@pytest.mark.parametrize(("name", "left"), [("steps-0000000005", 5), ("kept-0000000005", 9)])
def test_a_truncated_file_costs_what_is_in_it(tmp_path, monkeypatch, name, left):
    loop, tape, _ = stopped(tmp_path, monkeypatch)
    states = [tape.finish().state(t).clone() for t in range(10)]
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    given = {"model": loop.start(), "loss": loop.loss, "data": loop.data()}
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, **given)
    assert_parts(
        caught.value,
        f"a whole tape in {tmp_path}",
        f"cannot be read: {path.name}",
        "cut short",
        "partial=True",
    )
    opened = fr.Tape.open(tmp_path, **given, partial=True)
    assert opened.steps == left
    assert all(torch.equal(opened.state(t), states[t]) for t in range(left + 1))


def test_a_tape_of_something_else(tmp_path):
    loop = LOOPS["tied"]
    loop.run(record=True, out=tmp_path)[1].finish()
    given = {"model": loop.start(), "loss": loop.loss, "data": loop.data()}
    other = loop.start()
    with torch.no_grad():
        other.frozen.weight.add_(1)
    for change, word in (
        ({"model": other}, "model"), ({"data": pt.table(11)}, "data"), ({"data": pt.table(seed=9)}, "data"),
        ({"model": pt.made(lambda: Checkpointed())}, "model"),
    ):  # fmt: skip
        with pytest.raises(StorageError) as caught:
            fr.Tape.open(tmp_path, **{**given, **change})
        assert_parts(caught.value, f"the {word} that the tape in {tmp_path}", "", "", f"pass the same {word}")
    with pytest.raises(ConfigError) as caught:
        fr.Tape.open(tmp_path, model=loop.start())
    assert_parts(
        caught.value, "a recipe, or model=, loss= and data=", "not all", "neither code nor rows", "was given"
    )
    with pytest.raises(StorageError, match="another program or version"):
        fr.Tape.open(tmp_path, pt.recipe())
    with pytest.raises(StorageError) as caught:
        begin(out=tmp_path)
    assert_parts(caught.value, "an empty or new folder", "another run", "used before", "fi.Tape.open")
    head = json.loads((tmp_path / "tape.json").read_text())
    (tmp_path / "tape.json").write_text(json.dumps({**head, "version": 99}))
    with pytest.raises(StorageError) as caught:
        fr.Tape.open(tmp_path, **given)
    assert_parts(
        caught.value,
        f"a recorded loop in {tmp_path}",
        "another program",
        "made by fi.train",
        "with its recipe",
    )


def test_a_recorded_loop_has_no_recipe():
    tape = Loop().run(record=True)[1].finish()
    with pytest.raises(ConfigError) as caught:
        _ = tape.recipe
    assert_parts(caught.value, "a tape of fi.train", "a recorded loop", "training again", "fi.Recipe")
