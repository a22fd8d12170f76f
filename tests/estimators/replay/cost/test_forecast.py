"""Budget allocation and the forecast: monotone settings, costs near what was promised, everything in words."""

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
from finfluence.estimators.replay import RowSchedule, RunShape, truncation_for
from finfluence.estimators.replay.cost import (
    MemorySplit,
    PeakMemory,
    StepTimer,
    Timings,
    Workload,
    allocate,
    bytes_per_query,
    plan,
)
from four_parts import assert_parts
from recorded_loops import Loop

QUERIES = [fi.own_loss([0, 3]), fi.own_loss([7])]
TIMINGS = Timings(train=1.0, back=2.0, tail=3.0, few=0.5 + 0.64, many=lambda: 0.5 + 2.0, most=200)
ONE_PASS = MemorySplit(together=3, passes=1, capacity=1, interval=1)
BUDGETS = (0.01, 0.3, 0.7, 1.1, 2.0, 2.4, 3.0, 5.0, 20.0, 500.0)


def recipe(**changes: object) -> fr.Recipe:
    options = {"data": pt.table(200), "optimizer": fr.AdamW(lr=0.01, eps=1e-3), "batch_size": 20, "epochs": 8}
    return pt.recipe(**{**options, **changes})


def load(tape: fr.Tape, memory: MemorySplit = ONE_PASS, late: float = 0.0, candidates: int = 0) -> Workload:
    return Workload(RunShape.of(len(tape.rows), tape.epochs), memory, late, candidates)


def made(tape: fr.Tape, budget: float, queries: int = 3, start: RowSchedule | None = None, horizon: int = 8):
    start = RowSchedule(False, 0.25, 0) if start is None else start
    workload = load(tape, replace(ONE_PASS, passes=-(-queries // 3)))
    return allocate(budget, workload, start, horizon, lambda: TIMINGS)


def test_cost_of_a_pass_counts_steps_and_evaluations():
    """Eight epochs of ten steps at 2 s, and all 200 rows at every step at 0.5 + 0.01 · 200 s; 80 s of training."""
    tape = fi.train(recipe())
    one, alone = load(tape), RowSchedule(False, 0.0, 0)
    assert one.pass_seconds(TIMINGS, RowSchedule(True, 0.25, 0), 8) == pytest.approx(80 * (2 + 0.5 + 2.0))
    assert one.pass_seconds(TIMINGS, alone, 3) == pytest.approx(30 * 2.0)
    assert load(tape, late=0.2).pass_seconds(TIMINGS, alone, 8) == pytest.approx(30 * 3.0 + 50 * 2.0)
    assert TIMINGS.evaluation(2048) == pytest.approx(2 * 0.5 + 20.48)
    assert TIMINGS.evaluation(64) == TIMINGS.evaluation(1000, at_least=True) == TIMINGS.few
    three = MemorySplit(together=3, passes=3, capacity=4, interval=4)

    def runs(memory: MemorySplit) -> float:
        return load(tape, memory).runs(TIMINGS, alone, 8)

    assert runs(replace(three, interval=1)) == pytest.approx(3 * 2.0)
    assert runs(three) == pytest.approx(3 * 3.0), "states are recomputed"
    assert runs(replace(three, capacity=84)) == pytest.approx(3 * 2.0 + 1.0), "and kept"
    assert runs(replace(three, capacity=4, on_disk=40)) == pytest.approx(3 * 2.0 + 2.0)
    with_overhead = replace(TIMINGS, overhead=8.0, queries=2.0)
    assert one.runs(with_overhead, alone, 8) == pytest.approx(2.0 + 0.1)
    assert load(tape, late=0.1).runs(with_overhead, alone, 8) == pytest.approx(
        2.0 + 20 / 80 + 0.1 + 7 * 2 / 80
    )


def test_candidates_are_counted_at_their_steps():
    """50 candidates, at four steps of each of eight epochs (online), or at all ten (full); 0.5 + 0.64 s each time."""
    tape, alone = fi.train(recipe()), RowSchedule(False, 0.0, 0)
    without, added = load(tape), load(tape, candidates=50)
    for schedule, often in ((alone, 4), (replace(alone, full=True), 10)):
        more = added.pass_seconds(TIMINGS, schedule, 8) - without.pass_seconds(TIMINGS, schedule, 8)
        assert more == pytest.approx(8 * often * TIMINGS.few)


def test_many_rows_are_timed_only_where_the_budget_may_reach_them():
    def never() -> float:
        raise AssertionError

    tape, timings = fi.train(recipe()), replace(TIMINGS, many=never)
    for budget in (0.01, 1.0, 2.2):
        allocate(budget, load(tape), RowSchedule(False, 0.25, 0), 8, lambda: timings)
    with pytest.raises(AssertionError):
        allocate(9.0, load(tape), RowSchedule(False, 0.25, 0), 8, lambda: timings)


@pytest.mark.parametrize("changes", [{}, {"sampling": "independent"}])
@pytest.mark.parametrize("full", [False, True])
def test_a_larger_budget_never_gives_less(changes, full):
    tape = fi.train(recipe(**changes))
    start = RowSchedule(full, 0.25 if tape.reshuffled else 0.0, 0)
    chosen = [made(tape, b, start=start) for b in BUDGETS]
    ranks = [(s.method == "full", s.horizon, s.probe_share) for s in chosen]
    for before, after in itertools.pairwise(ranks):
        assert all(a <= b for a, b in zip(before, after, strict=True)), ranks
    assert ranks[0][1] == 1 and ranks[-1][:2] == (True, 8)
    assert all(s.expected <= s.asked for s in chosen if s.horizon > 1)
    assert made(tape, 500.0, start=start, horizon=5).horizon == 5


@pytest.mark.slow
def test_settings_by_hand_give_the_same_numbers(monkeypatch):
    monkeypatch.setattr(StepTimer, "timings", lambda *_: replace(TIMINGS, many=lambda: 0.7))
    tape = fi.train(recipe())
    for budget in (1.0, 3.0, 20.0):
        found = fi.replay(tape, QUERIES, budget=budget)
        kept = found.provenance.budget
        by_hand = fi.replay(
            tape, QUERIES, method=kept["method"], horizon=kept["horizon"], probe_budget=kept["probe_share"]
        )
        both = np.array(found.provenance.horizon) == by_hand.provenance.horizon
        assert both.any()
        for name in ("effect", "spread"):
            a, b = (f.data[name].values[:, both] for f in (found, by_hand))
            np.testing.assert_array_equal(a, b)
        assert found.provenance.method == kept["method"] and by_hand.provenance.budget is None
        said = [f for f in found.provenance.findings if "budget" in f]
        assert len(said) == 1 and f"a budget of {budget:g} training runs" in said[0]


def test_the_horizon_given_bounds_the_budget(monkeypatch):
    monkeypatch.setattr(StepTimer, "timings", lambda *_: TIMINGS)
    found = fi.replay(fi.train(recipe()), QUERIES, budget=100.0, horizon=3)
    assert found.provenance.budget["horizon"] == 3 and found.provenance.horizon == (3, 3, 3)


def test_an_interrupted_replay_keeps_its_choice(monkeypatch, tmp_path):
    tape = fi.train(recipe())
    monkeypatch.setattr(StepTimer, "timings", lambda *_: TIMINGS)
    first = fi.replay(tape, QUERIES, budget=1.0, out=tmp_path)
    monkeypatch.setattr(StepTimer, "timings", lambda *_: replace(TIMINGS, back=0.1))
    tape = fi.train(recipe())
    again = fi.replay(tape, QUERIES, budget=1.0, out=tmp_path)
    assert again.provenance.budget == first.provenance.budget
    np.testing.assert_array_equal(again.data.mu.values, first.data.mu.values)
    other = fi.replay(tape, QUERIES, budget=1.0)
    assert other.provenance.budget["horizon"] > first.provenance.budget["horizon"]


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_words_for_a_wrong_budget(budget):
    with pytest.raises(ConfigError) as caught:
        made(fi.train(recipe(epochs=1)), budget, horizon=1)
    assert_parts(caught.value, "number of training runs above 0", repr(budget), "percent", "budget=2.0")


def test_least_cost_is_said_when_the_budget_is_too_small():
    found = made(fi.train(recipe()), 0.01)
    assert found.sentence.startswith(
        f"a budget of 0.01 training runs is less than the least replay takes, {found.least:.2g} runs, which was made: "
        "online rows, at most 1 epoch back, rows for the spread 0.05, 3 queries together, all states are on the tape"
    )
    enough = made(fi.train(recipe()), 3.0)
    assert f"; expected cost {enough.expected:.2g} runs" in enough.sentence and enough.least == found.least
    assert enough.sentence.endswith(
        "; 0 of them are overhead (queries, timing, paired groups), and checking and tracing derivatives, once a tape, is apart (0 s)"
    )


@pytest.mark.slow
def test_settings_of_another_replay_give_its_numbers(monkeypatch):
    monkeypatch.setattr(StepTimer, "timings", lambda *_: TIMINGS)
    first = fi.replay(fi.train(recipe()), QUERIES, budget=1.0)
    monkeypatch.setattr(StepTimer, "timings", lambda *_: None)
    made = first.provenance.budget
    again = fi.replay(fi.train(recipe()), QUERIES, budget=made)
    np.testing.assert_array_equal(again.data.mu.values, first.data.mu.values)
    assert again.provenance.budget == made
    with pytest.raises(ConfigError) as caught:
        fi.replay(fi.train(recipe(epochs=1)), QUERIES, budget={"horizon": 3})
    assert_parts(
        caught.value, "what another replay made of one", "horizon", "another version", "provenance.budget"
    )


def test_budget_and_forecast_of_a_recorded_loop():
    tape = Loop().run(record=True)[1].finish()
    found = fi.replay(tape, fi.own_loss([1]), budget=50.0)
    assert found.provenance.budget["states_every"] == 1
    assert plan(tape, fi.own_loss([1]), budget=50.0).allocation is not None


@pytest.mark.bench
def test_paired_groups_are_counted():
    tape = fi.train(recipe())
    halves = {"first": range(100), "second": range(100, 200)}
    without, with_pairs = plan(tape, QUERIES, halves, groups="linear"), plan(tape, QUERIES, halves)
    assert [s.name for s in without.stages] == ["prepare", "backward", "result"]
    assert [s.name for s in with_pairs.stages] == ["prepare", "backward", "groups", "result"]
    pairing = with_pairs.stages[2].seconds
    least = [
        fi.replay(tape, QUERIES, subsets=halves, groups=g, budget=0.01).provenance.budget["least"]
        for g in ("linear", "auto")
    ]
    assert least[1] - least[0] == pytest.approx(pairing / with_pairs.training_seconds, rel=0.5)


def test_horizon_at_most():
    rule = truncation_for("auto", recipe().noise)
    assert (
        rule.limit == 8
        and rule.at_most(3).limit == 3
        and truncation_for(5, recipe().noise).at_most(7).limit == 5
    )
    profile = torch.full((8, 1), float("nan"), dtype=pt.DOUBLE)
    profile[5:] = 1.0
    one = torch.ones(1, dtype=pt.DOUBLE)
    assert bool(rule.accepts(4, one, 0 * one, profile).item())


def test_forecast_of_a_recipe_and_of_its_tape():
    described = recipe()
    tape = fi.train(described)
    before, after = plan(described, QUERIES), plan(tape, QUERIES)
    assert [s.name for s in before.stages] == ["train", "prepare", "backward", "result"]
    assert [s.name for s in after.stages] == ["prepare", "backward", "result"]
    for forecast in (before, after):
        assert (forecast.queries, forecast.subsets, forecast.rows, forecast.steps) == (3, 200, 200, 80)
        assert (
            forecast.differentiation == "exact"
            and forecast.states_every == 1
            and forecast.states == "all states are on the tape"
        )
        assert forecast.seconds == pytest.approx(sum(s.seconds for s in forecast.stages))
        assert all(s.seconds > 0 for s in forecast.stages)
    state = tape.stepper.width * 8
    assert before.stages[0].memory_bytes == 81 * state and before.stages[0].disk_bytes == 0
    saved = plan(described, QUERIES, saved=True, snapshot_bytes=4 * state)
    assert saved.states_every == 20 and saved.stages[0].disk_bytes == 5 * state
    assert saved.stages[0].memory_bytes == 0 and saved.disk_bytes > 5 * state
    assert 20 * state < saved.stages[-2].memory_bytes < 6 * bytes_per_query(tape) + 2**20
    assert saved.states.endswith(f"; snapshot_bytes={81 * state:,} would keep all")


def test_forecast_in_words():
    words = repr(plan(recipe(), QUERIES, {"first": [0, 1]}, groups="linear", budget=1.5))
    lines = words.splitlines()
    assert lines[0].startswith("1 subsets × 3 queries, 200 rows, 80 steps: about ")
    assert re.search(r"of memory, .* on disk$", lines[0])
    assert [line.split()[0] for line in lines[1:5]] == ["train", "prepare", "backward", "result"]
    assert "training runs (exact derivatives); all states are on the tape" in lines[5]
    assert lines[6].strip().startswith("a budget of 1.5 training runs ")


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
        and tape.interval == 1
    )
    np.testing.assert_array_equal(fi.replay(tape, QUERIES).data.mu.values, want.data.mu.values)


def large_enough() -> tuple[fr.Recipe, list[object]]:
    """A training of half a second: the overhead of a replay is a small part of it."""
    model = pt.made(
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 256), torch.nn.GELU(), torch.nn.Linear(256, 3))
    )
    described = recipe(data=pt.table(1000), model=model, batch_size=50, epochs=20)
    return described, [fi.own_loss([0, 3])]


def spent_in_runs(tape: fr.Tape, queries: list[object], **options: object) -> float:
    """Processor time of a replay, traced already, over that of a training; medians of three."""
    fi.replay(tape, queries, **options)
    replays, trainings = [], []
    for _ in range(3):
        began = time.process_time()
        fi.train(tape.recipe)
        trained = time.process_time()
        fi.replay(tape, queries, **options)
        replays.append(time.process_time() - trained)
        trainings.append(trained - began)
    return float(np.median(replays) / np.median(trainings))


@pytest.mark.bench
def test_a_budget_is_spent_as_expected():
    """At most 1.5 times what was expected, for a machine that does other things, too; at least a third of it.

    A horizon by hand, since "auto" may stop before the budget is spent.
    """
    described, queries = large_enough()
    tape = fi.train(described)
    for budget in (1.0, 2.0):
        made = fi.replay(tape, queries, budget=budget).provenance.budget
        assert made["least"] < budget and made["expected"] <= budget
        spent = spent_in_runs(tape, queries, budget=made, horizon=20)
        assert made["expected"] / 3 < spent < 1.5 * made["expected"], (budget, spent, made)


@pytest.mark.bench
def test_realised_cost_is_near_the_promise():
    """In processor time, traced already: within a factor of two."""
    described, queries = large_enough()
    tape = fi.train(described)
    forecast = plan(tape, queries, horizon=20)
    assert forecast.runs / 2 < spent_in_runs(tape, queries, horizon=20) < 2 * forecast.runs


@pytest.mark.slow
def test_realised_memory_and_disk_are_near_the_promise(tmp_path):
    """What `train` and `replay` leave on disk within a third; states are most of it."""
    described = recipe()
    state = fi.train(described).stepper.width * 8
    forecast = plan(described, QUERIES, saved=True, snapshot_bytes=20 * state)
    tape = fi.train(described, out=tmp_path / "tape", snapshot_bytes=20 * state)
    written = sum(p.stat().st_size for p in (tmp_path / "tape").iterdir())
    assert forecast.stages[0].disk_bytes / 1.5 < written < 1.5 * forecast.stages[0].disk_bytes
    assert len(tape.checkpoints.steps) * state == forecast.stages[0].disk_bytes


@pytest.mark.slow
def test_the_memory_foretold_is_the_peak_of_many_queries():
    """Within 30 per cent of the most that tensors of a replay held, whether queries fit together or not."""
    model = pt.made(
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    )
    asked = fi.each_loss(pt.table(60).fields["x"], pt.table(60).fields["y"])

    def tape() -> fr.Tape:
        return fi.train(recipe(model=model, batch_size=50, epochs=2))

    least = pt.least_memory(tape(), asked)
    for memory_bytes in (2**30, 3 * least):
        stages = plan(tape(), asked, memory_bytes=memory_bytes).stages
        foretold = max(s.memory_bytes for s in stages if s.name != "result")  # which is NumPy's
        recorded = tape()
        with PeakMemory() as counted:
            fi.replay(recorded, asked, memory_bytes=memory_bytes)
        assert foretold == pytest.approx(counted.peak, rel=0.3)
    assert counted.peak < 1.3 * memory_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "late"),
    [(1, 0.1), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((3, 0.1), (1, 0.0)))],
)
def test_the_memory_foretold_is_the_peak_of_few_queries_on_a_large_model(count, late):
    """Within 30 per cent, the gradients of late states counted; a stretch of states goes before the next comes."""
    model = pt.made(
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 2000), torch.nn.Tanh(), torch.nn.Linear(2000, 3))
    )
    table = pt.table(60)
    asked = fi.each_loss(table.fields["x"][:count], table.fields["y"][:count])

    def tape() -> fr.Tape:
        described = recipe(model=model, data=table, batch_size=6, epochs=6)
        return fi.train(described, snapshot_bytes=12 * 3 * 8 * 16_003)

    how = {"late": late, "differentiation": "exact"}
    foretold = max(s.memory_bytes for s in plan(tape(), asked, **how).stages if s.name != "result")
    recorded = tape()
    with PeakMemory() as counted:
        fi.replay(recorded, asked, **how)
    assert foretold == pytest.approx(counted.peak, rel=0.3)


def test_less_memory_than_one_query_takes_is_refused_and_the_least_works():
    tape = fi.train(recipe())
    least = pt.least_memory(tape, QUERIES)
    with pytest.raises(ConfigError) as caught:
        fi.replay(tape, QUERIES, memory_bytes=least - 1)
    assert_parts(
        caught.value, f"memory_bytes of at least {least:,}", f"{least - 1:,}", "trained parameters", f"memory_bytes={least}"
    )  # fmt: skip
    with pytest.raises(ConfigError, match="memory_bytes of at least"):
        plan(tape, QUERIES, memory_bytes=1)
    fi.replay(tape, QUERIES, memory_bytes=least)
