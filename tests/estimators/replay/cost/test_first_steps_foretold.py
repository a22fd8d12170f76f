"""What the finite changes of a run's first steps cost is known beforehand: to a budget, a plan and a count."""

import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.estimators.derivatives import choose_adjoint
from finfluence.estimators.replay import Replay, ReplayOptions, RowSchedule, RunShape
from finfluence.estimators.replay.cost import MemorySplit, RunCosts, Timings, Workload, measure, plan

ONE_PASS = MemorySplit(together=1, passes=1, capacity=1, interval=1)
FINITE = RowSchedule(False, 0.0, 0, finite=True)


def tape_of(optimizer: object = None) -> fr.Tape:
    optimizer = fr.AdamW(lr=0.01, eps=1e-3) if optimizer is None else optimizer
    return fi.train(pt.recipe(data=pt.table(60), optimizer=optimizer, batch_size=6, epochs=3))


def timed(first: object) -> Timings:
    return Timings(1.0, 2.0, 2.0, 0.5, lambda: 0.5, 64, first=first, batch=6)


def never() -> tuple[float, float]:
    raise AssertionError


def test_a_pass_to_the_first_step_judges_five_steps_and_takes_the_changes_of_few_in_long_runs() -> None:
    """3 s to judge a step and 7 s to take its changes: at all five in three epochs, at 1 + 4/2 of ten in ten epochs."""
    for epochs, taken in ((3, 5), (10, 3)):
        work = Workload(RunShape(60, (10,) * epochs), ONE_PASS)
        timings = timed(lambda: (3.0, 7.0))
        plain = work.pass_seconds(timings, RowSchedule(False, 0.0, 0), epochs)
        assert work.pass_seconds(timings, FINITE, epochs) - plain == pytest.approx(5 * 3.0 + taken * 7.0)
    work = Workload(RunShape(60, (10, 10, 10)), ONE_PASS)
    assert work.runs(timings, FINITE, 3) == pytest.approx((30 * 2.0 + 15.0 + 35.0 + 10.0) / 30), "timing, too"


def test_rows_of_the_variance_sample_at_the_first_steps_are_counted() -> None:
    """Ten steps an epoch, two of them evaluated by 12 rows each: the one at offset 2 is an early one."""
    work = Workload(RunShape(60, (10, 10, 10)), ONE_PASS)
    sampled = RowSchedule(False, 0.05, 0, finite=True, fewest=12)
    rows, every = sampled.variance_sample(2, work.shape)
    early = rows * sum(t % every == every // 2 for t in range(5))
    more = [
        work.pass_seconds(timed(lambda f=f: (0.0, f)), sampled, 3)  # type: ignore[misc]
        for f in (0.0, 6.0)
    ]
    assert early > 0 and more[1] - more[0] == pytest.approx(5 * 6.0 + early * 6.0 / 6)


def test_nothing_is_timed_where_the_first_step_is_not_reached() -> None:
    work = Workload(RunShape(60, (10, 10, 10)), ONE_PASS)
    assert work.runs(timed(never), FINITE, 2) == pytest.approx(20 * 2.0 / 30)
    assert work.runs(timed(never), FINITE, 3, at_least=True) == pytest.approx(30 * 2.0 / 30)
    with pytest.raises(AssertionError):
        work.runs(timed(never), FINITE, 3)


def test_they_are_timed_on_the_tape() -> None:
    tape = tape_of()
    start = torch.ones(1, tape.layout.size, dtype=tape.layout.dtype)
    alone, further = measure(tape, choose_adjoint(tape, start).adjoint, start, 1, False).first()
    assert alone > 0 and further > 0


def test_counted_evaluations_hold_them_for_adam_alone() -> None:
    """Five steps of six rows, each row by itself; three rows followed for two batches of six, at three of them."""
    assert RunCosts((6.0,) * 30, bent=True).first_rows == 5 * 6 + 3 * 2 * 3 * 6
    assert RunCosts((6.0,) * 30).first_rows == 0
    query = fr.own_loss([0])
    for optimizer, rows in ((fr.AdamW(lr=0.01), 138), (fr.SGD(lr=0.1), 0)):
        tape = tape_of(optimizer)
        finite, tangent = (
            Replay(ReplayOptions(first_steps=how)).cost(tape, query).trainings
            for how in ("finite", "tangent")
        )
        assert (finite - tangent) * 180 == pytest.approx(rows)


def test_a_plan_counts_them() -> None:
    """Timed once for a tape, so that the difference between two horizons is theirs and that of one epoch."""
    tape, query = tape_of(), fr.own_loss([0])
    two, three = (plan(tape, query, horizon=h, late=0.0, spread=False).runs for h in (2, 3))
    assert three - two > 0.9 * two / 2
