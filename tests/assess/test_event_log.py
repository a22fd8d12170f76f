"""Event logs from tapes: what is counted, a planted effect on a tiny model, runs that share their randomness."""

import numpy as np
import pytest
import torch
from torch import nn

from finfluence.assess import EventLog, Forgotten, exposure
from finfluence.errors import ConfigError, DataError
from finfluence.runs import SGD, Recipe, Rows, each_loss, train

N, PLANTED, ASKED = 60, 6, 3
KIND = np.r_[np.zeros(PLANTED, int), np.ones(N - PLANTED, int)]
PLAIN = np.tile([0.0, 1.0], (ASKED, 1))


def tapes(count, taught=True, steps=15):
    """Return runs in which rows 0 to 5 alone teach the answer to the queries, or teach nothing of it."""
    x = np.random.default_rng(0).normal(size=(N, 2)) * [0.0, 1.0]
    x[:PLANTED] = [1.0, 0.0] if taught else [0.0, 1.0]
    recipe = Recipe(
        data=Rows(x=x, y=np.where(KIND == 0, 1.0, 0.3 * x[:, 1])), model=lambda seed: zeros(), batch_size=N // steps,
        loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, optimizer=SGD(lr=0.3), epochs=1,
    )  # fmt: skip
    return [train(recipe, seed=seed) for seed in range(count)]


def zeros():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def asked(scale=1.0):
    return each_loss(np.column_stack([np.full(ASKED, scale), np.zeros(ASKED)]), np.ones(ASKED))


def test_exposure_counts_the_rows_up_to_the_step_and_history_what_was_seen():
    (tape,) = tapes(1)
    log = EventLog.from_tapes([tape], (asked(), 0.5), rows=range(PLANTED), classes=KIND)
    drawn = np.array([np.asarray(p) for p in tape.order])
    np.testing.assert_array_equal(log.exposure[0], (drawn < PLANTED).sum(1).cumsum())
    np.testing.assert_array_equal(log.history[0, :, 2], log.exposure[0])
    np.testing.assert_allclose(log.history[0, :, 1], 0.3)
    others = tape.losses_of(tape.model(4), np.arange(PLANTED, N)).mean()
    assert log.history[1, 4, 0] == pytest.approx(others)
    assert log.runs.tolist() == [0, 0, 0]


def test_events_are_dated_to_the_state_that_answers_first():
    (tape,) = tapes(1)
    log = EventLog.from_tapes([tape], (asked(), 0.3), rows=range(PLANTED))
    losses = np.array([tape.values(asked(), tape.model(t)) for t in range(tape.steps + 1)])
    first = int(np.argmax(losses[:, 0] < 0.3))
    assert np.flatnonzero(log.events[0]).tolist() == [first - 1]
    assert log.at_risk[0].sum() == first
    by_call = EventLog.from_tapes(
        [tape], lambda model: (model(torch.tensor([[1.0, 0.0]] * ASKED))[:, 0] - 1) ** 2 < 0.3, rows=range(PLANTED)
    )  # fmt: skip
    np.testing.assert_array_equal(by_call.events, log.events)


def test_fewer_times_date_events_to_the_next_of_them():
    (tape,) = tapes(1)
    fine, coarse = (EventLog.from_tapes([tape], (asked(), 0.3), [0, 1], times=t) for t in (64, 5))
    assert fine.events.shape[1] == 15 and coarse.events.shape[1] == 5
    np.testing.assert_array_equal(coarse.exposure[0], fine.exposure[0, 2::3])
    assert np.flatnonzero(coarse.events[0])[0] == np.flatnonzero(fine.events[0])[0] // 3


def test_models_along_a_run_are_those_of_the_single_steps():
    (tape,) = tapes(1)
    for step, model in zip((0, 3, 7, 15), tape.models((0, 3, 7, 15)), strict=True):
        assert torch.equal(model.weight, tape.model(step).weight) and not model.training


@pytest.mark.slow
def test_rows_that_teach_the_answer_bring_it_forward_and_others_do_not():
    runs = tapes(40)
    found = exposure(runs, range(PLANTED), event=(asked(), 0.3))
    assert found.p < 0.01 and "brings the event forward" in str(found) and "40 runs" in str(found)
    assert found.svg().count("<path") > 10 and "no effect" in found.svg()
    nothing = exposure(runs, range(PLANTED, 2 * PLANTED), event=(asked(), 0.3))
    assert nothing.p > 0.05


@pytest.mark.slow
def test_of_tapes_the_same_is_said_as_of_their_log():
    runs, rows = tapes(20), range(PLANTED)
    by_log = exposure(EventLog.from_tapes(runs, (asked(), 0.3), rows, classes=KIND))
    not_yet = Forgotten(lambda m: (m(torch.tensor([[1.0, 0.0]] * ASKED))[:, 0] - 1) ** 2 >= 0.3)
    for event in ((asked(), 0.3), not_yet):
        found = exposure(runs, rows, event=event, classes=KIND)
        np.testing.assert_array_equal(found.gamma, by_log.gamma)


def test_a_single_tape_a_missing_event_and_options_of_tapes_beside_a_log_are_told(monkeypatch):
    (tape,) = tapes(1)
    monkeypatch.setattr(EventLog, "from_tapes", None)  # said before anything is trained again
    with pytest.raises(DataError, match=r"(?s)at least 20 runs\n  got: 1.*fi\.train\(recipe, order_seed=s\)"):
        exposure(tape, [0], event=(asked(), 0.3))
    for given, lacks in (({}, "no rows"), ({"rows": [0]}, "no event")):
        with pytest.raises(ConfigError, match=rf"(?s){lacks}.*a tape records a run.*loss below 0\.25"):
            exposure([tape], **given)
    with pytest.raises(ConfigError, match=r"(?s)neither rows nor event.*exposure\(log\)"):
        exposure(clustered(0), rows=[0])


def clustered(seed, runs=60, queries=10, times=6):
    """Subjects of one run share exposure and chance; the exposure does nothing."""
    rng = np.random.default_rng(seed)
    seen = np.repeat(rng.poisson(1.0, (runs, times)).cumsum(1), queries, 0)
    mood = np.repeat(np.exp(1.5 * rng.normal(size=(runs, 1))), queries, 0)
    happened = rng.random(seen.shape) < np.minimum(0.08 * mood, 0.9)
    at_risk = np.cumsum(happened, 1) - happened == 0
    history = np.zeros((*seen.shape, 1))
    run = np.repeat(np.arange(runs), queries)
    return EventLog(happened & at_risk, at_risk, seen, history, run)


@pytest.mark.slow
def test_queries_of_one_run_are_no_independent_subjects():
    logs = [clustered(seed) for seed in range(6)]
    whole = [exposure(log) for log in logs]
    apart = [exposure(EventLog(v.events, v.at_risk, v.exposure, v.history)) for v in logs]
    assert sum(f.p < 0.1 for f in whole) <= 2 < sum(f.p > 0.2 for f in whole)
    assert np.mean([f.band for f in whole]) > 1.3 * np.mean([f.band for f in apart])
    assert "6 runs" not in str(apart[0]) and "60 runs" in str(whole[0])


def test_few_runs_and_runs_of_other_subjects_are_told():
    log = clustered(0, runs=12)
    with pytest.raises(DataError, match=r"(?s)at least 20 runs.*12.*share the order of rows"):
        exposure(log)
    with pytest.raises(DataError, match="repeat each run's number"):
        exposure(EventLog(log.events, log.at_risk, log.exposure, log.history, log.runs[:5]))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rows": [0, 99]}, DataError, r"(?s)1 unknown of 2, the first is 99.*ids such as 0, 1, 2"),
        ({"rows": []}, DataError, "a selection that came out empty"),
        ({"classes": KIND[:5]}, DataError, "in the order of the tape's rows"),
        ({"event": "right"}, ConfigError, "losses < bound"),
        ({"times": 0}, ConfigError, "at least one time"),
        ({"answered": lambda model: model(torch.ones(3, 2))}, DataError, r"argmax\(1\) == y"),
        ({"tapes": []}, DataError, "no tape"),
    ],
)
def test_bad_requests_are_told(change, error, words):
    given = {"tapes": tapes(1), "answered": (asked(), 0.5), "rows": [0]} | change
    with pytest.raises(error, match=words):
        EventLog.from_tapes(given.pop("tapes"), given.pop("answered"), given.pop("rows"), **given)


def test_tapes_of_other_lengths_are_told():
    with pytest.raises(DataError, match="15 steps of 60 rows, 20 steps of 60 rows"):
        EventLog.from_tapes([*tapes(1), *tapes(1, steps=20)], (asked(), 0.5), [0])
