"""plan: what a training and its replay will take, from a few measured steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from finfluence._clock import clock
from finfluence.estimators.derivatives import Differentiation, choose_adjoint
from finfluence.estimators.replay._backward import Plan
from finfluence.estimators.replay._recomputed_states import state_bytes
from finfluence.estimators.replay._truncation import horizon_for
from finfluence.estimators.replay.cost._budget import Settings, settings_for
from finfluence.estimators.replay.cost._memory import bytes_per_query, share_memory
from finfluence.estimators.replay.cost._timing import measure
from finfluence.estimators.replay.leave_out import PLACEBOS, Groups, paired_seconds, to_pair
from finfluence.result import one_of
from finfluence.runs import (
    AnyQuery,
    Recipe,
    Tape,
    TapeRecorder,
    check_queries,
    dry_run,
    finished,
    gradients,
    interval_for,
    seeded,
)
from finfluence.runs.describe import Given, find_subsets
from finfluence.runs.tape import final_losses

STEPS = 2
RESULT_FIELDS = 8


@dataclass(frozen=True)
class Stage:
    """One part of the work; bytes of memory are beside the model, the data and torch itself."""

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
        "train" (of a recipe only), "prepare" (query gradients, tracing, timing), "walk" (with late states, and states
        recomputed), "groups" (runs without those that are paired; if there are any), "result".
    training_seconds : float
        One plain training run.
    runs : float
        Cost of the walk in multiples of one training run.
    differentiation : str
        The pass that replay will take.
    queries, subsets, rows, steps : int
    states_every : int
        Spacing of the states that the tape keeps.
    states : str
        Where the others come from, in words.
    settings : Settings or None
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
    settings: Settings | None

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
            f"  the walk costs {self.runs:.2g} training runs ({self.differentiation} derivatives); "
            f"{self.states}"
        )
        if self.settings is not None:
            lines.append(f"  {self.settings.sentence}")
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
    saved: bool = False,
) -> Forecast:
    """Say beforehand how long a replay will take, how much memory and disk; of a recipe, training too.

    Two training steps, two steps back and two evaluations are timed. Options are those of `train` and `replay`.

    Parameters
    ----------
    run : Tape or Recipe
        A recipe is trained for two steps; nothing is kept of it.
    horizon : "auto" or int
        "auto" is counted as all epochs: replay may stop earlier.
    saved : bool
        Whether `train(out=…)` and `replay(out=…)` write states to disk; otherwise they stay in memory.

    Returns
    -------
    Forecast
        In words by `repr`. Within a factor of two if nothing else loads the machine.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Rows, own_loss
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=20)
    >>> forecast = plan(recipe, own_loss([0, 1]))
    >>> [stage.name for stage in forecast.stages], forecast.steps
    (['train', 'prepare', 'walk', 'result'], 40)
    """
    one_of(method, ("online", "full"), "method")
    listed = check_queries(queries)
    if isinstance(run, TapeRecorder):
        run = run.finish()
    tape = finished(run) if isinstance(run, Tape) else dry_run(run, STEPS)
    found = find_subsets(tape, subsets)
    model = tape.model()
    began = clock(tape.layout.device)
    with seeded(0):
        _, start = gradients(listed, model, tape, tape.layout.parameters(model))
        asking = clock(tape.layout.device) - began
        final_losses(tape, model)
    spent = clock(tape.layout.device) - began
    choice = choose_adjoint(tape, start, differentiation, memory_bytes)
    steps = sum(len(e) for e in tape.epochs)
    state = state_bytes(tape)
    every = run.interval if isinstance(run, Tape) else interval_for(steps, state, snapshot_bytes)
    memory = share_memory(tape, len(start), late > 0, memory_bytes, snapshot_bytes if saved else 0, every)
    costs = replace(measure(tape, choice.adjoint, start, memory, late, asking), fixed=0.0)
    prepare = clock(tape.layout.device) - began
    planned = Plan(method == "full", probe_budget if tape.reshuffled else 0.0, 0)
    limit, settings = horizon_for(horizon, run).limit, None
    chosen = to_pair(groups, found.sizes, len(start))
    alone = max(1, int(memory_bytes // bytes_per_query(tape)))
    pairing = paired_seconds(tape, int(chosen.sum()), alone, steps)
    if budget is not None:
        counted = replace(costs, fixed=spent + costs.spent + pairing)
        settings = settings_for(budget, tape, planned, limit, memory, lambda: counted, late)
        planned, limit = settings.plan(planned), settings.horizon
    runs = costs.runs(tape, planned, limit, memory, late)
    training = costs.train * steps
    walked = sum(len(e) for e in tape.epochs[-limit:])
    walk_bytes = (
        int(memory.together * bytes_per_query(tape)) * (2 if late else 1) + memory.held(walked) * state
    )
    result = RESULT_FIELDS * 8 * len(found) * len(start)
    stages = [
        Stage("prepare", prepare, int(start.numel() * start.itemsize), 0),
        Stage("walk", runs * training, walk_bytes, memory.written(walked) * state),
        Stage("result", 2e-8 * result, 2 * result, result),
    ]
    if chosen.any():
        lanes = min(alone, int(chosen.sum()) + PLACEBOS + 1)
        stages.insert(2, Stage("groups", pairing, lanes * int(bytes_per_query(tape)), 0))
    if isinstance(run, Recipe):
        kept = (-(-steps // every) + 1) * state
        stages.insert(0, Stage("train", training, 0 if saved else kept, kept if saved else 0))
    states = memory.sentence(walked)
    if every > 1:
        states += f"; snapshot_bytes={(steps + 1) * state:,} would keep all"
    return Forecast(
        tuple(stages), training, runs, choice.name, len(start), len(found), len(tape.rows), steps, every,
        states, settings,
    )  # fmt: skip


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
