"""Steps that see all rows: batches come in no order, and one run shows no training randomness."""

import numpy as np
import pytest
import torch

import finfluence as fi
import plain_training as pt
from finfluence.runs import AdamW

ROWS = 12
QUERY = fi.own_loss([2])


def described(**changes) -> fi.Recipe:
    return pt.recipe(batch_size=ROWS, epochs=8, optimizer=AdamW(lr=0.01), **changes)


def random_start(seed: int) -> torch.nn.Module:
    return pt.made(pt.mlp, seed)


@pytest.mark.parametrize("method", ["online", "full"])
@pytest.mark.quick(1)
def test_effects_are_those_of_the_whole_run_and_no_error_is_claimed(method):
    tape = fi.train(described())
    found = fi.replay(tape, QUERY, method=method)
    assert set(found.provenance.horizon) == {8} and tape.whole_batches
    ones, width = torch.ones(ROWS, dtype=pt.DOUBLE), 1e-5

    def trained(weights: torch.Tensor) -> float:
        model, recipe = pt.made(pt.mlp), described()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        model, _ = pt.plain(recipe, model, recipe.order(0), optimizer, weights=weights)
        batch = {k: v[[2]] for k, v in recipe.rows.fields.items()}
        return pt.class_loss(model, batch).item()

    steps = width * torch.eye(ROWS, dtype=pt.DOUBLE)
    right = np.array([(trained(ones - s) - trained(ones + s)) / (2 * width) for s in steps])
    expected = ROWS * (right - right.mean()) / (ROWS - 1)
    tangent = fi.replay(tape, QUERY, method=method, first_steps="tangent", late=0.0)
    np.testing.assert_allclose(tangent.data.effect.values[:, 0], expected, rtol=1e-4, atol=1e-7)
    for name in ("mu", "se", "lower", "upper", "p_value"):
        assert np.isnan(found.data[name].values).all()
    assert not found.data.spread.values.any() and found.provenance.covers == ()
    assert any("batches come in no order" in text for text in found.provenance.findings)


def test_rows_are_still_ranked_and_none_is_named():
    found = fi.replay(fi.train(described()), QUERY)
    effects = found.top(ROWS)["effect"].to_numpy()
    assert (np.diff(effects) >= 0).all() and effects[0] < 0 < effects[-1]
    assert found.select(fdr=0.5).empty
    assert "no spread, from 1 training run" in str(found) and "spread over" not in str(found)


@pytest.mark.slow
def test_pooled_runs_have_the_spread_of_their_starts_or_none():
    fixed = fi.pool([fi.replay(fi.train(described(), seed=s), QUERY) for s in (0, 1)])
    assert np.isnan(fixed.data.mu.values).all()
    assert any("no training randomness" in text for text in fixed.provenance.findings)
    drawn = fi.pool([fi.replay(fi.train(described(model=random_start), seed=s), QUERY) for s in (0, 1, 2)])
    assert np.isfinite(drawn.data.mu.values).all() and (drawn.data.spread.values > 0).all()
    assert not any("no training randomness" in text for text in drawn.provenance.findings)
    assert drawn.provenance.covers == ("initialisation",)


def test_batches_of_all_rows_but_one_have_an_order():
    found = fi.replay(fi.train(pt.recipe(batch_size=ROWS - 1, epochs=8)), QUERY)
    assert np.isfinite(found.data.mu.values).all() and (found.data.spread.values > 0).all()


@pytest.mark.slow
def test_a_scan_of_whole_batches_says_why_no_row_is_named(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).round(3)
    lines = [f"{a},{b},{'yes' if a + b > 0 else 'no'}" for a, b in x]
    (tmp_path / "d.csv").write_text("a,b,label\n" + "\n".join(lines), encoding="utf-8")
    result = fi.scan(
        tmp_path / "d.csv",
        "label",
        model="linear",
        epochs=3,
        batch_size=48,
        runs=1,
        proof=False,
        out=tmp_path / "o",
    )
    said = dict(result.summary["findings"])
    assert "batches come in no order" in said["FI021"]
    assert not any("would have had to raise" in text for text in result.summary["nothing_said"])
