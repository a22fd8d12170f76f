"""Train, record and replay on every device there is: bit for bit repeatable, and equal to float64 on the CPU."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt

QUERY = fi.own_loss([1, 4])
DROPPING = (nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))


def recipe(device: torch.device, **changes: object) -> fr.Recipe:
    model = pt.made(pt.mlp).to(device)
    options = {"optimizer": fr.AdamW(lr=0.02, eps=1e-4), "batch_size": 5, "drop_last": False, "epochs": 2}
    return pt.recipe(**{"model": model, **options, **changes})


def dropping(device: torch.device) -> nn.Module:
    return pt.made(lambda: nn.Sequential(*copy.deepcopy(DROPPING))).to(device)


@pytest.mark.parametrize("method", ["online", "full"])
def test_replay_is_that_of_the_cpu(device, method):
    want = fi.replay(fi.train(recipe(torch.device("cpu"))), QUERY, method=method).data
    found = fi.replay(fi.train(recipe(device)), QUERY, method=method).data
    for name in ("effect", "effect_se", "spread", "own_loss"):
        np.testing.assert_allclose(found[name], want[name], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("differentiation", ["exact", "finite-difference"])
def test_same_call_same_bits(device, differentiation):
    tapes = [fi.train(recipe(device), snapshot_bytes=size) for size in (2**30, 600)]
    assert tapes[1].interval > 1  # states between are computed again
    first, second = (fi.replay(t, QUERY, differentiation=differentiation).data for t in tapes)
    assert torch.equal(tapes[0].state(), tapes[1].state())
    np.testing.assert_array_equal(first.effect, second.effect)


def test_dropout_draws_the_same_masks_again(device):
    made = recipe(device, model=dropping(device))
    tape = fi.train(made, snapshot_bytes=600)
    assert tape.stochastic and tape.interval > 1
    again = fi.train(made)
    for t in range(tape.steps):
        assert torch.equal(tape.state(t), again.state(t))
    assert not torch.equal(fi.train(made, seed=1).state(), tape.state())
    effects = [fi.replay(tape, QUERY).data.effect.values for _ in range(2)]
    np.testing.assert_array_equal(*effects)


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_recorded_loop_is_taken_again(device, stochastic, tmp_path):
    """The self-check of `finish` compares gradients and moves, under the random states of the device."""
    model = dropping(device) if stochastic else pt.made(pt.mlp).to(device)
    rows, optimizer = pt.table(), torch.optim.AdamW(model.parameters(), lr=0.02, eps=1e-4)
    tape = fi.Tape.record(
        model, optimizer, loss=pt.class_loss, data=rows, out=tmp_path / "tape", snapshot_bytes=2000
    )
    for _ in range(3):
        for ids in torch.arange(12).split(4):
            batch = {k: v.to(device) for k, v in rows.batch(ids).items()}
            pt.class_loss(model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            tape.step(ids=ids)
    tape = tape.finish()
    assert tape.stochastic is stochastic
    end = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).cpu()
    assert torch.equal(tape.state()[: len(end)].cpu(), end)
    assert np.isfinite(fi.replay(tape, QUERY).data.effect).all()


def test_interrupted_progress_goes_back_to_the_device(device, tmp_path):
    tape = fi.train(recipe(device))
    whole = fi.replay(tape, QUERY, out=tmp_path)
    again = fi.replay(tape, QUERY, out=tmp_path)
    np.testing.assert_array_equal(again.data.effect, whole.data.effect)
