"""What a step of training and a step back cost on this machine, measured on a few steps of the tape."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch
from torch import Tensor

from finfluence._clock import clock
from finfluence.estimators.derivatives import StepAdjoint
from finfluence.estimators.replay._accumulate import EpochSums
from finfluence.estimators.replay._backward import FEWEST_PROBES, ROWS_AT_ONCE, Plan
from finfluence.estimators.replay._tail import STATES
from finfluence.estimators.replay.cost._memory import Memory
from finfluence.runs import Tape, seeded

REPEATS = 3


@dataclass(frozen=True, eq=False)
class Costs:
    """Seconds of the parts of a replay.

    train : one training step. back : one step of the walk, the queries of one walk at once. late : the same where
    queries are walked beside their means over late states, twice as many at once.
    few, many : of evaluating `FEWEST_PROBES` and `most` rows along the way; the latter is timed when first asked for.
    queries : the gradients of all queries at one state. fixed : spent once, beside the walk, measuring included.
    spent : the part of it that measuring takes. setup : tracing, once a tape.
    """

    train: float
    back: float
    late: float
    few: float
    many: Callable[[], float]
    most: int
    queries: float = 0.0
    fixed: float = 0.0
    spent: float = 0.0
    setup: float = 0.0

    def evaluation(self, rows: int, at_least: bool = False) -> float:
        """Seconds for the slopes of `rows` rows at one step; with `at_least`, a lower bound that times nothing more."""
        parts = -(-rows // ROWS_AT_ONCE)
        if rows <= FEWEST_PROBES or at_least:
            return parts * self.few
        per_row = max(0.0, (self.many() - self.few) / max(1, self.most - FEWEST_PROBES))
        return parts * max(0.0, self.few - per_row * FEWEST_PROBES) + rows * per_row

    def walk(self, tape: Tape, plan: Plan, horizon: int, late: float = 0.0, at_least: bool = False) -> float:
        """Seconds of one walk over the last `horizon` epochs, `late` the share that holds late states."""
        lengths, rows = [len(e) for e in tape.epochs], len(tape.rows)
        total = 0.0
        for back, steps in enumerate(reversed(lengths[-horizon:])):
            count, every = plan.probes(back, rows, steps, len(lengths))
            evaluations = -(-steps // every) if count else 0
            one = self.late if back < math.ceil(late * horizon) else self.back
            total += steps * one
            total += evaluations * self.evaluation(count, at_least) if evaluations else 0.0
        return total

    def runs(
        self, tape: Tape, plan: Plan, horizon: int, memory: Memory, late: float = 0.0, at_least: bool = False
    ) -> float:
        """Cost of a replay in multiples of one training run, without `setup`."""
        steps = sum(len(e) for e in tape.epochs[-horizon:])
        walked = memory.walks * self.walk(tape, plan, horizon, late, at_least)
        averaged = (STATES - 1) * self.queries if late else 0.0
        again = self.train * memory.retaken(steps)
        timing = 0.0 if at_least else self._timing(tape, plan, horizon)
        return (self.fixed + timing + walked + averaged + again) / (
            self.train * sum(len(e) for e in tape.epochs)
        )

    def _timing(self, tape: Tape, plan: Plan, horizon: int) -> float:
        """Seconds that timing many rows takes, where the walk evaluates as many."""
        lengths = [len(e) for e in tape.epochs]
        counts = [
            plan.probes(back, len(tape.rows), steps, len(lengths))[0]
            for back, steps in enumerate(reversed(lengths[-horizon:]))
        ]
        return (1 + REPEATS) * self.many() if max(counts) > FEWEST_PROBES else 0.0


def measure(
    tape: Tape, adjoint: StepAdjoint, start: Tensor, memory: Memory, late: float, queries: float, fixed: float = 0.0
) -> Costs:
    """Time training, walking and evaluating on the first steps of the tape, for queries with gradients `start` [Q, P].

    The median of a few timings counts; measured once for a tape, pass and number of queries.

    Parameters
    ----------
    late : float
        0: nothing is timed beside late states.
    queries, fixed : float
        Seconds already known: of the gradients of all queries, and of all that was done beside the walk.
    """
    key = f"costs {adjoint.differentiation} {memory.together} {len(start)} {late > 0}"
    if key not in tape.memo:
        with seeded(0):
            tape.memo[key] = _Clock(tape, adjoint, start[: memory.together]).costs(late > 0, queries, fixed)
    found: Costs = tape.memo[key]
    return found


class _Clock:
    """Times single steps, and knows how long that took."""

    def __init__(self, tape: Tape, adjoint: StepAdjoint, start: Tensor) -> None:
        self._tape, self._adjoint, self._start = tape, adjoint, start
        self._state = tape.state(0).to(tape.layout.device)
        shape = len(start), 1 + len(tape.optimizer.slots), tape.layout.size
        self._lam = torch.zeros(shape, dtype=start.dtype, device=start.device)
        self._lam[:, 0] = start
        self._sums = EpochSums.zeros(len(tape.rows), 0, len(start), start.device)
        self.setup = self.spent = 0.0

    def costs(self, late: bool, queries: float, fixed: float) -> Costs:
        """Return all costs."""
        tape = self._tape
        most = min(ROWS_AT_ONCE, len(tape.rows))
        back = self.typical(self._back)
        beside = self.typical(self._beside) if late else back
        few = self.typical(self._evaluate(min(FEWEST_PROBES, len(tape.rows))))
        tape.run.set_state(0, self._state)
        train = self.typical(lambda: tape.run.run_step(0), 3 * REPEATS)

        @cache
        def many() -> float:
            with seeded(0):
                return few if most <= FEWEST_PROBES else self.typical(self._evaluate(most))

        return Costs(
            train,
            back,
            max(beside, back),
            few,
            many,
            most,
            queries,
            fixed + self.spent,
            self.spent,
            self.setup,
        )

    def typical(self, call: Callable[[], object], repeats: int = REPEATS) -> float:
        """Return the median seconds of `call`; what its first call took longer is setup."""
        found = []
        for _ in range(1 + repeats):
            began = clock(self._tape.layout.device)
            call()
            found.append(clock(self._tape.layout.device) - began)
        seconds = float(median(found[1:]))
        self.setup += max(0.0, found[0] - seconds)
        self.spent += sum(found[1:]) + min(found[0], seconds)
        return seconds

    def _back(self) -> None:
        step = self._tape.at(0)
        _, slopes, _ = self._adjoint.step(self._state, step.hyper, step.batch, self._lam, step.seed)
        self._sums.add_batch(step.rows.to(slopes.device), step.centred(step.unweighted(slopes)))

    def _beside(self) -> None:
        step = self._tape.at(0)
        twice = torch.cat([self._lam, self._lam])
        self._adjoint.step(self._state, step.hyper, step.batch, twice, step.seed)

    def _evaluate(self, count: int) -> Callable[[], None]:
        tape, start, rows = self._tape, self._start, torch.arange(count)
        theta, seed = self._state[: tape.layout.size], tape.at(0).seed
        probes = EpochSums.zeros(0, count, len(start), start.device)

        def call() -> None:
            slopes = self._adjoint.row_derivatives(theta, start, tape.batch(rows, 0), seed)
            probes.add_probes(slopes, count, 1.0)

        return call
