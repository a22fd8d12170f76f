"""The dial: one number, in multiples of one training run, sets what a replay evaluates."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finfluence import _files
from finfluence.errors import ConfigError, explain
from finfluence.estimators._costs import Costs
from finfluence.estimators._walk import Plan
from finfluence.runs import Tape

PROBE_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Settings:
    """What a budget was turned into; `expected` is the cost in training runs that the measured steps foretell.

    method : "online" or "full". horizon : most epochs walked. probe_share : extra row evaluations for the spread.
    queries_together : in one walk. states_every : spacing of the states that the tape keeps.
    """

    asked: float
    expected: float
    method: str
    horizon: int
    probe_share: float
    queries_together: int
    states_every: int

    @property
    def sentence(self) -> str:
        """The choice in words."""
        over = "" if self.expected <= self.asked else ", the least there is"
        return (
            f"a budget of {self.asked:g} training runs was spent on: {self.method} rows, at most {self.horizon} epochs"
            f" back, probe rows {self.probe_share:g}, {self.queries_together} queries together; "
            f"expected cost {self.expected:.2g} runs{over}"
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
    queries: int,
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
    measured : callable
        Returns the costs.
    late : float
        Share of the walk that holds late states.

    Raises
    ------
    ConfigError
        The budget is not above zero and finite.
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
    costs = measured()
    ladder = [("full" if plan.full else "online", h, PROBE_SHARES[0]) for h in range(1, horizon + 1)]
    if not plan.full:
        if plan.budget:
            ladder += [("online", horizon, share) for share in PROBE_SHARES[1:]]
        ladder.append(("full", horizon, PROBE_SHARES[-1]))
    chosen: Settings | None = None
    for method, epochs, share in ladder:
        probes = 0.0 if plan.budget == 0 else share
        there = replace(plan, full=method == "full", budget=probes)
        cost = costs.runs(tape, there, epochs, queries, late)
        if chosen is not None and cost > budget:
            break
        together = min(costs.together, queries)
        chosen = Settings(float(budget), cost, method, epochs, probes, together, tape.every)
    assert chosen is not None
    return chosen


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
