"""plan: what a training and its replay will take, from a few measured steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from finfluence._clock import clock
from finfluence.estimators.derivatives import Choice, Differentiation, choose_adjoint
from finfluence.estimators.replay._asked import AskedQueries, gradient_bytes
from finfluence.estimators.replay._finite_change import first_step_bytes
from finfluence.estimators.replay._options import ReplayOptions
from finfluence.estimators.replay._recomputed_states import state_bytes
from finfluence.estimators.replay._schedule import RowSchedule, RunShape
from finfluence.estimators.replay._tail import STATES, tail_bytes, tail_steps
from finfluence.estimators.replay._truncation import truncation_for
from finfluence.estimators.replay.cost._budget import Allocation, allocate
from finfluence.estimators.replay.cost._memory import (
    SUMS_PER_ROW,
    MemorySplit,
    StateSizes,
    bytes_per_query,
    fitted_memory,
    row_bytes,
    step_bytes,
)
from finfluence.estimators.replay.cost._peak import PeakMemory
from finfluence.estimators.replay.cost._timing import Timings, Workload, measure
from finfluence.estimators.replay.leave_out import NEGATIVE_CONTROLS, Groups, choose_coupled, coupled_seconds
from finfluence.result import one_of
from finfluence.runs import (
    AnyQuery,
    Recipe,
    Tape,
    TapeRecorder,
    check_queries,
    dry_run,
    finished,
    interval_for,
)
from finfluence.runs.describe import Given, find_subsets

DRY_STEPS = 2
RESULT_FIELDS = 8


@dataclass(frozen=True)
class Stage:
    """One part of the work.

    Parameters
    ----------
    name : str
    seconds : float
    memory_bytes : int
        Beside the model, the data and torch itself.
    disk_bytes : int
    """

    name: str
    seconds: float
    memory_bytes: int
    disk_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.name:<10s} {_time(self.seconds):>9s}  memory {_size(self.memory_bytes):>9s}"
            f"  disk {_size(self.disk_bytes):>9s}"
        )


@dataclass(frozen=True, repr=False)
class Forecast:
    """What `train` and `replay` will take on this machine; made by `plan`.

    Attributes
    ----------
    stages : tuple of Stage
        "train" (of a recipe only), "prepare" (query gradients, tracing, timing), "backward" (the backward passes, with
        averaged states, and states recomputed), "groups" (runs without those that are paired; if there are any),
        "result".
    training_seconds : float
        One plain training run.
    runs : float
        Cost of the backward passes in multiples of one training run.
    differentiation : str
        How replay will differentiate the steps.
    queries, subsets, rows, steps : int
    states_every : int
        Interval of the states that the tape keeps.
    states : str
        Where the others come from, in words.
    allocation : Allocation or None
        What a budget was turned into.
    """

    stages: tuple[Stage, ...]
    training_seconds: float
    runs: float
    differentiation: str
    queries: int
    subsets: int
    rows: int
    steps: int
    states_every: int
    states: str
    allocation: Allocation | None

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory_bytes(self) -> int:
        """The most that is held at one time: the tape's states, and the dearest stage."""
        kept = sum(s.memory_bytes for s in self.stages if s.name == "train")
        return kept + max(s.memory_bytes for s in self.stages if s.name != "train")

    @property
    def disk_bytes(self) -> int:
        """All that is written."""
        return sum(stage.disk_bytes for stage in self.stages)

    def __repr__(self) -> str:
        head = (
            f"{self.subsets:,} subsets × {self.queries:,} queries, {self.rows:,} rows, {self.steps:,} steps: about "
            f"{_time(self.seconds)}, {_size(self.memory_bytes)} of memory, {_size(self.disk_bytes)} on disk"
        )
        lines = [head, *(f"  {stage}" for stage in self.stages)]
        lines.append(
            f"  the backward passes cost {self.runs:.2g} training runs ({self.differentiation} derivatives); "
            f"{self.states}"
        )
        if self.allocation is not None:
            lines.append(f"  {self.allocation.sentence}")
        return "\n".join(lines)


def plan(
    run: Tape | TapeRecorder | Recipe,
    queries: Sequence[AnyQuery] | AnyQuery,
    subsets: Given = None,
    *,
    method: Literal["online", "full"] = "online",
    horizon: int | Literal["auto"] = "auto",
    probe_budget: float = 0.25,
    late: float = 0.1,
    groups: Groups = "auto",
    budget: float | None = None,
    memory_bytes: int = 2**30,
    snapshot_bytes: int = 2**30,
    differentiation: Differentiation = "auto",
    spread: bool = True,
    saved: bool = False,
) -> Forecast:
    """Say beforehand how long a replay will take, how much memory and disk; of a recipe, training too.

    Two training steps, two steps back and two evaluations are timed. Options are those of `train` and `replay`.

    Parameters
    ----------
    run : Tape, TapeRecorder or Recipe
        A recipe is trained for two steps; nothing is kept of it.
    queries, subsets
        As given to `replay`.
    method, horizon, probe_budget, late, groups, budget, memory_bytes, snapshot_bytes, differentiation, spread
        As given to `replay`. The horizon "auto" is counted as all epochs: replay may stop earlier.
    saved : bool
        Whether `train(out=…)` and `replay(out=…)` write states to disk; otherwise they stay in memory.

    Returns
    -------
    Forecast
        In words by `repr`. Within a factor of two if nothing else loads the machine.

    Raises
    ------
    ConfigError, DataError, NotSupportedError
        As `replay`.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Rows, own_loss
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=20)
    >>> forecast = plan(recipe, own_loss([0, 1]))
    >>> [stage.name for stage in forecast.stages], forecast.steps
    (['train', 'prepare', 'backward', 'result'], 40)
    """
    one_of(method, ("online", "full"), "method")
    options = ReplayOptions(
        rows=method, horizon=horizon, probe_budget=probe_budget, late=late, groups=groups, budget=budget,
        memory_bytes=memory_bytes, snapshot_bytes=snapshot_bytes, differentiation=differentiation,
        spread=spread,
    )  # fmt: skip
    source = run if isinstance(run, Recipe) else finished(run)
    return forecast(source, check_queries(queries), subsets, options, saved)


def forecast(
    run: Tape | Recipe, queries: list[AnyQuery], subsets: Given, options: ReplayOptions, saved: bool
) -> Forecast:
    """Return what `plan` does, of options."""
    tape = run if isinstance(run, Tape) else dry_run(run, DRY_STEPS)
    found = find_subsets(tape, subsets)
    shape = RunShape.of(len(tape.rows), tape.epochs)
    dry = _Dry.of(run, tape, queries, options, saved)
    chosen = choose_coupled(options.groups, found.sizes, len(dry.asked))
    replicas = max(1, int(options.memory_bytes // bytes_per_query(tape)))
    coupling = coupled_seconds(tape, int(chosen.sum()), replicas, shape.steps)
    workload = Workload(shape, dry.memory, options.late, equal_draws=tape.equal_draws)
    schedule = RowSchedule.asked(tape, options)
    limit, allocation = truncation_for(options.horizon, run.noise).limit, None
    if options.budget is not None:
        counted = replace(dry.timings, overhead=dry.asking + dry.timings.measuring + coupling)
        allocation = allocate(options.budget, workload, schedule, limit, lambda: counted)
        schedule, limit = allocation.schedule(schedule), allocation.horizon
    training = dry.timings.train * shape.steps
    runs = workload.runs(dry.timings, schedule, limit)
    state, covered = state_bytes(tape.layout, tape.optimizer), shape.last(limit)
    stages = [
        Stage("prepare", dry.seconds, dry.checked + dry.memory.together * gradient_bytes(tape), 0),
        Stage(
            "backward",
            runs * training,
            dry.pass_bytes(tape, schedule, has_tail(tape, options), limit),
            dry.memory.written(covered) * state,
        ),
        *_coupled_stage(coupling, chosen, replicas, bytes_per_query(tape)),
        _result_stage(len(found), len(dry.asked)),
    ]
    every = dry.memory.interval
    if isinstance(run, Recipe):
        kept = (-(-shape.steps // every) + 1) * state
        stages.insert(0, Stage("train", training, 0 if saved else kept, kept if saved else 0))
    states = dry.memory.sentence(covered)
    if every > 1:
        states += f"; snapshot_bytes={(shape.steps + 1) * state:,} would keep all"
    return Forecast(
        tuple(stages), training, runs, dry.derivative.name, len(dry.asked), len(found), shape.rows, shape.steps,
        every, states, allocation,
    )  # fmt: skip


def backward_bytes(memory: MemorySplit, sizes: StateSizes, tail: bool, steps: int) -> int:
    """Return the bytes of a backward pass over the last `steps` steps."""
    each = 2 * sizes.query + sizes.late if tail else sizes.query
    return int(memory.together * each) + memory.held(steps) * sizes.state


def has_tail(tape: Tape, options: ReplayOptions) -> bool:
    """Whether a replay follows queries beside their means over several states."""
    shape = RunShape.of(len(tape.rows), tape.epochs)
    covered = shape.last(truncation_for(options.horizon, tape.noise).limit)
    return options.spread and len(tail_steps(shape.steps, covered, options.late)) > 1


@dataclass(frozen=True, eq=False)
class _Dry:
    """What is measured for a forecast, and how long that took.

    Parameters
    ----------
    asked : AskedQueries
    derivative : Choice
    checked, copies : int
        Bytes of asking and checking, and what stays of them: working copies of the model.
    memory : MemorySplit
    timings : Timings
    asking : float
        Seconds of the queries' gradients and the final losses.
    seconds : float
        All together.
    """

    asked: AskedQueries
    derivative: Choice
    checked: int
    copies: int
    memory: MemorySplit
    timings: Timings
    asking: float
    seconds: float

    @classmethod
    def of(
        cls, run: Tape | Recipe, tape: Tape, queries: list[AnyQuery], options: ReplayOptions, saved: bool
    ) -> "_Dry":
        """Measure."""
        device, tail = tape.layout.device, has_tail(tape, options)
        began = clock(device)
        with PeakMemory() as counted:
            model = tape.model()
            asked = AskedQueries.of(tape, queries, model, options.memory_bytes)
            asking = clock(device) - began
            derivative = choose_adjoint(
                tape, asked.first, options.differentiation, options.memory_bytes, queries=len(asked)
            )
        copies = max(0, counted.held - asked.bytes_held)
        sizes = StateSizes.of(tape)
        if isinstance(run, Recipe):
            steps = sum(len(e) for e in tape.epochs)
            sizes = replace(sizes, interval=interval_for(steps, sizes.state, options.snapshot_bytes))
        disk = options.snapshot_bytes if saved else 0
        memory = fitted_memory(tape, derivative, sizes, len(asked), tail, options.memory_bytes, disk)
        start = asked.gradients(range(memory.together))
        timings = measure(tape, derivative.adjoint.for_timing(), start, memory.together, tail)
        timings = replace(timings, queries=asked.seconds, overhead=0.0)
        return cls(asked, derivative, counted.peak, copies, memory, timings, asking, clock(device) - began)

    def pass_bytes(self, tape: Tape, schedule: RowSchedule, tail: bool, horizon: int) -> int:
        """Return the bytes of the backward pass: its dearest moment, what it keeps, and the states it holds."""
        queries, shape = self.memory.together, RunShape.of(len(tape.rows), tape.epochs)
        directions, state = queries * (2 if tail else 1), state_bytes(tape.layout, tape.optimizer)
        adjoint = self.derivative.adjoint
        late, compared = tail_bytes(tape.layout.size, tape.layout.dtype.itemsize, STATES if tail else 1)
        moments = [step_bytes(tape, adjoint.fresh(), directions)]
        counts = {min(rows, self.memory.rows_at_once) for rows, _ in schedule.evaluations(shape, horizon)}
        along = directions if schedule.full else queries
        moments += [directions * state + row_bytes(tape, adjoint.fresh(), along, n) for n in counts if n]
        moments.append(queries * (state + 8 * tape.layout.size) + compared)
        moments.append((queries + directions) * state)
        if (
            self.derivative.one_by_one
        ):  # held against double precision again on the way, beside λ before and after
            moments.append(2 * directions * state + self.checked - self.copies)
        if shape.last(horizon) == shape.steps:
            rows = max([*counts, len(tape.order[0])])
            moments.append(first_step_bytes(tape, rows, directions, self.memory.whole))
        held = (
            queries * (8 * SUMS_PER_ROW * shape.rows + late) + self.memory.held(shape.last(horizon)) * state
        )
        return self.copies + max(moments) + held


def _coupled_stage(seconds: float, chosen: np.ndarray, together: int, each: float) -> list[Stage]:
    """Return the stage of the runs without paired groups, if there are any."""
    if not chosen.any():
        return []
    return [Stage("groups", seconds, min(together, int(chosen.sum()) + NEGATIVE_CONTROLS + 1) * int(each), 0)]


def _result_stage(subsets: int, queries: int) -> Stage:
    """Return the stage of estimates and their file."""
    result = RESULT_FIELDS * 8 * subsets * queries
    return Stage("result", 2e-8 * result, 2 * result, result)


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def _size(count: float) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
