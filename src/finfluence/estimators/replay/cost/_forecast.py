"""plan: what a training and its replay will take, from a few measured steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from finfluence._clock import clock
from finfluence.estimators.derivatives import Choice, Differentiation, choose_pass
from finfluence.estimators.replay._options import ReplayOptions
from finfluence.estimators.replay._recomputed_states import state_bytes
from finfluence.estimators.replay._schedule import RowSchedule, RunShape
from finfluence.estimators.replay._truncation import truncation_for
from finfluence.estimators.replay.cost._budget import Allocation, allocate
from finfluence.estimators.replay.cost._memory import MemorySplit, StateSizes, bytes_per_query, split_memory
from finfluence.estimators.replay.cost._timing import Timings, Workload, measure
from finfluence.estimators.replay.leave_out import NEGATIVE_CONTROLS, Groups, choose_coupled, coupled_seconds
from finfluence.result import one_of
from finfluence.runs import AnyQuery, Recipe, Tape, check_queries, gradients, seeded, spacing_for
from finfluence.runs.describe import Given, find_subsets
from finfluence.runs.steps import RecipeSteps
from finfluence.runs.tape import final_losses

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
    run: Tape | Recipe,
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
    saved: bool = False,
) -> Forecast:
    """Say beforehand how long a replay will take, how much memory and disk; of a recipe, training too.

    Two training steps, two steps back and two evaluations are timed. Options are those of `train` and `replay`.

    Parameters
    ----------
    run : Tape or Recipe
        A recipe is trained for two steps; nothing is kept of it.
    queries, subsets
        As given to `replay`.
    method, horizon, probe_budget, late, groups, budget, memory_bytes, snapshot_bytes, differentiation
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
    )  # fmt: skip
    return forecast(run, check_queries(queries), subsets, options, saved)


def forecast(
    run: Tape | Recipe, queries: list[AnyQuery], subsets: Given, options: ReplayOptions, saved: bool
) -> Forecast:
    """Return what `plan` does, of options."""
    tape = run if isinstance(run, Tape) else _dry_run(run)
    tape.finish()
    found = find_subsets(tape, subsets)
    shape = RunShape.of(len(tape.rows), tape.epochs)
    dry = _Dry.of(run, tape, queries, options, saved)
    chosen = choose_coupled(options.groups, found.sizes, len(dry.start))
    replicas = max(1, int(options.memory_bytes // bytes_per_query(tape)))
    coupling = coupled_seconds(tape, int(chosen.sum()), replicas, shape.steps)
    workload = Workload(shape, dry.memory, options.late)
    schedule = RowSchedule(options.rows == "full", options.probe_budget if tape.reshuffled else 0.0, 0)
    limit, allocation = truncation_for(options.horizon, run.noise).limit, None
    if options.budget is not None:
        counted = replace(dry.timings, overhead=dry.asking + dry.timings.measuring + coupling)
        allocation = allocate(options.budget, workload, schedule, limit, lambda: counted)
        schedule, limit = allocation.schedule(schedule), allocation.horizon
    training = dry.timings.train * shape.steps
    runs = workload.runs(dry.timings, schedule, limit)
    state, covered = state_bytes(tape.layout, tape.optimizer), shape.last(limit)
    stages = [
        Stage("prepare", dry.seconds, int(dry.start.numel() * dry.start.itemsize), 0),
        Stage(
            "backward",
            runs * training,
            backward_bytes(dry.memory, StateSizes.of(tape), options.late > 0, covered),
            dry.memory.written(covered) * state,
        ),
        *_coupled_stage(coupling, chosen, replicas, bytes_per_query(tape)),
        _result_stage(len(found), len(dry.start)),
    ]
    every = dry.memory.interval
    if isinstance(run, Recipe):
        kept = (-(-shape.steps // every) + 1) * state
        stages.insert(0, Stage("train", training, 0 if saved else kept, kept if saved else 0))
    states = dry.memory.sentence(covered)
    if every > 1:
        states += f"; snapshot_bytes={(shape.steps + 1) * state:,} would keep all"
    return Forecast(
        tuple(stages), training, runs, dry.derivative.name, len(dry.start), len(found), shape.rows, shape.steps,
        every, states, allocation,
    )  # fmt: skip


def backward_bytes(memory: MemorySplit, sizes: StateSizes, tail: bool, steps: int) -> int:
    """Return the bytes of a backward pass over the last `steps` steps."""
    return int(memory.together * sizes.query) * (2 if tail else 1) + memory.held(steps) * sizes.state


@dataclass(frozen=True, eq=False)
class _Dry:
    """What is measured for a forecast, and how long that took.

    Parameters
    ----------
    start : Tensor [Q, P]
        Gradients of the queries.
    derivative : Choice
    memory : MemorySplit
    timings : Timings
    asking : float
        Seconds of the queries' gradients and the final losses.
    seconds : float
        All together.
    """

    start: Tensor
    derivative: Choice
    memory: MemorySplit
    timings: Timings
    asking: float
    seconds: float

    @classmethod
    def of(
        cls, run: Tape | Recipe, tape: Tape, queries: list[AnyQuery], options: ReplayOptions, saved: bool
    ) -> "_Dry":
        """Measure."""
        device, tail = tape.layout.device, options.late > 0
        model, began = tape.model(), clock(tape.layout.device)
        with seeded(0):
            _, start = gradients(queries, model, tape, tape.layout.parameters(model))
            at_one_state = clock(device) - began
            final_losses(tape, model)
        asking = clock(device) - began
        derivative = choose_pass(tape, start, options.differentiation, options.memory_bytes)
        sizes = StateSizes.of(tape)
        if isinstance(run, Recipe):
            steps = sum(len(e) for e in tape.epochs)
            sizes = replace(sizes, interval=spacing_for(steps, sizes.state, options.snapshot_bytes))
        disk = options.snapshot_bytes if saved else 0
        memory = split_memory(sizes, len(start), tail, options.memory_bytes, disk)
        timings = measure(tape, derivative.adjoint, start, memory.together, tail)
        timings = replace(timings, queries=at_one_state, overhead=0.0)
        return cls(start, derivative, memory, timings, asking, clock(device) - began)


def _coupled_stage(seconds: float, chosen: np.ndarray, together: int, each: float) -> list[Stage]:
    """Return the stage of the runs without paired groups, if there are any."""
    if not chosen.any():
        return []
    return [Stage("groups", seconds, min(together, int(chosen.sum()) + NEGATIVE_CONTROLS + 1) * int(each), 0)]


def _result_stage(subsets: int, queries: int) -> Stage:
    """Return the stage of estimates and their file."""
    result = RESULT_FIELDS * 8 * subsets * queries
    return Stage("result", 2e-8 * result, 2 * result, result)


def _dry_run(recipe: Recipe) -> Tape:
    """Return a tape of the recipe's first steps, which knows of all its epochs."""
    run = RecipeSteps(recipe, 0, 0)
    run.count = min(DRY_STEPS, recipe.steps)
    tape = Tape(run, 1, None)
    with seeded(0):
        for t in range(run.count):
            tape.snapshots.append(run.read_into)
            tape.snapshots.losses.append(run.take(t))
    tape.snapshots.append(run.read_into)
    return tape


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
