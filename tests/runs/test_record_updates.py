"""The functional update of a recorded loop is the step of its torch optimiser, at every step and in every buffer."""

import pytest
import torch

from finfluence.runs import seeded
from recorded_loops import LOOPS, precise_newton_schulz


@pytest.mark.parametrize("name", LOOPS)
def test_functional_update_is_the_optimizers_step(name, monkeypatch):
    """Relative 1e-10 in float64; torch's Newton–Schulz, otherwise in bfloat16, runs in float64 here too."""
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", precise_newton_schulz)
    _, tape = LOOPS[name].run(record=True)
    tape = tape.finish()
    run, size = tape.run, tape.layout.size
    for t in range(tape.steps):
        state, after = tape.state(t), tape.state(t + 1)
        run.set_state(t, state)
        with seeded(0):
            run.backward(t)
        theta, *slots = state.view(-1, size).unbind()
        new, held = tape.optimizer.update(theta, tuple(slots), run.gradient(), tape.at(t).hyper.unbind())
        got = torch.stack([new, *held])
        want = after.view(-1, size)
        if name == "groups of sgd":  # without momentum torch keeps no buffer
            got, want = got[:1], want[:1]
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LOOPS)
def test_a_part_of_the_update_is_that_of_its_coordinates(name):
    """Of several vectors at once; there is none where a norm or a matrix is in the update."""
    _, tape = LOOPS[name].run(record=True)
    tape = tape.finish()
    some = slice(3, tape.layout.size - 2)
    part = tape.optimizer.part(some)
    assert (part is None) == ("clip_norm" in LOOPS[name].options or "muon" in name)
    if part is None:
        return
    theta, *slots = tape.state(1).view(-1, tape.layout.size).unbind()
    numbers, gradient = tape.at(1).hyper.unbind(), torch.linspace(-1, 1, len(theta), dtype=theta.dtype)
    new, held = tape.optimizer.update(theta, tuple(slots), gradient, numbers)
    twice = [x[some].expand(2, -1) for x in (theta, gradient, *slots)]
    got, kept = part.update(twice[0], tuple(twice[2:]), twice[1], numbers)
    for mine, theirs in zip((got, *kept), (new, *held), strict=True):
        assert torch.equal(mine, theirs[some].expand(2, -1))
