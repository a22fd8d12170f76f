"""Closed forms of an update's derivative, and gradients read from what a step left, at every kind of loop."""

import pytest
import torch
from torch.func import vjp

from finfluence.runs import seeded
from recorded_loops import LOOPS, precise_newton_schulz


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.quick(9)
def test_written_out_pull_back_is_the_derivative_of_the_update(name, monkeypatch):
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", precise_newton_schulz)
    tape = LOOPS[name].run(record=True)[1].finish()
    run, size = tape.run, tape.layout.size
    for t in range(0, tape.steps, max(1, tape.steps // 3)):
        state, after, hyper = tape.state(t), tape.state(t + 1), tape.at(t).hyper.unbind()
        run.set_state(t, state)
        with seeded(0):
            run.backward(t)
        gradient = run.gradient()
        theta, *slots = state.view(-1, size).unbind()
        read = tape.optimizer.gradient(theta, tuple(slots), tuple(after.view(-1, size)[1:]), hyper)
        if read is not None:
            torch.testing.assert_close(read, gradient, rtol=1e-9, atol=1e-12)
        pull = tape.optimizer.pull_back(theta, tuple(slots), gradient, hyper)
        if pull is None:
            continue

        def update(theta, slots, g, hyper=hyper, tape=tape):
            new, held = tape.optimizer.update(theta, slots, g, hyper)
            return torch.stack([new, *held])

        made, back = vjp(update, theta, tuple(slots), gradient)
        generator = torch.Generator().manual_seed(t)
        lam = torch.randn(2, *made.shape, dtype=theta.dtype, generator=generator)
        before, direction = pull(lam)
        for k in range(2):
            to_theta, to_slots, to_gradient = back(lam[k])
            torch.testing.assert_close(before[k], torch.stack([to_theta, *to_slots]), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(direction[k], to_gradient, rtol=1e-9, atol=1e-12)


MOVES_ALIKE = {
    "adamw",
    "amsgrad",
    "groups",
    "cosine",
    "uneven accumulation",
    "dropout",
    "tied",
}  # wherever θ is: Adam without decay in the gradient
NOT_WRITTEN = {"amsgrad", "clip norm", "clip value", "muon"}
NOT_READ = {
    "checkpointing", "checkpointing with dropout", "clip norm", "clip value", "dropout in micro-batches",
    "groups of sgd", "reentrant checkpointing", "sgd",
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_which_loops_have_closed_forms(name):
    """Those without clipping, amsgrad or Muon; a gradient is read where a buffer of momentum holds it."""
    tape = LOOPS[name].run(record=True)[1].finish()
    theta, *slots = tape.state(0).view(-1, tape.layout.size).unbind()
    hyper, after = tape.at(0).hyper.unbind(), tuple(tape.state(1).view(-1, tape.layout.size)[1:])
    pull = tape.optimizer.pull_back(theta, tuple(slots), torch.ones_like(theta), hyper)
    assert (pull is None) == (name in NOT_WRITTEN)
    assert (tape.optimizer.gradient(theta, tuple(slots), after, hyper) is None) == (name in NOT_READ)
    assert tape.optimizer.translates == (name in MOVES_ALIKE)
    if tape.optimizer.translates:
        from_here, from_nowhere = (
            [
                tape.optimizer.update(start, tuple(slots), g, hyper)
                for g in (torch.ones_like(theta), 2 * torch.ones_like(theta))
            ]
            for start in (theta, torch.zeros_like(theta))
        )
        for (one, kept), (other, held) in zip(from_here, from_nowhere, strict=True):
            torch.testing.assert_close(
                one - from_here[0][0], other - from_nowhere[0][0], rtol=1e-9, atol=1e-12
            )
            assert all(torch.equal(a, b) for a, b in zip(kept, held, strict=True))
