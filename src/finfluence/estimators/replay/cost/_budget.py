"""The dial: one number, in multiples of one training run, sets what a replay evaluates."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from finfluence import _files
from finfluence.errors import ConfigError, explain
from finfluence.estimators.replay._backward import Plan
from finfluence.estimators.replay.cost._memory import Memory
from finfluence.estimators.replay.cost._timing import Costs
from finfluence.runs import Tape

PROBE_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Settings:
    """What a budget was turned into; `expected` is the cost in training runs that the measured steps foretell.

    method : "online" or "full". horizon : most epochs walked. probe_share : extra row evaluations for the spread.
    queries_together : in one walk. states_every : spacing of the states that the tape keeps.
    states : where the others come from, in words. states_held : how many a walk holds in memory.
    least : what the least settings would cost. beside : the part of `expected` that is not the walk.
    tracing : what the first replay of a tape spends apart, in seconds.
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
    beside: float
    tracing: float

    @property
    def sentence(self) -> str:
        """The choice in words."""
        what = (
            f"{self.method} rows, at most {self.horizon} epoch{'s' if self.horizon > 1 else ''} back, "
            f"probe rows {self.probe_share:g}, {self.queries_together} "
            f"quer{'y' if self.queries_together == 1 else 'ies'} together, {self.states}"
        )
        if self.expected > self.asked:
            said = f"is less than the least replay takes, {self.expected:.2g} runs, which was made: {what}"
        else:
            said = f"was spent on: {what}; expected cost {self.expected:.2g} runs"
        return (
            f"a budget of {self.asked:g} training runs {said}; {self.beside:.1g} of them are beside the walk (queries, "
            f"timing, paired groups), and tracing the model, once a tape, is apart ({self.tracing:.2g} s)"
        )

    def plan(self, plan: Plan) -> Plan:
        """Return the walk's plan under these settings."""
        share = 0.0 if plan.budget == 0 else self.probe_share
        return replace(plan, full=self.method == "full", budget=share)


def settings_for(
    budget: float,
    tape: Tape,
    plan: Plan,
    horizon: int,
    memory: Memory,
    measured: Callable[[], Costs],
    late: float = 0.0,
) -> Settings:
    """Return the most accurate settings that cost at most `budget` training runs.

    In this order, each only when all before it is paid: epochs back, from one to `horizon`; probe rows for the
    spread; all rows at every step. So a larger budget never gives less of anything.

    Parameters
    ----------
    budget : float
        Multiples of one training run.
    plan : Plan
        What the user asked for; *full* stays full.
    horizon : int
        Most epochs to walk.
    memory : Memory
        Queries walked together, and where states come from.
    measured : callable
        Returns the costs.
    late : float
        Share of the walk that holds late states.

    Raises
    ------
    ConfigError
        The budget is not above zero and finite.
    """
    check_budget(budget)
    costs = measured()
    first = ("full" if plan.full else "online", 1, PROBE_SHARES[0])
    ladder = [(first[0], h, first[2]) for h in range(1, horizon + 1)]
    if not plan.full:
        if plan.budget:
            ladder += [("online", horizon, share) for share in PROBE_SHARES[1:]]
        if tape.equal_draws:  # "full" takes every row to be drawn as often as any other
            ladder.append(("full", horizon, PROBE_SHARES[-1]))

    def cost(method: str, epochs: int, share: float, at_least: bool = False) -> float:
        there = replace(plan, full=method == "full", budget=share if plan.budget else 0.0)
        return costs.runs(tape, there, epochs, memory, late, at_least)

    least = paid = cost(*first)
    chosen = first
    for rung in ladder[1:]:
        if cost(*rung, at_least=True) > budget or (needed := cost(*rung)) > budget:
            break
        chosen, paid = rung, needed
    method, epochs, share = chosen
    steps = sum(len(e) for e in tape.epochs[-epochs:])
    return Settings(
        float(budget), paid, method, epochs, share if plan.budget else 0.0, memory.together, memory.spacing,
        memory.sentence(steps), memory.room, least,
        costs.fixed / (costs.train * sum(len(e) for e in tape.epochs)), costs.setup,
    )  # fmt: skip


def check_budget(budget: object) -> None:
    """Refuse what is no number of training runs.

    Raises
    ------
    ConfigError
        Not a number above 0, or not finite.
    """
    wrong = isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget < math.inf
    if wrong:
        raise ConfigError(
            explain(
                "budget to be a number of training runs above 0",
                repr(budget),
                "a share in percent or a time was passed",
                "pass for instance budget=2.0: at most the time of two trainings",
            )
        )


def settings_from(made: Mapping[str, Any]) -> Settings:
    """Return the settings of another replay from its `provenance.budget`.

    Raises
    ------
    ConfigError
        It is something else.
    """
    try:
        return Settings(**made)
    except TypeError as error:
        raise ConfigError(
            explain(
                "budget to be a number of training runs, or what another replay made of one",
                f"a mapping with {', '.join(map(str, made)) or 'nothing'}",
                "it was edited, or comes from another version of finfluence",
                "pass influence.provenance.budget of a replay with a budget, or a number",
            )
        ) from error


def remembered(folder: Path | None, key: str, choose: Callable[[], Settings]) -> Settings:
    """Return `choose()`, or what an interrupted replay in `folder` chose: costs are measured anew, numbers stay."""
    if folder is None:
        return choose()
    path = folder / f"budget-{key}.json"
    if path.exists():
        return Settings(**json.loads(path.read_text(encoding="utf-8")))
    settings = choose()
    _files.write_json(path, asdict(settings))
    return settings
