"""verify: hold an estimate against retraining."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from finfluence._progress import Progress, silent
from finfluence.ensemble import Executor, ModelBank, Vary
from finfluence.errors import DataError, explain
from finfluence.estimators.retrain import BANK, retrain
from finfluence.grads import gradients_on
from finfluence.result import Influence, need_mu, one_of, pool
from finfluence.runs import AnyQuery, Recipe, check_queries, initial_model
from finfluence.runs.describe import find_subsets
from finfluence.verification._figures import Pairs, evidence, figures
from finfluence.verification._groups import group_estimates, select_queries, shrunken_sums
from finfluence.verification._judge import judge
from finfluence.verification._plan import Plan, Request, check_matches, make_plan
from finfluence.verification._verification import Verification


@gradients_on()
def verify(
    influence: Influence | Sequence[Influence],
    recipe: Recipe,
    queries: Sequence[AnyQuery] | AnyQuery,
    *,
    subsets: int = 24,
    runs: int = 100,
    groups: Mapping[Any, Sequence[Any]] | None = None,
    budget: float | str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    bank: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    n_jobs: int | None = None,
    measure: bool = False,
    announce: Callable[[Plan], None] | None = None,
    progress: Progress = silent,
) -> Verification:
    """Hold an estimate against retraining: whether it orders subsets rightly, and whether its size is right.

    Groups of rows from the top, the bottom and the middle of the estimate, and random ones, are removed; the recipe is
    trained many times with and without each. The estimate of a group is the sum of its rows' shrunken effects,
    effect(S) = (n−1)/(n−|S|) · Σ_{i∈S} shrunken_i. Single rows are removed, by common random numbers, where a few pairs
    of trainings show that these tell them apart.

    Parameters
    ----------
    influence : Influence or list of Influence
        Over all single rows: one result (pooled or not), or one for each run: then the groups' errors come from what
        the runs differ by. Or over groups, with `groups`.
    recipe : Recipe
        The one it was estimated for.
    queries : Query or list
        Some or all of the queries of the influence.
    subsets, runs : int
        How many subsets, and how many trainings without each; on all rows √subsets times as many.
    groups : {name: row ids}, optional
        Rows of each subset of the influence, where these are groups.
    budget : seconds or text such as "10m", optional
        Two batches are timed; then runs, and then subsets, are reduced until they fit.
    seed : int
        Of the choice, the trainings and the bootstrap.
    out : path, optional
        Folder of finished runs: called again, the same verification goes on from there, to the same numbers.
    bank : path, optional
        Folder of banks of retrained models, as of `fi.retrain`: what another verification, another query or
        `fi.retrain` trained for the same recipe is not trained again. The numbers are the same with and without.
    measure : bool
        Time two batches also without a budget, so that the plan knows its cost.
    announce : callable, optional
        Called with the `Plan` before it is started.
    progress : callable
        Called as `progress("measure" or "retrain", done, total)`.

    Returns
    -------
    Verification

    Raises
    ------
    ConfigError
        Fewer than 4 subsets or 10 runs, an unknown query, or a budget that is too small.
    DataError
        An influence of other rows, of groups whose rows are not given, or queries that never vary.
    TrainingError
        So many runs diverged that nothing is left.
    NotSupportedError
        An influence of scores, without μ; a bank, where frozen parameters or buffers differ between initialisations.
    StorageError
        A file of finished runs or of the bank is damaged.

    Notes
    -----
    Cost: runs · (subsets + √subsets) trainings, stacked where the model allows; in pairs runs · (subsets + 1). The few
    pairs that decide which are 30, most of them used again.

    What varies between trainings is what the estimate claims to cover: with "initialisation" among it, each draws its
    own; otherwise all start where the estimated run did.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.estimators.replay import replay
    >>> from finfluence.runs import SGD, Rows, mean_loss, train
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(40, 1))
    >>> recipe = Recipe(data=Rows(x=x, y=2 * x[:, 0] + rng.normal(size=40)), model=nn.Linear(1, 1), batch_size=4,
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, optimizer=SGD(lr=0.1), epochs=4)
    >>> query = mean_loss(np.ones((1, 1)), np.full(1, 2.0), name="held-out")
    >>> done = verify(replay(train(recipe), query, "full"), recipe, query, subsets=8, runs=20)
    >>> done.verdict in ("passed", "failed", "undecided"), len(done.to_frame())
    (True, 8)
    """
    results = [influence] if isinstance(influence, Influence) else list(influence)
    listed = check_queries(queries)
    names = [name for query in listed for name in query.names]
    for name in names:
        one_of(name, results[0].queries if results else [], "query")
    for one in results:
        need_mu(one.data, "verification")
    estimate = _over(results, names)
    check_matches(estimate, recipe)
    positions = _group_positions(estimate, recipe, groups)
    vary, trained = vary_as_covered(estimate, recipe)
    options: dict[str, Any] = {"executor": executor, "n_jobs": n_jobs}
    request = Request(
        estimate, trained, listed, subsets, runs, positions, budget, seed, vary, None if out is None else Path(out),
        options, None if bank is None else ModelBank(trained, bank, BANK),
    )  # fmt: skip
    plan = make_plan(request, measure, progress)
    if announce is not None:
        announce(plan)
    ids = recipe.rows.ids
    members = {c.name: [_plain(i) for i in ids[c.rows]] for c in plan.subsets}
    if positions is None:
        predicted = shrunken_sums(group_estimates(results, plan.subsets, names), estimate, plan.subsets)
    else:
        order = {id(rows): k for k, rows in enumerate(positions.values())}
        predicted = _name_as_planned(estimate, [order[id(c.rows)] for c in plan.subsets], plan, names)
    truth = retrain(
        trained, listed, members, runs=plan.runs_with, runs_without=plan.runs, design=plan.design, vary=vary,
        seed=seed, out=out, bank=bank,
        level=estimate.provenance.level, max_runs=plan.trainings, progress=progress, **options,
    )  # fmt: skip
    return compare(predicted, truth, plan, members, seed)


def compare(
    predicted: Influence, truth: Influence, plan: Plan, members: Mapping[str, Sequence[Any]], seed: int
) -> Verification:
    """Return the agreement of estimates of the planned subsets with their truth."""
    level = predicted.provenance.level
    points = _points(predicted, truth, plan)
    pairs, findings = _pairs(points, predicted.queries, plan, level)
    found = figures(pairs, seed)
    size = int(np.median([len(c.rows) for c in plan.subsets]))
    judged = judge({f.name: f for f in found}, evidence(pairs), plan.runs, size)
    trained = truth.provenance
    made = {
        "subsets": len(plan.subsets),
        "rows_each": size,
        "runs": plan.runs,
        "runs_with": plan.runs_with,
        "trainings": plan.trainings,
        "design": plan.design,
        "order": judged.order,
        "size": judged.size,
        "queries": list(predicted.queries),
        "covers": list(trained.covers),
        "seed": seed,
        "level": level,
        "method": predicted.provenance.method,
    }
    notes = [*plan.notes, *findings, *trained.findings]
    return Verification(judged.verdict, judged.sentence, found, points, members, tuple(notes), made)


def _points(predicted: Influence, truth: Influence, plan: Plan) -> pd.DataFrame:
    e, t = predicted.data, truth.data
    kinds, sizes = [c.kind for c in plan.subsets], [len(c.rows) for c in plan.subsets]
    frames = []
    for name in predicted.queries:
        a, b = e.sel(query=name), t.sel(query=name)
        frames.append(
            pd.DataFrame(
                {
                    "subset": [c.name for c in plan.subsets],
                    "kind": kinds,
                    "query": name,
                    "size": sizes,
                    "estimate": a["mu"].values,
                    "estimate_lower": _known(a, "lower"),
                    "estimate_upper": _known(a, "upper"),
                    "truth": b["mu"].values,
                    "truth_lower": b["lower"].values,
                    "truth_upper": b["upper"].values,
                    "truth_se": b["se"].values,
                    "effect": _known(a, "effect"),
                    "true_effect": b["effect"].values,
                    "true_effect_se": _known(b, "effect_se"),
                    "spread": _known(a, "spread"),
                    "true_spread": b["spread"].values,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _known(data: xr.Dataset, name: str) -> np.ndarray:
    """Return a variable's values; NaN where the estimate has none, as that of a method which gives μ alone."""
    return data[name].values if name in data else np.full(data.sizes["subset"], np.nan)


def _pairs(points: pd.DataFrame, queries: Sequence[str], plan: Plan, level: float) -> tuple[Pairs, list[str]]:
    """Return the finite pairs as arrays [S, Q], and what was left out."""
    names = [c.name for c in plan.subsets]

    def values(column: str) -> np.ndarray:
        wide = points.pivot(index="subset", columns="query", values=column)
        return wide.loc[names, list(queries)].to_numpy(dtype=np.float64)

    known = np.isfinite(values("estimate")) & np.isfinite(values("truth")) & np.isfinite(values("truth_se"))
    kept = known.mean(0) >= 0.5
    whole = known[:, kept].all(1) if kept.any() else np.zeros(len(names), dtype=bool)
    findings = []
    if not kept.all():
        gone = [q for q, k in zip(queries, kept, strict=True) if not k]
        findings.append(
            f"left out, since most of its values are no numbers: {', '.join(map(repr, gone[:4]))}"
        )
    if kept.any() and not whole.all():
        lost = [n for n, w in zip(names, whole, strict=True) if not w]
        findings.append(
            f"{len(lost)} subsets are left out, some value of theirs is no number: {', '.join(lost[:4])}"
        )
    if not whole.any():
        raise DataError(
            explain(
                "some subsets with a finite μ, estimated and retrained",
                "none",
                "the estimate is NaN, or the query does not vary between trainings",
                "verify another query, or estimate again",
            )
        )

    def cut(column: str) -> np.ndarray:
        return values(column)[whole][:, kept]

    return Pairs(
        cut("estimate"), cut("estimate_lower"), cut("estimate_upper"), cut("truth"), cut("truth_se"), cut("effect"),
        cut("true_effect"), cut("spread"), cut("true_spread"), _shared(plan, cut("true_effect_se"), cut("true_spread")),
        float(1 / np.sqrt(plan.runs_with)), level,
    ), findings  # fmt: skip


def _shared(plan: Plan, effect_se: np.ndarray, spread: np.ndarray) -> float:
    """Return the error that all subsets share, in units of μ: that of the trainings on all rows.

    In pairs no more of it than half of the variance of a difference: the other half comes from the runs without.

    Returns
    -------
    float
    """
    alone = float(1 / np.sqrt(plan.runs_with))
    if plan.design != "paired":
        return alone
    return min(alone, float(np.sqrt(np.mean((effect_se / spread) ** 2) / 2)))


def _over(results: Sequence[Influence], names: Sequence[str]) -> Influence:
    """Return the estimate that subsets are chosen by: the results pooled, over the asked queries."""
    return pool([select_queries(one, names) for one in results])


def _group_positions(
    estimate: Influence, recipe: Recipe, groups: Mapping[Any, Sequence[Any]] | None
) -> dict[Any, np.ndarray] | None:
    """Return the rows of each group of the influence; None for an influence over single rows."""
    names = [_plain(s) for s in estimate.subsets]
    if groups is not None:
        missing = [n for n in names if n not in groups]
        if missing:
            raise _unknown_rows(f"none for {len(missing)} groups, first {missing[0]!r}")
        found = find_subsets(recipe, {n: groups[n] for n in names})
        return dict(zip(names, found.positions, strict=True))
    if int(estimate.data["size"].max()) > 1:
        raise _unknown_rows("an influence over groups, and no groups=")
    if names != [_plain(i) for i in recipe.rows.ids]:
        raise DataError(
            explain(
                "an influence over every single row of the recipe, in its order",
                f"{len(names):,} of {len(recipe.rows):,} rows, or other ids",
                "the influence was asked for some rows only, or the recipe got other ids",
                "replay without subsets=, or pass groups={name: row ids} for the subsets that it has",
            )
        )
    return None


def _unknown_rows(got: str) -> DataError:
    return DataError(
        explain(
            "the rows of each group of the influence",
            got,
            "a result keeps the names and sizes of its groups, not their rows",
            "pass groups={name: row ids}, as subsets= was passed to replay",
        )
    )


def vary_as_covered(estimate: Influence, recipe: Recipe) -> tuple[Vary, Recipe]:
    """Return what varies, and the recipe, its initialisation fixed where the estimate covers only one."""
    made = estimate.provenance
    if "initialisation" in made.covers:
        return ("all" if "batch order" in made.covers else "init"), recipe
    if recipe.random_initialisation:
        seeds = made.seeds or ({"init": 0},)
        return "order", replace(recipe, model=initial_model(recipe, int(seeds[0]["init"])))
    return "order", recipe


def _name_as_planned(estimate: Influence, at: Sequence[int], plan: Plan, names: Sequence[str]) -> Influence:
    data = estimate.data.sel(query=list(names)).isel(subset=list(at))
    return Influence(data.assign_coords(subset=np.array([c.name for c in plan.subsets])))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
