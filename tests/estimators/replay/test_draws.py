"""Rows that no batch used have no estimate; rows drawn unequally are counted as they were drawn, or refused."""

import numpy as np
import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import NotSupportedError
from four_parts import assert_parts

QUERY = fi.mean_loss(pt.table(seed=9).fields["x"], pt.table(seed=9).fields["y"], name="q")
ESTIMATES = ("effect_se", "mu", "se", "lower", "upper", "p_value")


def dropping(epochs: int = 2) -> fr.Tape:
    """Batches of 5 of 12 rows, the last two rows of each epoch dropped."""
    return fi.train(pt.recipe(batch_size=5, epochs=epochs), seed=3)


@pytest.mark.parametrize("horizon", [1, 2])
def test_rows_without_a_batch_are_not_estimated(horizon):
    tape = dropping()
    missed = tape.times_drawn(range(2 - horizon, 2)) == 0
    data = fi.replay(tape, QUERY, horizon=horizon, late=0).data
    for name in ESTIMATES:
        assert np.isnan(data[name].values[missed]).all(), name
    assert (data.effect.values[missed] == 0).all()
    assert np.isfinite(data.mu.values[~missed]).all()
    said = [f for f in data.attrs["findings"] if "in no batch" in f]
    assert bool(said) == bool(missed.any())
    if missed.any():
        assert said[0].startswith(f"{missed.sum()} of 12 subsets were in no batch")


def test_a_single_epoch_leaves_rows_out():
    assert (dropping(1).times_drawn() == 0).sum() == 2  # so that the test above has a case


def test_groups_of_which_some_rows_were_used():
    tape = dropping(1)
    missed = np.flatnonzero(tape.times_drawn() == 0).tolist()
    used = np.flatnonzero(tape.times_drawn()).tolist()
    groups = {"none": missed, "some": [missed[0], *used[:2]], "all": used[:3]}
    data = fi.replay(tape, QUERY, subsets=groups, horizon=1, late=0, groups="linear").data
    assert np.isnan(data.mu.values[:, 0]).tolist() == [True, False, False]
    said = [f for f in data.attrs["findings"] if "in no batch" in f]
    assert said[0].startswith("1 of 3 subsets") and said[1].startswith("of 1 subsets some rows")


def test_all_rows_at_every_step_need_no_batch():
    data = fi.replay(dropping(1), QUERY, method="full", horizon=1, late=0).data
    assert np.isfinite(data.mu.values).all()
    assert not any("in no batch" in f for f in data.attrs["findings"])


def test_means_over_runs_count_a_row_where_it_was_drawn():
    """A run that did not draw a row adds 0 to its mean, which is unbiased over orders; other rows stay as they are."""
    runs = [
        fi.replay(fi.train(pt.recipe(batch_size=5, epochs=1), seed=s), QUERY, horizon=1, late=0)
        for s in range(4)
    ]
    single = np.stack([r.data.effect.values for r in runs])
    assert np.isnan(np.stack([r.data.mu.values for r in runs])).any(0).sum() >= 2
    pooled = fi.pool(runs).data
    np.testing.assert_allclose(pooled.effect, single.mean(0))
    assert np.isfinite(pooled.mu.values).all() and np.isfinite(pooled.lower.values).all()


def weighted(seed: int = 0) -> fr.Tape:
    rows, model = pt.table(), pt.made(pt.mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=rows)
    chance = np.array([12.0] * 3 + [1.0] * 9)
    rng = np.random.default_rng(seed)
    for _ in range(30):
        ids = torch.from_numpy(rng.choice(12, 4, p=chance / chance.sum()))
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.step(ids=ids)
    return recorder.finish()


def test_weighted_sampling_is_refused_where_all_rows_count_alike():
    tape = weighted()
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, QUERY, method="full")
    counts = tape.times_drawn()
    assert_parts(
        caught.value, "drawn equally often", f"from {counts.min()} to {counts.max()} times in 120 draws",
        "WeightedRandomSampler", "method='online'",
    )  # fmt: skip


def test_a_budget_never_chooses_what_does_not_apply():
    assert fi.replay(weighted(), QUERY, budget=5000.0).data.attrs["method"] == "online"
    assert fi.replay(dropping(), QUERY, budget=5000.0).data.attrs["method"] == "full"


def fixed_order(epochs: int = 6) -> fr.Tape:
    """A loader that does not shuffle."""
    rows, model = pt.table(), pt.made(pt.mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=rows)
    for _ in range(epochs):
        for ids in torch.arange(12).split(4):
            pt.class_loss(model, rows.batch(ids)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step(ids=ids)
    return recorder.finish()


def test_a_loader_that_does_not_shuffle_is_told():
    tape = fixed_order()
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, QUERY, method="full")
    assert_parts(
        caught.value, "rows that may come at any step", "about the same steps of all 6 epochs", "does not shuffle",
        "method='online'",
    )  # fmt: skip
    data = fi.replay(tape, QUERY, budget=5000.0).data
    assert data.attrs["method"] == "online"
    said = [f for f in data.attrs["findings"] if "the loader does not shuffle" in f]
    assert said == [said[0]] and "none from batch order" in said[0]
    shuffled = fi.replay(dropping(6), QUERY).data.attrs["findings"]
    assert not any("shuffle" in f for f in shuffled)
