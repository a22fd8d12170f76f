"""What is set around a call, such as torch.no_grad or autocast, changes no number of it."""

import numpy as np
import pytest
import torch

import finfluence as fi
import plain_training as pt
from recorded_loops import Loop

AROUND = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
QUERY = fi.own_loss([2, 7])
LOOP = Loop(dtype=torch.float32, epochs=1)


def single():
    model = pt.made(pt.mlp, dtype=torch.float32)
    return pt.recipe(data=pt.table(dtype=torch.float32), model=model, epochs=1)


def replayed(tape):
    return fi.replay(tape, QUERY, horizon=1, late=0.0, spread=False).data.score.values


@pytest.fixture(scope="module")
def trained():
    tape = fi.train(single())
    return tape.state(), replayed(tape)


@pytest.fixture(scope="module")
def recorded():
    return replayed(LOOP.run(record=True)[1].finish())


@pytest.mark.parametrize("around", AROUND)
def test_training_and_replay(around, trained):
    with AROUND[around]():
        tape = fi.train(single())
        got = replayed(tape)
    assert torch.equal(tape.state(), trained[0])
    np.testing.assert_allclose(got, trained[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("around", AROUND)
def test_the_end_of_a_recording(around, recorded):
    recorder = LOOP.run(record=True)[1]
    with AROUND[around]():
        tape = recorder.finish()
    np.testing.assert_allclose(replayed(tape), recorded, rtol=1e-4, atol=1e-7)


def test_retraining():
    described = pt.recipe(epochs=1)
    want = fi.retrain(described, QUERY, {"a": [1, 2]}, runs=4).data.effect.values
    with torch.no_grad():
        got = fi.retrain(described, QUERY, {"a": [1, 2]}, runs=4).data.effect.values
    np.testing.assert_array_equal(got, want)
