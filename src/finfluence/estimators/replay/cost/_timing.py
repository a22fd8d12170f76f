"""What a step of training and a step back take on this machine, measured on a few steps of the tape."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch
from torch import Tensor

from finfluence._clock import clock
from finfluence.estimators.derivatives import Known, StepAdjoint, dear
from finfluence.estimators.replay._accumulate import EpochSums
from finfluence.estimators.replay._finite_change import EARLY, FURTHER, FiniteChanges, Place
from finfluence.estimators.replay._schedule import (
    FEWEST_SAMPLED,
    ROWS_AT_ONCE,
    RowSchedule,
    RunShape,
    steps_stood_for,
)
from finfluence.estimators.replay._tail import STATES
from finfluence.estimators.replay.cost._memory import MemorySplit
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import Key, affordable_rows

REPEATS = 3
FEW_EPOCHS = 5
FIRST_BYTES = 2**30  # of a replay, by default: finite changes are held in a quarter of it


@dataclass(frozen=True, eq=False)
class Timings:
    """Seconds of the parts of a replay.

    Parameters
    ----------
    train : float
        One training step.
    back : float
        One step of the backward pass, its queries at once.
    tail : float
        The same where queries are followed beside their means over the tail, twice as many at once.
    few : float
        Evaluating `FEWEST_SAMPLED` rows along the way.
    many : callable
        Evaluating `most` rows; timed when first asked for.
    most : int
    first : callable
        Judging an early step by the finite changes of few rows, and taking those of all of its rows; timed when first
        asked for.
    batch : int
        Rows of these steps.
    queries : float
        The gradients of all queries at one state.
    overhead : float
        Spent once, beside the backward pass, measuring included.
    measuring : float
        The part of it that measuring takes.
    tracing : float
        Once a tape.
    """

    train: float
    back: float
    tail: float
    few: float
    many: Callable[[], float]
    most: int
    first: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)
    batch: int = 1
    queries: float = 0.0
    overhead: float = 0.0
    measuring: float = 0.0
    tracing: float = 0.0

    def evaluation(self, rows: int, at_least: bool = False) -> float:
        """Seconds for the slopes of `rows` rows at one step; with `at_least`, a lower bound that times nothing more."""
        parts = -(-rows // ROWS_AT_ONCE)
        if rows <= FEWEST_SAMPLED or at_least:
            return parts * self.few
        per_row = max(0.0, (self.many() - self.few) / max(1, self.most - FEWEST_SAMPLED))
        return parts * max(0.0, self.few - per_row * FEWEST_SAMPLED) + rows * per_row

    def first_steps(self, steps: int, epochs: int, sampled: int) -> float:
        """Seconds for the finite changes of a run's first steps, and of `sampled` further rows at them.

        All of these steps are judged, and the changes of the first one taken; of the others where they matter to what a
        row does in all epochs, the less likely the more these are.

        Returns
        -------
        float
        """
        judging, taking = self.first()
        looked, likely = min(steps, EARLY), min(1.0, FEW_EPOCHS / epochs)
        return (
            looked * judging + (1 + (looked - 1) * likely) * taking + likely * sampled * taking / self.batch
        )


@dataclass(frozen=True)
class Workload:
    """What a replay is made of.

    Parameters
    ----------
    shape : RunShape
    memory : MemorySplit
        Queries of one pass, and where states come from.
    late : float
        Share of the pass that holds averaged states.
    candidates : int
        Rows whose addition is asked about.
    equal_draws : bool
        Whether all rows may be evaluated: that takes every row to be drawn as often as any other.
    """

    shape: RunShape
    memory: MemorySplit
    late: float = 0.0
    candidates: int = 0
    equal_draws: bool = True

    def pass_seconds(
        self, timings: Timings, schedule: RowSchedule, horizon: int, at_least: bool = False
    ) -> float:
        """Seconds of one backward pass over the last `horizon` epochs."""
        total, lengths = 0.0, self.shape.epochs[-horizon:]
        tail = math.ceil(self.late * horizon) + 1 if self.late else 0
        evaluated = schedule.evaluations(self.shape, horizon)
        for back, (steps, (rows, times)) in enumerate(zip(reversed(lengths), evaluated, strict=True)):
            one = timings.tail if back < tail else timings.back
            total += steps * one
            total += times * timings.evaluation(rows, at_least) if times else 0.0
            if self.candidates:
                often = len(schedule.candidate_steps(back, range(steps)))
                total += often * timings.evaluation(self.candidates, at_least)
        if self._meets_first(schedule, horizon) and not at_least:
            total += timings.first_steps(
                self.shape.steps, len(self.shape.epochs), self._sampled_early(schedule)
            )
        return total

    def _meets_first(self, schedule: RowSchedule, horizon: int) -> bool:
        """Whether a pass takes finite changes of the run's first steps."""
        return schedule.finite and self.shape.last(horizon) == self.shape.steps

    def _sampled_early(self, schedule: RowSchedule) -> int:
        """Return the evaluations, beside the batches' own, of rows at the first steps."""
        steps, back = self.shape.epochs[0], len(self.shape.epochs) - 1
        rows, every = schedule.variance_sample(back, self.shape)
        early = range(min(EARLY, steps))
        along = rows * sum(steps_stood_for(t, every, steps) > 0 for t in early) if rows else 0
        if self.candidates:
            drawn = schedule.candidate_steps(0, range(steps))
            along += self.candidates * sum(t in drawn for t in early)
        return along

    def runs(self, timings: Timings, schedule: RowSchedule, horizon: int, at_least: bool = False) -> float:
        """Cost of a replay in multiples of one training run, without tracing."""
        passes = self.memory.passes * self.pass_seconds(timings, schedule, horizon, at_least)
        averaged = (STATES - 1) * timings.queries if self.late else 0.0
        again = timings.train * self.memory.recomputed(self.shape.last(horizon))
        measuring = 0.0 if at_least else self._timing_more(timings, schedule, horizon)
        return (timings.overhead + measuring + passes + averaged + again) / (timings.train * self.shape.steps)

    def _timing_more(self, timings: Timings, schedule: RowSchedule, horizon: int) -> float:
        """Seconds that timing many rows, and the first steps, takes, where the pass evaluates them."""
        most = max(rows for rows, _ in schedule.evaluations(self.shape, horizon))
        many = (1 + REPEATS) * timings.many() if max(most, self.candidates) > FEWEST_SAMPLED else 0.0
        return many + (sum(timings.first()) if self._meets_first(schedule, horizon) else 0.0)


@dataclass(frozen=True)
class _StepTimings(Key[Timings]):
    """All that the time of a step depends on: what its derivatives are made of, and along how many directions."""

    differentiation: str
    together: int
    tail: bool


def measure(tape: Tape, adjoint: StepAdjoint, start: Tensor, together: int, tail: bool) -> Timings:
    """Time training, stepping back and evaluating on the first steps of the tape.

    The median of a few timings counts; measured once for a tape, kind of derivatives and number of queries.

    Parameters
    ----------
    tape : Tape
    adjoint : StepAdjoint
    start : Tensor [Q, P]
        Gradients of the queries.
    together : int
        Queries of one backward pass.
    tail : bool
        Whether steps back over averaged states are timed, too.

    Returns
    -------
    Timings
        Without queries; `overhead` is what measuring took.
    """

    def timed() -> Timings:
        with seeded(0):
            return StepTimer(tape, adjoint, start[:together]).timings(tail)

    return tape.cache.get(_StepTimings(adjoint.differentiation, together, tail), timed)


class StepTimer:
    """Times single steps, and knows how long that took."""

    def __init__(self, tape: Tape, adjoint: StepAdjoint, start: Tensor) -> None:
        self._tape, self._adjoint, self._start = tape, adjoint, start
        self._state = tape.state(0).to(tape.layout.device)
        self._known = Known(tape.state(1).to(tape.layout.device), tape.row_losses(0))
        shape = len(start), 1 + len(tape.optimizer.slots), tape.layout.size
        self._lam = torch.zeros(shape, dtype=start.dtype, device=start.device)
        self._lam[:, 0] = start
        self._sums = EpochSums.zeros(len(tape.rows), 0, len(start), start.device)
        self.tracing = self.measuring = 0.0

    def timings(self, tail: bool) -> Timings:
        """Return all timings."""
        tape = self._tape
        most = min(ROWS_AT_ONCE, len(tape.rows))
        tape.run.set_state(0, self._state)
        parts = [
            lambda: tape.run.run_step(0),
            self._back,
            self._evaluate(min(FEWEST_SAMPLED, len(tape.rows))),
        ]
        train, back, few, *doubled = self.typical(*parts, *([self._back_with_tail] if tail else []))

        @cache
        def many() -> float:
            with seeded(0):
                return few if most <= FEWEST_SAMPLED else self.typical(self._evaluate(most))[0]

        @cache
        def first() -> tuple[float, float]:
            with seeded(0):
                return self._first_step()

        return Timings(
            train,
            back,
            max([back, *doubled]),
            few,
            many,
            most,
            first,
            len(tape.at(0).rows),
            overhead=self.measuring,
            measuring=self.measuring,
            tracing=self.tracing,
        )

    def typical(self, *calls: Callable[[], object]) -> list[float]:
        """Return the median seconds of each of some calls; what its first one took longer is tracing.

        They take turns, so that what else the machine does meanwhile takes the same share of all of them.

        Returns
        -------
        list of float
        """
        found: list[list[float]] = [[] for _ in calls]
        for _ in range(1 + REPEATS):
            for taken, call in zip(found, calls, strict=True):
                began = clock(self._tape.layout.device)
                call()
                taken.append(clock(self._tape.layout.device) - began)
        usual = [float(median(taken[1:])) for taken in found]
        for taken, seconds in zip(found, usual, strict=True):
            self.tracing += max(0.0, taken[0] - seconds)
            self.measuring += sum(taken[1:]) + min(taken[0], seconds)
        return usual

    def _back(self) -> None:
        step = self._tape.at(0)
        _, slopes, _ = self._adjoint.step(
            self._state, step.hyper, step.batch, self._lam, step.seed, self._known
        )
        self._sums.add_batch(step.rows.to(slopes.device), step.centred(step.unweighted(slopes)))

    def _back_with_tail(self) -> None:
        step = self._tape.at(0)
        twice = torch.cat([self._lam, self._lam])
        self._adjoint.step(self._state, step.hyper, step.batch, twice, step.seed, self._known)

    def _first_step(self) -> tuple[float, float]:
        """Return the seconds that judging step 0 by few rows takes, and those of the changes of all of its rows."""
        tape, changes = self._tape, FiniteChanges(self._tape, FIRST_BYTES)
        if not changes.looks_at(0):
            return 0.0, 0.0
        step, ahead = tape.at(0), [self._lam] * (1 + min(FURTHER, tape.steps - 1))
        tangent = self._lam.new_zeros(len(self._lam), len(step.rows))  # so far off that changes are taken
        judging = taking = 0.0
        for _ in range(1 if dear(tape) else 2):  # the first one loads what it needs
            began = clock(tape.layout.device)
            found = changes.at(Place(0, step, self._state, ahead), tangent, tangent.new_zeros(len(tangent)))
            judged = clock(tape.layout.device)
            if found is not None:
                found.of_batch(tangent)
            judging, taking = judged - began, clock(tape.layout.device) - judged
        return judging, taking

    def _evaluate(self, count: int) -> Callable[[], None]:
        tape, start = self._tape, self._start
        parts = torch.arange(count).split(affordable_rows(tape, count))
        theta, seed = self._state[: tape.layout.size], tape.at(0).seed
        sample = EpochSums.zeros(0, count, len(start), start.device)

        def call() -> None:
            batches = (tape.batch(part, 0) for part in parts)
            slopes = [self._adjoint.row_derivatives(theta, start, batch, seed) for batch in batches]
            sample.add_sample(torch.cat(slopes, 1), count, 1.0)

        return call
