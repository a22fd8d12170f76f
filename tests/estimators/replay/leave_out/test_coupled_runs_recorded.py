"""Paired runs of recorded loops: a copy without removal is the loop itself; removal is the loop over the other rows."""

import copy

import numpy as np
import pytest
import torch

import finfluence as fi
from finfluence.estimators.replay.leave_out import Baseline, LeaveOut, Replicas
from recorded_loops import LOOPS

NAMES = [
    "momentum", "adamw", "cosine", "groups", "clip norm", "accumulation", "uneven accumulation", "dropout",
    "dropout in micro-batches", "checkpointing",
]  # fmt: skip
GROUP = np.array([2, 7, 8])


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_without_removal_is_the_loop_itself(name: str) -> None:
    _, tape = LOOPS[name].run(record=True)
    tape.finish()
    none = np.array([], dtype=np.int64)
    whole, beside = Replicas(tape).final([Baseline(), LeaveOut(none, len(tape.rows), 0, True)])
    torch.testing.assert_close(whole, tape.final_state()[: tape.layout.size], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(beside, whole, rtol=1e-12, atol=1e-14)


def test_removal_is_the_loop_over_the_other_rows() -> None:
    loop = LOOPS["momentum"]
    _, tape = loop.run(record=True)
    tape.finish()
    model = copy.deepcopy(loop.start())
    optimizer = loop.optimizer(model)
    for rows in loop.order():
        kept = rows[~torch.isin(rows, torch.from_numpy(GROUP))]
        assert len(kept)
        optimizer.zero_grad()
        loop.loss(model, loop.data().batch(kept)).mean().backward()
        optimizer.step()
    (without,) = Replicas(tape).final([LeaveOut(GROUP, 12, 0, True)])
    torch.testing.assert_close(without, tape.layout.theta(model), rtol=1e-9, atol=1e-12)


def test_groups_of_a_recorded_loop_are_paired() -> None:
    _, tape = LOOPS["adamw"].run(record=True)
    found = fi.replay(tape, fi.own_loss([2]), subsets={"g": GROUP.tolist()})
    assert np.isfinite(found.data.linear_effect.item()) and "(paired)" in repr(found)
    assert found.data.effect.item() != found.data.linear_effect.item()


def test_rows_drawn_in_place_of_a_batch_of_the_group_alone_go_with_dropout() -> None:
    loop = LOOPS["dropout"]
    _, tape = loop.run(record=True)
    tape.finish()
    rows = tape.at(0).rows.numpy()
    final = Replicas(tape).final([Baseline(), LeaveOut(rows, 12, 0, True)])
    assert torch.isfinite(final).all() and not torch.equal(final[0], final[1])
