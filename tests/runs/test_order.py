"""Batch order: what every usual loader does, from its own seed, at a fixed number of steps."""

import numpy as np
import torch

import finfluence as fi
import plain_training as pt


def test_each_epoch_visits_every_row_once():
    described = pt.recipe(data=pt.table(12), batch_size=4, epochs=3)
    for epoch in range(3):
        visited = torch.cat(described.epoch_order(7, epoch))
        assert sorted(visited.tolist()) == list(range(12))


def test_epochs_and_seeds_differ_and_repeat():
    described = pt.recipe(data=pt.table(12), batch_size=4, epochs=3)
    epochs = [torch.cat(described.epoch_order(7, e)).tolist() for e in range(3)]
    assert len({tuple(e) for e in epochs}) == 3
    assert torch.cat(described.epoch_order(8, 0)).tolist() != epochs[0]
    assert torch.cat(described.epoch_order(7, 0)).tolist() == epochs[0]


def test_last_batch_is_dropped_or_smaller():
    sizes = [len(b) for b in pt.recipe(data=pt.table(11)).order(0)]
    assert sizes == [4, 4] * 3
    sizes = [len(b) for b in pt.recipe(data=pt.table(11), drop_last=False).order(0)]
    assert sizes == [4, 4, 3] * 3


def test_removal_keeps_the_number_of_steps_and_never_uses_the_rows():
    described = pt.recipe(data=pt.table(12), batch_size=4, epochs=2)
    keep = np.array([i for i in range(12) if i not in (0, 5, 7)])
    order = described.order(3, keep)
    assert [len(b) for b in order] == [4] * 6
    visited = torch.cat(order).tolist()
    assert not {0, 5, 7} & set(visited)
    counts = np.bincount(torch.cat(described.epoch_order(3, 0, keep)).numpy(), minlength=12)[keep]
    assert counts.min() >= 1 and counts.max() <= 2


def test_keeping_all_rows_is_the_order_itself():
    described = pt.recipe(data=pt.table(12))
    assert all(
        torch.equal(a, b) for a, b in zip(described.order(2), described.order(2, np.arange(12)), strict=True)
    )


def test_independent_batches_are_uniform_with_replacement():
    """1200 draws over 12 rows: counts within 5 standard errors of 100 (false failure below 1e-5)."""
    described = pt.recipe(data=pt.table(12), sampling="independent", epochs=100)
    rows = torch.cat(described.order(0))
    counts = np.bincount(rows.numpy(), minlength=12)
    assert np.abs(counts - 100).max() < 5 * np.sqrt(100)
    assert any(len(set(b.tolist())) < 4 for b in described.order(0))


def test_initialisation_and_order_have_their_own_seeds():
    described = pt.recipe(model=lambda seed: nn_model())
    start = {(i, o): fi.train(described, init_seed=i, order_seed=o) for i in (0, 1) for o in (0, 1)}
    first = {k: t.state(0) for k, t in start.items()}
    last = {k: t.state() for k, t in start.items()}
    assert torch.equal(first[0, 0], first[0, 1]) and not torch.equal(first[0, 0], first[1, 0])
    assert [b.tolist() for b in start[0, 0].order] == [b.tolist() for b in start[1, 0].order]
    assert len({tuple(s.tolist()) for s in last.values()}) == 4
    again = fi.train(described, init_seed=1, order_seed=0)
    assert torch.equal(again.state(), last[1, 0])
    assert torch.equal(fi.train(described, seed=1).state(), last[1, 1])


def nn_model() -> torch.nn.Module:
    return pt.mlp().to(pt.DOUBLE)
