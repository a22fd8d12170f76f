"""Budget allocation: one number, in multiples of one training run, sets what a replay evaluates."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from finfluence import _files
from finfluence.errors import ConfigError, explain
from finfluence.estimators.replay._schedule import RowSchedule
from finfluence.estimators.replay.cost._timing import Timings, Workload

SAMPLE_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
_RENAMED = {"beside": "overhead"}


@dataclass(frozen=True)
class Allocation:
    """What a budget was turned into, as results keep it.

    Parameters
    ----------
    asked : float
        The budget, in training runs.
    expected : float
        The cost in training runs that the measured steps foretell.
    method : str
        "online" or "full".
    horizon : int
        Most epochs of the truncation window.
    probe_share : float
        Extra row evaluations for the spread.
    queries_together : int
        In one backward pass.
    states_every : int
        Interval of the states that the tape keeps.
    states : str
        Where the others come from, in words.
    states_held : int
        How many a backward pass holds in memory.
    least : float
        What the least allocation would cost.
    overhead : float
        The part of `expected` that is not the backward pass.
    tracing : float
        What the first replay of a tape spends apart on choosing, checking and tracing derivatives, in seconds.
    """

    asked: float
    expected: float
    method: str
    horizon: int
    probe_share: float
    queries_together: int
    states_every: int
    states: str
    states_held: int
    least: float
    overhead: float
    tracing: float

    @property
    def sentence(self) -> str:
        """The choice in words."""
        what = (
            f"{self.method} rows, at most {self.horizon} epoch{'s' if self.horizon > 1 else ''} back, "
            f"rows for the spread {self.probe_share:g}, {self.queries_together} "
            f"quer{'y' if self.queries_together == 1 else 'ies'} together, {self.states}"
        )
        if self.expected > self.asked:
            spent = f"is less than the least replay takes, {self.expected:.2g} runs, which was made: {what}"
        else:
            spent = f"was spent on: {what}; expected cost {self.expected:.2g} runs"
        return (
            f"a budget of {self.asked:g} training runs {spent}; {self.overhead:.1g} of them are overhead (queries, "
            "timing, paired groups), and checking and tracing derivatives, once a tape, is apart "
            f"({self.tracing:.2g} s)"
        )

    def schedule(self, schedule: RowSchedule) -> RowSchedule:
        """Return which rows are evaluated under this allocation."""
        share = 0.0 if schedule.budget == 0 else self.probe_share
        return replace(schedule, full=self.method == "full", budget=share)


@dataclass(frozen=True)
class _Setting:
    """One point of the grid: from cheap to dear along it, nothing ever becomes less."""

    method: str
    epochs: int
    share: float


def allocate(
    budget: object, workload: Workload, schedule: RowSchedule, horizon: int, measured: Callable[[], Timings]
) -> Allocation:
    """Return the most accurate allocation that costs at most `budget` training runs.

    In this order, each only when all before it is paid: epochs back, from one to `horizon`; rows for the spread; all
    rows at every step. So a larger budget never gives less of anything.

    Parameters
    ----------
    budget : float
        Multiples of one training run.
    workload : Workload
    schedule : RowSchedule
        What the user asked for; *full* stays full.
    horizon : int
        Most epochs of the truncation window.
    measured : callable
        Returns the timings.

    Returns
    -------
    Allocation

    Raises
    ------
    ConfigError
        The budget is not above zero and finite.
    """
    number = check_budget(budget)
    timings = measured()

    def cost(setting: _Setting, at_least: bool = False) -> float:
        share = setting.share if schedule.budget else 0.0
        there = replace(schedule, full=setting.method == "full", budget=share)
        return workload.runs(timings, there, setting.epochs, at_least)

    grid = _grid(schedule, horizon, workload.equal_draws)
    chosen, least = grid[0], cost(grid[0])
    paid = least
    for setting in grid[1:]:
        if cost(setting, at_least=True) > number or (needed := cost(setting)) > number:
            break
        chosen, paid = setting, needed
    memory, shape = workload.memory, workload.shape
    return Allocation(
        number, paid, chosen.method, chosen.epochs, chosen.share if schedule.budget else 0.0,
        memory.together, memory.interval, memory.sentence(shape.last(chosen.epochs)), memory.capacity, least,
        timings.overhead / (timings.train * shape.steps), timings.tracing,
    )  # fmt: skip


def _grid(schedule: RowSchedule, horizon: int, equal_draws: bool) -> list[_Setting]:
    """Return the settings that a budget may pay, the least first."""
    least, most = SAMPLE_SHARES[0], SAMPLE_SHARES[-1]
    if schedule.full:
        return [_Setting("full", epochs, least) for epochs in range(1, horizon + 1)]
    grid = [_Setting("online", epochs, least) for epochs in range(1, horizon + 1)]
    if schedule.budget:
        grid += [_Setting("online", horizon, share) for share in SAMPLE_SHARES[1:]]
    return [*grid, _Setting("full", horizon, most)] if equal_draws else grid


def check_budget(budget: object) -> float:
    """Return a number of training runs, or refuse what is none.

    Returns
    -------
    float

    Raises
    ------
    ConfigError
        Not a number above 0, or not finite.
    """
    if isinstance(budget, (int, float)) and not isinstance(budget, bool) and 0 < budget < math.inf:
        return float(budget)
    raise ConfigError(
        explain(
            "budget to be a number of training runs above 0",
            repr(budget),
            "a share in percent or a time was passed",
            "pass for instance budget=2.0: at most the time of two trainings",
        )
    )


def allocation_from(made: Mapping[str, Any]) -> Allocation:
    """Return the allocation of another replay from its `provenance.budget`, of version 0.1.0 or later.

    Returns
    -------
    Allocation

    Raises
    ------
    ConfigError
        It is something else.
    """
    try:
        return Allocation(**{_RENAMED.get(name, name): value for name, value in made.items()})
    except TypeError as error:
        raise ConfigError(
            explain(
                "budget to be a number of training runs, or what another replay made of one",
                f"a mapping with {', '.join(map(str, made)) or 'nothing'}",
                "it was edited, or comes from another version of finfluence",
                "pass influence.provenance.budget of a replay with a budget, or a number",
            )
        ) from error


def remembered(folder: Path | None, key: str, choose: Callable[[], Allocation]) -> Allocation:
    """Return `choose()`, or what an interrupted replay in `folder` chose: steps are timed anew, numbers stay."""
    if folder is None:
        return choose()
    path = folder / f"budget-{key}.json"
    if path.exists():
        return Allocation(**json.loads(path.read_text(encoding="utf-8")))
    allocation = choose()
    _files.write_json(path, asdict(allocation))
    return allocation
