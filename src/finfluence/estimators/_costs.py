"""What a step of training and a step back cost on this machine, measured on a few steps of the tape."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from finfluence.estimators._accumulate import EpochSums
from finfluence.estimators._choose_pass import Pass
from finfluence.estimators._walk import FEWEST_PROBES, ROWS_AT_ONCE, Plan
from finfluence.runs import Tape, seeded

REPEATS = 7


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a replay; `setup` is spent once a tape (tracing), the rest again and again.

    train : one training step. back : one step of the walk, `together` queries at once. late : the same where queries
    are walked beside their means over late states, twice as many at once.
    fixed, per_row : of evaluating rows along the way, for as many queries: fixed + per_row · rows.
    """

    train: float
    back: float
    late: float
    fixed: float
    per_row: float
    setup: float
    together: int

    def evaluation(self, rows: int) -> float:
        """Seconds for the slopes of `rows` rows at one step."""
        parts = -(-rows // ROWS_AT_ONCE)
        return parts * self.fixed + rows * self.per_row

    def walk(self, tape: Tape, plan: Plan, horizon: int, late: float = 0.0) -> float:
        """Seconds of one walk over the last `horizon` epochs, `late` the share that holds late states."""
        lengths, rows = [len(e) for e in tape.epochs], len(tape.rows)
        total = 0.0
        for back, steps in enumerate(reversed(lengths[-horizon:])):
            count, every = plan.probes(back, rows, steps, len(lengths))
            evaluations = -(-steps // every) if count else 0
            again = self.train if tape.every > 1 else 0.0
            one = self.late if back < math.ceil(late * horizon) else self.back
            total += steps * (one + again) + evaluations * self.evaluation(count)
        return total

    def runs(self, tape: Tape, plan: Plan, horizon: int, queries: int, late: float = 0.0) -> float:
        """Cost of a replay in multiples of one training run, without `setup`."""
        walks = -(-queries // self.together)
        return walks * self.walk(tape, plan, horizon, late) / (self.train * sum(len(e) for e in tape.epochs))


def bytes_per_query(tape: Tape) -> float:
    """Estimate a walk's memory for each further query: states, running sums, and tangents of all activations."""
    if "bytes per query" not in tape.memo:
        tape.memo["bytes per query"] = _bytes_per_query(tape)
    return float(tape.memo["bytes per query"])


def _bytes_per_query(tape: Tape) -> float:
    held: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        held.append(tensor.numel() * tensor.itemsize)
        return tensor

    with seeded(0), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tape.step_loss(tape.working, tape.at(0).batch)
    activations = 4 * sum(held)
    states = 6 * (1 + len(tape.optimizer.slots)) * tape.layout.size * tape.layout.dtype.itemsize
    sums = 8 * 8 * len(tape.rows)
    return float(activations + states + sums)


def measure(tape: Tape, adjoint: Pass, start: Tensor, memory_bytes: float) -> Costs:
    """Time training, walking and evaluating on the first steps of the tape, for queries with gradients `start` [Q, P].

    The median of `REPEATS` timings counts; measured once for a tape, pass and number of queries.
    """
    together = min(len(start), max(1, int(memory_bytes // bytes_per_query(tape))))
    key = f"costs {adjoint.differentiation} {together}"
    if key not in tape.memo:
        with seeded(0):
            tape.memo[key] = _measure(tape, adjoint, start[:together])
    found: Costs = tape.memo[key]
    return found


def _measure(tape: Tape, adjoint: Pass, start: Tensor) -> Costs:
    step, state = tape.at(0), tape.state(0).to(tape.layout.device)
    lam = torch.zeros(
        len(start), 1 + len(tape.optimizer.slots), tape.layout.size, dtype=start.dtype, device=start.device
    )
    lam[:, 0] = start
    theta, run = state[: tape.layout.size], tape._run
    n = len(tape.rows)
    few, many = torch.arange(min(FEWEST_PROBES, n)), torch.arange(min(ROWS_AT_ONCE, n))
    sums = EpochSums.zeros(n, 0, len(start), start.device)

    def train() -> None:
        run.take(0)

    def back() -> None:
        step = tape.at(0)
        _, slopes, _ = adjoint.step(state, step.hyper, step.batch, lam, step.seed)
        sums.add_batch(step.rows.to(slopes.device), step.centred(step.unweighted(slopes)))

    def beside() -> None:
        adjoint.step(state, step.hyper, step.batch, torch.cat([lam, lam]), step.seed)

    def evaluate(rows: Tensor) -> Callable[[], None]:
        probes = EpochSums.zeros(0, len(rows), len(start), start.device)

        def call() -> None:
            slopes = adjoint.slopes(theta, start, tape.batch(rows, 0), step.seed)
            probes.add_probes(slopes, len(rows), 1.0)

        return call

    run.load(0, state)
    began = time.perf_counter()
    back()
    beside()
    evaluate(few)()
    evaluate(many)()
    _wait(tape)
    first = time.perf_counter() - began
    train()
    seconds = {name: _typical(tape, call) for name, call in _named(back, beside, train)}
    at_few, at_many = _typical(tape, evaluate(few)), _typical(tape, evaluate(many))
    per_row = max(0.0, (at_many - at_few) / max(1, len(many) - len(few)))
    fixed = max(0.0, at_few - per_row * len(few))
    setup = max(0.0, first - seconds["back"] - seconds["beside"] - at_few - at_many)
    return Costs(
        seconds["train"],
        seconds["back"],
        max(seconds["beside"], seconds["back"]),
        fixed,
        per_row,
        setup,
        len(start),
    )


def _named(*calls: Callable[[], None]) -> list[tuple[str, Callable[[], None]]]:
    return [(call.__name__, call) for call in calls]


def _typical(tape: Tape, call: Callable[[], None]) -> float:
    found = []
    for _ in range(REPEATS):
        _wait(tape)
        began = time.perf_counter()
        call()
        _wait(tape)
        found.append(time.perf_counter() - began)
    return float(median(found))


def _wait(tape: Tape) -> None:
    if tape.layout.device.type == "cuda":
        torch.cuda.synchronize(tape.layout.device)
