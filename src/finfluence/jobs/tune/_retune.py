"""The counterfactual: tune again without the rows that are taken out, without random rows as long, and with all."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finfluence._files import digest, write_json
from finfluence._progress import Progress
from finfluence._seeds import stream, torch_seed
from finfluence.errors import DataError, explain
from finfluence.jobs.tune._decide import GROUP, Decided
from finfluence.jobs.tune._estimate import Estimate
from finfluence.jobs.tune._folder import CHECK, RETUNED, TuneFolder
from finfluence.jobs.tune._prepared import Prepared
from finfluence.language import each_text
from finfluence.runs import Query, Recipe, Stepper, initial_model, seeded
from finfluence.stats import mean_interval, paired_difference
from finfluence.verification import Chosen, group_estimates

ALL, WITHOUT, RANDOM = "all rows", "without them", "without random rows"
MOST_SOURCES = 4
"""Named sources that are also taken out one by one, where there are several."""
SURE = 3.0
"""Spreads by which a behaviour has to move for its rows to count as its cause."""


def retune(
    prepared: Prepared,
    estimate: Estimate,
    decided: Decided,
    folder: TuneFolder,
    *,
    runs: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Return what every behaviour is before tuning, after, predicted and measured without the rows.

    The r-th run of every arm shares its batch order's seed. Runs that are whole in the folder are not repeated.

    Returns
    -------
    dict
        Of plain values; also written to `retuning.json`.
    """
    removed = np.flatnonzero(decided.removed)
    kept = np.flatnonzero(~decided.removed)
    _check_left(len(kept), prepared.recipe.batch_size)
    seeds = [torch_seed(seed, "retuned", r) % 2**31 for r in range(runs)]
    lengths = np.array([len(e) for e in prepared.rows.encoded])
    random = [_as_long(lengths, removed, stream(seed, "random rows", r)) for r in range(runs)]
    every = np.arange(len(lengths))
    arms: dict[str, list[np.ndarray]] = {
        ALL: [every] * runs,
        WITHOUT: [kept] * runs,
        RANDOM: [np.setdiff1d(every, taken) for taken in random],
    }
    alone = _sources_alone(prepared, decided)
    keeps = [*arms.values(), *([np.setdiff1d(every, rows)] * runs for rows in alone.values())]
    found_values = []
    for place, kept_rows in enumerate(keeps):
        one_by_one = []
        for r, keep in enumerate(kept_rows):
            one_by_one.append(values_after(prepared, seeds[r], keep, folder))
            progress("retune", place * runs + r + 1, len(keeps) * runs)
        found_values.append(np.array(one_by_one))
    values = dict(zip(arms, found_values, strict=False))
    without_each = dict(zip(alone, found_values[len(arms) :], strict=True))
    found = _compared(prepared, estimate, decided, values, without_each)
    write_json(folder / CHECK, found)
    return found


def measured(model: nn.Module, queries: Sequence[Query], recipe: Any) -> list[float]:
    """Return the value of every behaviour."""
    with torch.no_grad(), seeded(0):
        return [float(v) for q in queries for v in q.values(model.eval(), recipe)]


def measured_each(model: nn.Module, queries: Sequence[Query], recipe: Any) -> list[list[float]]:
    """Return the values of every behaviour's texts."""
    with torch.no_grad(), seeded(0):
        return [each_text(q, model.eval()).double().tolist() for q in queries]


def values_after(
    prepared: Prepared,
    seed: int,
    keep: np.ndarray,
    folder: TuneFolder,
    measure: Callable[[nn.Module, Sequence[Query], Recipe], list[Any]] = measured,
) -> list[Any]:
    """Return what is measured of the behaviours after one tuning, kept in the folder; no numbers where it diverged."""
    recipe = prepared.recipe
    key = digest(
        recipe.digest().encode(), repr((seed, [q.name for q in prepared.queries])).encode(), keep.tobytes()
    )
    key = digest(key.encode(), prepared.texts.digests["behaviours"].encode())
    name = key if measure is measured else digest(key.encode(), measure.__name__.encode())
    path: Path = folder / RETUNED / f"{name}.json"
    if not path.exists():
        write_json(path, measure(_tuned(recipe, seed, keep), prepared.queries, recipe))
    with folder.reading(f"{RETUNED}/{path.name}"):
        values: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _tuned(recipe: Recipe, seed: int, keep: np.ndarray) -> nn.Module:
    """Return the model after one tuning on some of the rows, in as many steps as on all of them."""
    model = initial_model(recipe, 0)
    stepper = Stepper(recipe, model, seed)
    with seeded(0):
        for t, rows in enumerate(recipe.order(seed, keep)):
            stepper.step(t, rows)
    return model


def _sources_alone(prepared: Prepared, decided: Decided) -> dict[str, np.ndarray]:
    """Return the rows of each named source, where it is not all that is taken out anyway; the surest ones first."""
    some = {n: rows for n, rows in _named(prepared, decided).items() if len(rows) < decided.removed.sum()}
    return dict(list(some.items())[:MOST_SOURCES])


def _named(prepared: Prepared, decided: Decided) -> dict[str, np.ndarray]:
    groups = prepared.texts.groups
    if groups is None or decided.why != GROUP:
        return {}
    named = decided.groups[decided.groups["flagged"]].sort_values("q_value", kind="stable")["group"]
    return {name: np.flatnonzero(groups.astype(str) == name) for name in dict.fromkeys(named)}


def _as_long(lengths: np.ndarray, removed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many random rows, none of the removed, each the nearest in length that is left of a random draw."""
    left = np.setdiff1d(np.arange(len(lengths)), removed)
    rng.shuffle(left)
    chosen: list[int] = []
    available = np.ones(len(left), bool)
    for row in rng.permutation(removed):
        if not available.any():
            break
        apart = np.where(available, np.abs(lengths[left] - lengths[row]), np.inf)
        best = int(apart.argmin())
        available[best] = False
        chosen.append(int(left[best]))
    return np.array(chosen, dtype=np.int64)


def _compared(
    prepared: Prepared,
    estimate: Estimate,
    decided: Decided,
    values: dict[str, np.ndarray],
    without_each: dict[str, np.ndarray],
) -> dict[str, Any]:
    names = [q.name for q in prepared.queries]
    before = measured(initial_model(prepared.recipe, 0), prepared.queries, prepared.recipe)
    rows = np.flatnonzero(decided.removed)
    predicted = group_estimates(estimate.each, [Chosen("removed", "given", rows)], names).data
    all_removed = [n for n, found in _named(prepared, decided).items() if len(found) == len(rows)]
    whole = np.all([np.isfinite(v).all(1) for v in (*values.values(), *without_each.values())], 0)
    lines = []
    for k, query in enumerate(prepared.queries):
        arms = {arm: v[whole, k] for arm, v in values.items()}
        one = predicted.sel(query=query.name).isel(subset=0)
        effect, error = float(one["effect"]), float(one["effect_se"])
        line: dict[str, Any] = {
            "query": query.name,
            "unit": query.unit,
            "before": before[k],
            "predicted": {"value": effect, "lower": effect - 1.96 * error, "upper": effect + 1.96 * error},
            "spread": float(one["spread"]),
            "arms": {arm: _plain(mean_interval(v)) for arm, v in arms.items()} if whole.sum() >= 2 else {},
        }
        if whole.sum() >= 2:
            line["effect"] = _plain(paired_difference(arms[WITHOUT], arms[ALL]))
            line["sources"] = {
                name: _plain(paired_difference(v[whole, k], arms[ALL])) for name, v in without_each.items()
            }
            line["sources"].update({name: line["effect"] for name in all_removed})
            line["random_effect"] = _plain(paired_difference(arms[RANDOM], arms[ALL]))
            line["moved"] = bool(
                abs(line["effect"]["value"]) >= SURE * max(float(arms[ALL].std(ddof=1)), 1e-12)
            )
        lines.append(line)
    return {
        "rows": len(rows),
        "why": decided.why,
        "runs": int(whole.sum()),
        "diverged": int((~whole).sum()),
        "lines": lines,
        "values": {arm: v.tolist() for arm, v in values.items()},
    }


def _plain(interval: Any) -> dict[str, float]:
    return {"value": float(interval.estimate), "lower": float(interval.lower), "upper": float(interval.upper)}


def _check_left(left: int, batch: int) -> None:
    if left < batch:
        raise DataError(
            explain(
                f"at least one batch ({batch} rows) to be left where rows are taken out",
                f"{left} rows",
                "nearly all sources are named: the behaviour is that of the whole set",
                "tune without retuning (--retune 0), and look at groups.parquet",
            )
        )
