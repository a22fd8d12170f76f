"""Effects without spread: the same effects as scores, nothing evaluated for the spread, and words for what is missing."""

import numpy as np
import pytest

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators import method_class
from four_parts import assert_parts

HELD_OUT = pt.table(seed=9).fields
QUERIES = [
    fi.mean_loss(HELD_OUT["x"], HELD_OUT["y"], name="held-out"),
    fi.Query(lambda m: m(HELD_OUT["x"]).softmax(1)[:, 0].mean(), name="chance", unit="probability", sign=1),
]
GROUPS = {"some": [0, 1, 2], "others": [4, 5], "nothing": []}


@pytest.fixture(scope="module")
def tape() -> fr.Tape:
    return fi.train(pt.recipe(batch_size=4, epochs=6), seed=1)


@pytest.mark.parametrize("options", [{}, {"late": 0.4}, {"late": 0.0}, {"method": "full"}, {"horizon": 2}])
def test_they_are_those_of_a_replay_with_spread_times_the_sign(tape, options):
    with_spread = fi.replay(tape, QUERIES, horizon=options.pop("horizon", 6), **options)
    alone = fi.replay(tape, QUERIES, horizon=max(with_spread.provenance.horizon), spread=False, **options)
    signs = with_spread.data.sign.values
    np.testing.assert_allclose(
        alone.data.score.values, with_spread.data.effect.values * signs, rtol=1e-6, atol=1e-12
    )
    assert alone.data.unit.values.tolist() == ["nats", "probability"]
    assert not {"mu", "spread", "effect", "p_value"} & set(alone.data)


def test_groups_and_candidates(tape):
    paired = fi.replay(tape, QUERIES, subsets=GROUPS, groups="paired")
    alone = fi.replay(tape, QUERIES, subsets=GROUPS, groups="paired", spread=False)
    np.testing.assert_allclose(alone.data.score, paired.data.effect * paired.data.sign, rtol=1e-6, atol=1e-12)
    assert (alone.data.score.sel(subset="nothing") == 0).all()
    rows = fr.Rows(x=HELD_OUT["x"][:2], y=HELD_OUT["y"][:2], ids=["a", "b"])
    added = fi.replay(tape, QUERIES, candidates=rows, horizon=6)
    scored = fi.replay(tape, QUERIES, candidates=rows, horizon=6, spread=False)
    np.testing.assert_allclose(scored.data.score, added.data.effect * added.data.sign, rtol=1e-6, atol=1e-12)


def test_rows_in_no_batch_have_no_score():
    tape = fi.train(pt.recipe(batch_size=5, epochs=1), seed=3)
    missed = tape.times_drawn() == 0
    assert missed.any()
    assert np.array_equal(np.isnan(fi.replay(tape, QUERIES[0], spread=False).data.score.values[:, 0]), missed)


def test_what_is_missing_is_said(tape):
    found = fi.estimate(tape, QUERIES[0], "replay", spread=False)
    said = repr(found)
    assert "effects only, in the query's unit and times its sign: they rank, without spread, μ" in said
    assert any("effects alone were asked (spread=False)" in f for f in found.provenance.findings)
    assert found.provenance.spread_profile is None and not found.has_mu
    assert len(found.top(3)) == 3
    with pytest.raises(NotSupportedError) as caught:
        found.select(fdr=0.1)
    assert_parts(
        caught.value, "an influence with mu for select", "effects only, in the query's unit", "with spread=False",
        "without spread=False, or rank by .top()",
    )  # fmt: skip


def test_it_is_written_and_read(tape, tmp_path):
    held = fi.replay(tape, QUERIES, spread=False, out=tmp_path / "work")
    written = fi.replay(tape, QUERIES, spread=False, save_to=tmp_path / "alone.zarr")
    assert np.array_equal(held.data.score, written.data.score)
    read = fi.load(tmp_path / "alone.zarr")
    with pytest.raises(NotSupportedError, match="spread=False"):
        read.select(fdr=0.1)


def test_it_costs_less_by_evaluations_and_budgets_do_without_it(tape):
    dear, cheap = (fi.plan(tape, QUERIES, spread=spread) for spread in (True, False))
    assert cheap.memory_bytes < dear.memory_bytes
    costs = [trainings(tape, spread) for spread in (True, False)]
    assert costs[1] < 0.7 * costs[0]
    budgeted = fi.replay(tape, QUERIES, spread=False, budget=1000.0, method="online")
    assert not budgeted.has_mu and budgeted.provenance.budget is not None


def trainings(tape: fr.Tape, spread: bool) -> float:
    replay = method_class("replay")
    return replay(replay.Options(spread=spread)).cost(tape, QUERIES).trainings


def test_another_value_is_refused(tape):
    with pytest.raises(ConfigError) as caught:
        fi.replay(tape, QUERIES, spread=0.5)
    assert_parts(caught.value, "spread to be True or False", "0.5", "measured, not given", "spread=False")
