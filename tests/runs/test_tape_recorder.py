"""A recorder is told the steps of a loop; a tape is read. `finish` makes one of the other."""

import numpy as np
import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError
from four_parts import assert_parts
from recorded_loops import LOOPS, Loop


def begun(steps: int) -> fr.TapeRecorder:
    loop = Loop()
    rows, model = loop.data(), loop.start()
    optimizer = loop.optimizer(model)
    recorder = fi.Tape.record(model, optimizer, loss=loop.loss, data=rows)
    for ids in loop.order()[:steps]:
        loop.loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.step(ids=ids)
    return recorder


def test_a_recorder_is_no_tape_until_it_is_finished():
    recorder = begun(4)
    assert isinstance(recorder, fr.TapeRecorder) and not isinstance(recorder, fr.Tape)
    assert recorder.steps == 4 and recorder.epochs == [range(3), range(3, 4)]
    for name in ("rows", "state", "model", "losses", "checkpoints", "run"):
        with pytest.raises(ConfigError) as caught:
            getattr(recorder, name)
        assert_parts(
            caught.value, f"a finished tape, to read {name}", "the recorder of a loop", "ends a recording",
            "tape = tape.finish()",
        )  # fmt: skip
    assert not hasattr(recorder, "nonsense") and recorder.steps == 4
    tape = recorder.finish()
    assert isinstance(tape, fr.Tape) and tape.steps == 4 and recorder.finish() is tape
    assert recorder.epochs == tape.epochs == [range(3), range(3, 4)]
    assert not hasattr(tape, "step") and not hasattr(tape, "finish")


def test_a_finished_recorder_takes_no_steps():
    recorder = begun(3)
    recorder.finish()
    with pytest.raises(ConfigError) as caught:
        recorder.step(ids=[0])
    assert_parts(
        caught.value, "being recorded", "finished", "before the training went on", "after the last step"
    )


def test_estimators_finish_a_recorder_that_they_are_handed():
    recorder = begun(6)
    handed = fi.replay(recorder, fi.own_loss([1]), seed=0).data
    assert handed.equals(fi.replay(recorder.finish(), fi.own_loss([1]), seed=0).data)
    assert fi.plan(begun(6), fi.own_loss([1])).steps == 6
    assert fr.finished(tape := recorder.finish()) is tape


def test_times_drawn():
    tape = begun(4).finish()
    order = Loop().order()[:4]
    assert tape.times_drawn().tolist() == np.bincount(np.concatenate(order), minlength=12).tolist()
    assert tape.times_drawn(range(1, 2)).tolist() == np.bincount(order[3], minlength=12).tolist()
    assert tape.times_drawn(range(0)).tolist() == [0] * 12
    assert all(torch.equal(a, b) for a, b in zip(tape.order, order, strict=True))


def drawn(weights: np.ndarray, steps: int = 60) -> fr.Tape:
    loop, rng = Loop(rows=20), np.random.default_rng(0)
    rows, model = loop.data(), loop.start()
    optimizer = loop.optimizer(model)
    recorder = fi.Tape.record(model, optimizer, loss=loop.loss, data=rows)
    for _ in range(steps):
        ids = torch.from_numpy(rng.choice(20, 4, p=weights / weights.sum()))
        loop.loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.step(ids=ids)
    return recorder.finish()


def test_unequal_draws_are_recognised():
    assert drawn(np.ones(20)).equal_draws
    weighted = np.ones(20)
    weighted[:4] = 8
    assert not drawn(weighted).equal_draws
    assert LOOPS["sgd"].run(record=True)[1].finish().equal_draws
    assert fi.train(pt.recipe(sampling="independent")).equal_draws


def test_equal_draws_are_seldom_taken_for_unequal():
    """Level 10⁻⁴: among 2,000 runs of equal draws more than 4 refusals have a chance of 2·10⁻⁶."""
    from finfluence.runs.steps import equal_draws

    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(1000):
        refused += not equal_draws(np.bincount(rng.integers(30, size=300), minlength=30))
        refused += not equal_draws(np.bincount(rng.integers(200, size=200), minlength=200))
    assert refused <= 4
