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
