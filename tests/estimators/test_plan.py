"""The dial and the forecast: monotone settings, costs near what was promised, everything in words."""

import itertools
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError
from finfluence.estimators import plan
from finfluence.estimators._budget import settings_for
from finfluence.estimators._costs import Costs, bytes_per_query
from finfluence.estimators._horizon import horizon_for
from finfluence.estimators._walk import Plan
from four_parts import assert_parts

QUERIES = [fi.own_loss([0, 3]), fi.own_loss([7])]
COSTS = Costs(train=1.0, back=2.0, late=3.0, fixed=0.5, per_row=0.01, setup=0.0, together=3)
BUDGETS = (0.01, 0.3, 0.7, 1.1, 2.0, 2.4, 3.0, 5.0, 20.0, 500.0)


def recipe(**changes: object) -> fr.Recipe:
    options = {"data": pt.table(200), "optimizer": fr.AdamW(lr=0.01, eps=1e-3), "batch_size": 20, "epochs": 8}
    return pt.recipe(**{**options, **changes})


def made(tape: fr.Tape, budget: float, queries: int = 3, start: Plan | None = None, horizon: int = 8):
    start = Plan(False, 0.25, 0) if start is None else start
    return settings_for(budget, tape, start, horizon, queries, lambda: COSTS)


def test_cost_of_a_walk_counts_steps_and_evaluations():
    """Eight epochs of ten steps at 2 s, and all 200 rows at every step at 0.5 + 0.01 · 200 s; 80 s of training."""
    tape = fi.train(recipe())
    assert COSTS.walk(tape, Plan(True, 0.25, 0), 8) == pytest.approx(80 * (2 + 0.5 + 2.0))
    assert COSTS.walk(tape, Plan(False, 0.0, 0), 3) == pytest.approx(30 * 2.0)
    assert COSTS.walk(tape, Plan(False, 0.0, 0), 8, late=0.2) == pytest.approx(20 * 3.0 + 60 * 2.0)
    assert COSTS.runs(tape, Plan(False, 0.0, 0), 8, 7) == pytest.approx(3 * 2.0), (
        "seven queries need three walks"
    )
    assert COSTS.evaluation(2048) == pytest.approx(2 * 0.5 + 20.48)
    sparse = fi.train(recipe(), snapshot_bytes=1)
    assert COSTS.walk(sparse, Plan(False, 0.0, 0), 8) == pytest.approx(80 * 3.0), "states are recomputed"


@pytest.mark.parametrize("changes", [{}, {"sampling": "independent"}])
@pytest.mark.parametrize("full", [False, True])
def test_a_larger_budget_never_gives_less(changes, full):
    tape = fi.train(recipe(**changes))
    start = Plan(full, 0.25 if tape.reshuffled else 0.0, 0)
    chosen = [made(tape, b, start=start) for b in BUDGETS]
    ranks = [(s.method == "full", s.horizon, s.probe_share) for s in chosen]
    for before, after in itertools.pairwise(ranks):
        assert all(a <= b for a, b in zip(before, after, strict=True)), ranks
    assert ranks[0][1] == 1 and ranks[-1][:2] == (True, 8)
    assert all(s.expected <= s.asked for s in chosen if s.horizon > 1)
    assert made(tape, 500.0, start=start, horizon=5).horizon == 5


def test_settings_by_hand_give_the_same_numbers(monkeypatch):
    monkeypatch.setattr(
        "finfluence.estimators._replay_walks.measure", lambda *_: replace(COSTS, per_row=0.001)
    )
    tape = fi.train(recipe())
    for budget in (1.0, 3.0, 20.0):
        found = fi.replay(tape, QUERIES, budget=budget)
        kept = found.data.attrs["budget"]
        by_hand = fi.replay(
            tape, QUERIES, method=kept["method"], horizon=kept["horizon"], probe_budget=kept["probe_share"]
        )
        both = np.array(found.data.attrs["horizon"]) == by_hand.data.attrs["horizon"]
        assert both.any()
        for name in ("effect", "spread"):
            a, b = (f.data[name].values[:, both] for f in (found, by_hand))
            np.testing.assert_array_equal(a, b)
        assert found.data.attrs["method"] == kept["method"] and by_hand.data.attrs["budget"] is None
        said = [f for f in found.data.attrs["findings"] if "budget" in f]
        assert len(said) == 1 and f"a budget of {budget:g} training runs" in said[0]


def test_the_horizon_given_bounds_the_budget(monkeypatch):
    monkeypatch.setattr("finfluence.estimators._replay_walks.measure", lambda *_: COSTS)
    found = fi.replay(fi.train(recipe()), QUERIES, budget=100.0, horizon=3)
    assert found.data.attrs["budget"]["horizon"] == 3 and found.data.attrs["horizon"] == [3, 3, 3]


def test_an_interrupted_replay_keeps_its_choice(monkeypatch, tmp_path):
    tape = fi.train(recipe())
    monkeypatch.setattr("finfluence.estimators._replay_walks.measure", lambda *_: COSTS)
    first = fi.replay(tape, QUERIES, budget=1.0, out=tmp_path)
    monkeypatch.setattr("finfluence.estimators._replay_walks.measure", lambda *_: replace(COSTS, back=0.1))
    again = fi.replay(tape, QUERIES, budget=1.0, out=tmp_path)
    assert again.data.attrs["budget"] == first.data.attrs["budget"]
    np.testing.assert_array_equal(again.data.mu.values, first.data.mu.values)
    other = fi.replay(tape, QUERIES, budget=1.0)
    assert other.data.attrs["budget"]["horizon"] > first.data.attrs["budget"]["horizon"]


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_words_for_a_wrong_budget(budget):
    with pytest.raises(ConfigError) as caught:
        made(fi.train(recipe(epochs=1)), budget, horizon=1)
    assert_parts(caught.value, "number of training runs above 0", repr(budget), "percent", "budget=2.0")


def test_least_cost_is_said_when_the_budget_is_too_small():
    sentence = made(fi.train(recipe()), 0.01).sentence
    assert "at most 1 epochs back" in sentence and sentence.endswith("the least there is")


def test_horizon_at_most():
    rule = horizon_for("auto", recipe())
    assert rule.limit == 8 and rule.at_most(3).limit == 3 and horizon_for(5, recipe()).at_most(7).limit == 5
    profile = torch.full((8, 1), float("nan"), dtype=pt.DOUBLE)
    profile[5:] = 1.0
    one = torch.ones(1, dtype=pt.DOUBLE)
    assert bool(rule.accepts(4, one, 0 * one, profile).item())


def test_forecast_of_a_recipe_and_of_its_tape():
    described = recipe()
    tape = fi.train(described)
    before, after = plan(described, QUERIES), plan(tape, QUERIES)
    assert [s.name for s in before.stages] == ["train", "prepare", "walk", "result"]
    assert [s.name for s in after.stages] == ["prepare", "walk", "result"]
    for forecast in (before, after):
        assert (forecast.queries, forecast.subsets, forecast.rows, forecast.steps) == (3, 200, 200, 80)
        assert forecast.differentiation == "exact" and forecast.states_every == 1
        assert forecast.seconds == pytest.approx(sum(s.seconds for s in forecast.stages))
        assert all(s.seconds > 0 for s in forecast.stages)
    state = tape.stepper.width * 8
    assert before.stages[0].memory_bytes == 81 * state and before.stages[0].disk_bytes == 0
    saved = plan(described, QUERIES, saved=True, snapshot_bytes=4 * state)
    assert saved.states_every == 20 and saved.stages[0].disk_bytes == 5 * state
    assert saved.stages[0].memory_bytes == 0 and saved.disk_bytes > 5 * state
    assert saved.stages[-2].memory_bytes == pytest.approx(3 * bytes_per_query(tape) + 20 * state, rel=1e-6)


def test_forecast_in_words():
    words = repr(plan(recipe(), QUERIES, {"first": [0, 1]}, budget=1.5))
    lines = words.splitlines()
    assert lines[0].startswith("1 subsets × 3 queries, 200 rows, 80 steps: about ")
    assert re.search(r"of memory, .* on disk$", lines[0])
    assert [line.split()[0] for line in lines[1:5]] == ["train", "prepare", "walk", "result"]
    assert "training runs (exact derivatives); every state is kept" in lines[5]
    assert lines[6].strip().startswith("a budget of 1.5 training runs was spent on")


def test_forecast_leaves_tape_and_recipe_as_they_were():
    described = recipe()
    tape = fi.train(described)
    weights, state = pt.flat(described.model).clone(), tape.state(17).clone()
    want = fi.replay(fi.train(described), QUERIES)
    plan(described, QUERIES)
    plan(tape, QUERIES, budget=2.0)
    assert (
        torch.equal(pt.flat(described.model), weights)
        and torch.equal(tape.state(17), state)
        and tape.every == 1
    )
    np.testing.assert_array_equal(fi.replay(tape, QUERIES).data.mu.values, want.data.mu.values)


def test_realised_cost_is_near_the_promise():
    """In processor time, traced already: within a factor of three, for a machine that does other things, too."""
    tape = fi.train(recipe(epochs=30))
    forecast = plan(tape, QUERIES, horizon=30)
    fi.replay(tape, QUERIES, horizon=30)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        fi.replay(tape, QUERIES, horizon=30)
        seconds.append(time.process_time() - began)
    walk = next(s.seconds for s in forecast.stages if s.name == "walk")
    assert walk / 3 < min(seconds) < 3 * walk + 0.2
