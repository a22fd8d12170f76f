"""Own losses held against retraining: what removing a row does to the loss of that very row."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.ensemble import ModelBank
from finfluence.estimators.retrain import BANK, retrain
from finfluence.result import TWIN, Influence, pool
from finfluence.runs import AnyQuery, Recipe
from finfluence.verification._budget import duration, fit_to_budget, seconds_of
from finfluence.verification._choose import Chosen
from finfluence.verification._groups import select_queries
from finfluence.verification._plan import (
    Plan,
    Request,
    check_counts,
    check_matches,
    make_own_plan,
    measured_cost,
)
from finfluence.verification._verification import Verification
from finfluence.verification._verify import compare, vary_as_covered

OWN = "own"
_DIAGONAL = ("effect", "effect_se", *TWIN, "spread", "mu", "se", "lower", "upper", "p_value")


@dataclass(frozen=True)
class OwnEffort:
    """How much is retrained, as of `verify`: rows at most, runs without each, budget, seed; where it is kept."""

    subsets: int = 24
    runs: int = 100
    budget: float | str | None = None
    seed: int = 0
    out: Path | None = None
    bank: str | os.PathLike[str] | None = None


def verify_own_losses(
    results: Sequence[Influence],
    recipe: Recipe,
    query: AnyQuery,
    rows: Sequence[int],
    effort: OwnEffort = OwnEffort(),
    announce: Callable[[Plan], None] | None = None,
    progress: Progress = silent,
) -> Verification:
    """Hold the effects of rows on their own losses against retraining without each, in pairs.

    Parameters
    ----------
    results : sequence of Influence
        One for each run, over all rows; their queries hold those of `query`.
    query : Query
        `own_loss` of the rows, in their order.
    rows : sequence of int
        Positions of the rows. The first `subsets` of them are removed, one at a time.
    effort : OwnEffort
    announce, progress : callable
        As of `verify`; the plan knows its cost.

    Returns
    -------
    Verification
        Of one query, "own": each row's own loss.

    Raises
    ------
    ConfigError
        Fewer than 4 rows or 10 runs, or a budget that is too small.
    DataError
        An influence of another recipe.
    """
    names = list(query.names)
    estimate = pool([select_queries(one, names) for one in results])
    check_matches(estimate, recipe)
    vary, trained = vary_as_covered(estimate, recipe)
    asked, runs, seed, out = min(effort.subsets, len(rows)), effort.runs, effort.seed, effort.out
    check_counts(asked, runs)
    started, notes = time.perf_counter(), []
    bank = None if effort.bank is None else ModelBank(trained, effort.bank, BANK)
    request = Request(estimate, trained, [query], asked, runs, None, effort.budget, seed, vary, out, {}, bank)
    seconds = None if effort.budget is None else seconds_of(effort.budget)
    each = measured_cost(request, progress)
    count = asked
    if seconds is not None:
        count, runs = fit_to_budget(asked, runs, seconds, time.perf_counter() - started, each, paired=True)
        if (count, runs) != (asked, request.runs):
            notes.append(
                f"the budget of {duration(seconds)} allows {count} rows with {runs} trainings each, instead of {asked} "
                f"with {request.runs}"
            )
    ids = recipe.rows.ids
    chosen = [Chosen(str(ids[k]), "given", np.array([k])) for k in rows[:count]]
    plan = make_own_plan(request, chosen, runs, each, notes)
    if announce is not None:
        announce(plan)
    members = {c.name: [ids[c.rows[0]].item()] for c in chosen}
    truth = retrain(
        trained, [query], members, runs=plan.runs_with, runs_without=plan.runs, design="paired", vary=vary, seed=seed,
        out=out, bank=effort.bank, level=estimate.provenance.level, max_runs=plan.trainings, progress=progress,
    )  # fmt: skip
    predicted = _own(estimate, list(rows[:count]), range(count))
    predicted = Influence(predicted.data.assign_coords(subset=[c.name for c in chosen]))
    return compare(predicted, _own(truth, range(count), range(count)), plan, members, seed)


def _own(influence: Influence, rows: Sequence[int], columns: Sequence[int]) -> Influence:
    """Return each row's effect on its own loss, as a result of one query."""
    data = influence.data
    values: dict[str, Any] = {
        name: data[name].values[list(rows), list(columns)][:, None] for name in _DIAGONAL if name in data
    }
    twin = {name: values.pop(name) for name in TWIN}
    values["effect"] = twin["shrunken"] if influence.provenance.design is None else values["effect"]
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = values["effect"] / values["spread"] - values["mu"]
    values |= {name: values[name] + moved for name in ("mu", "lower", "upper")}
    return Influence.build(
        **values, twin=twin, subsets=data["subset"].values[list(rows)], queries=[OWN],
        provenance=influence.provenance, units=[str(data["unit"].values[0])], signs=[-1],
    )  # fmt: skip
