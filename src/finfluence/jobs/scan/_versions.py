"""Versions of a scan's training data: trained again under shared seeds, measured on rows that took no part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from finfluence._files import atomic, digest
from finfluence._seeds import torch_seed
from finfluence.ensemble import RunSpec, train_many
from finfluence.ingest import Table
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._measures import (
    Hidden,
    Measured,
    RowChances,
    RowOutputs,
    known_classes,
    measures,
    row_values,
)
from finfluence.runs import Recipe, Rows, read_tensors
from finfluence.stats import Interval, crossed_interval

ORIGINAL, CLEANED = "original", "cleaned"
FEWEST_ROWS, LEVEL, PARTS = 2, 0.95, "proof"
_CHUNK = 10


@dataclass(frozen=True, eq=False)
class Version:
    """One version of the training data, trained once for each seed."""

    name: str
    recipe: Recipe
    labels: np.ndarray
    specs: Sequence[RunSpec]


def run_seeds(seed: int, runs: int) -> list[int]:
    return [torch_seed(seed, "proof", run) % 2**31 for run in range(runs)]


def original(context: Context, seeds: Sequence[int]) -> Version:
    return Version(ORIGINAL, context.training.recipe, context.data.train.y, [RunSpec(s, s) for s in seeds])


def relabelled(
    context: Context, name: str, rows: np.ndarray, labels: np.ndarray, specs: Sequence[RunSpec]
) -> Version:
    """Return a version in which the rows of a mask have the suggested ones of all `labels`."""
    training, data = context.training, context.data
    y = data.train.y.copy()
    if rows.any():
        y[rows] = data.train.target.encode(labels[rows])
    recipe = replace(training.recipe, data=Rows(x=data.train.x, y=y, ids=data.train.ids.tolist()))
    return Version(name, recipe, y, specs)


def cleaned(context: Context, frame: pd.DataFrame, seeds: Sequence[int]) -> Version | None:
    """Return the rows as `clean` writes them: each dropped or relabelled as suggested; None if that is impossible."""
    action = frame["suggested_action"].to_numpy()
    drop, relabel = action == "drop", action == "relabel"
    changed = int(drop.sum() + relabel.sum())
    if not changed or len(action) - changed < max(2, context.training.recipe.batch_size):
        return None
    labels = frame["suggested_label"].to_numpy(dtype=object)
    return relabelled(context, CLEANED, relabel, labels, without(seeds, [drop] * len(seeds)))


def without(seeds: Sequence[int], gone: Sequence[np.ndarray]) -> list[RunSpec]:
    """Return the runs of a version that leaves out the rows of each mask."""
    return [RunSpec(s, s, np.flatnonzero(~mask)) for s, mask in zip(seeds, gone, strict=True)]


@dataclass(frozen=True, eq=False)
class Asked:
    """What every training of every version is asked: a query, and the rows that it knows (their digest)."""

    query: RowOutputs | RowChances | Hidden
    rows: str


def held_out(held: Table) -> Asked:
    """Return the question for the outputs on held-out rows."""
    query = RowOutputs(torch.from_numpy(held.x), torch.from_numpy(held.y), held.target.classes is not None)
    return Asked(query, digest(held.x.tobytes(), held.y.tobytes()))


def trained(context: Context, versions: Sequence[Version], stage: str) -> dict[str, np.ndarray]:
    """Return the outputs [runs, k] of every version on the evaluation rows."""
    return answers(context, versions, [held_out(context.data.evaluation)], stage)[0]


def answers(
    context: Context, versions: Sequence[Version], asked: Sequence[Asked], stage: str
) -> list[dict[str, np.ndarray]]:
    """Return what the trainings of every version answer, for each question [runs, k]; what is on disk stays."""
    runs = len(versions[0].specs)
    found: list[dict[str, np.ndarray]] = [{} for _ in asked]
    for place, version in enumerate(versions):

        def tell(done: int, place: int = place) -> None:
            context.progress(stage, place * runs + done, len(versions) * runs)

        for k, values in enumerate(_answers(context, version, asked, tell)):
            found[k][version.name] = values
    return found


def _answers(
    context: Context, version: Version, asked: Sequence[Asked], tell: Callable[[int], None]
) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in asked]
    for start in range(0, len(version.specs), _CHUNK):
        chunk = version.specs[start : start + _CHUNK]
        kept = [b"" if spec.keep is None else spec.keep.tobytes() for spec in chunk]
        seeds = repr([spec.init_seed for spec in chunk]).encode()
        names = [
            f"{PARTS}/{digest(one.rows.encode(), version.labels.tobytes(), seeds, *kept)}.safetensors"
            for one in asked
        ]
        lacking = [k for k, name in enumerate(names) if not (context.folder / name).exists()]
        if lacking:
            queries: list[Any] = [asked[k].query for k in lacking]
            done = train_many(
                version.recipe, chunk, queries, progress=lambda _, done, of, start=start: tell(start + done)
            )
            ends = np.cumsum([len(query.names) for query in queries])[:-1]
            for k, values in zip(lacking, np.split(done.values, ends, axis=1), strict=True):
                with atomic(context.folder / names[k]) as part:
                    save_file({"outputs": torch.from_numpy(np.ascontiguousarray(values))}, part)
        for k, name in enumerate(names):
            with context.folder.reading(name):
                parts[k].append(read_tensors(context.folder / name)["outputs"].numpy())
        tell(start + len(chunk))
    return [np.concatenate(part) for part in parts]


def compared(outputs: Mapping[str, np.ndarray], held: Table, level: float = LEVEL) -> dict[str, Any]:
    """Return measures, arms and differences of the versions; empty where fewer than two runs are finite.

    Parameters
    ----------
    outputs
        Of each version [runs, k], as `trained` gives them; the first is what every other one is compared with, the
        second is compared with all others, too.
    held
        The rows they were measured on.
    level
        Of the intervals.

    Returns
    -------
    dict
    """
    finite = np.all([np.isfinite(v).all(1) for v in outputs.values()], axis=0)
    whole = {arm: v[finite] for arm, v in outputs.items()}
    named = measures(held.target)
    result: dict[str, Any] = {
        "level": level,
        "diverged_runs": int((~finite).sum()),
        "metrics": [{"name": m.full_name, "better": m.better, "unit": m.unit} for m in named],
        "arms": [],
        "differences": [],
        "recall": [],
        "runs": {arm: [] for arm in whole},
    }
    if finite.sum() < 2:
        return result
    values = {arm: {m: row_values(m, v, held.target) for m in named} for arm, v in whole.items()}
    first, second, *further = whole
    pairs = [(arm, first) for arm in (second, *further)] + [(second, arm) for arm in further]
    of_arm = {
        arm: {m.full_name: _over(m, by_measure[m], held, level) for m in named}
        for arm, by_measure in values.items()
    }
    result["arms"] = [
        {"name": arm, "runs": int(finite.sum()), "values": found} for arm, found in of_arm.items()
    ]
    result["differences"] = [
        {
            "metric": m.full_name,
            "name": f"{a} − {b}",
            **_over(m, values[a][m] - values[b][m], held, level),
        }
        for m in named
        for a, b in pairs
    ]
    if held.target.classes is not None:
        hits = {arm: by_measure[named[1]] for arm, by_measure in values.items()}
        result["recall"] = _recalls(hits, pairs, held, level)
    result["runs"] = {
        arm: np.stack(
            [by_measure[m].mean(1) for m in named if m.name != "balanced accuracy"], axis=1
        ).tolist()
        for arm, by_measure in values.items()
    }
    return result


def _over(measure: Measured, values: np.ndarray, held: Table, level: float) -> dict[str, float]:
    """Return the mean of a measure's values [runs, rows] with its interval."""
    if measure.name != "balanced accuracy":
        return _plain(crossed_interval(values, level=level))
    rows = np.isin(held.y, known_classes(held.y))
    if not rows.any():
        return dict.fromkeys(("value", "lower", "upper"), float("nan"))
    return _plain(crossed_interval(values[:, rows], held.y[rows], level=level))


def _recalls(
    hits: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], held: Table, level: float
) -> list[dict[str, Any]]:
    """Return the recall of each class with two held-out rows or more; its changes at 5 % over all classes."""
    known, names = known_classes(held.y), held.target.classes or ()
    of_all = 1 - (1 - level) / max(1, len(known))
    lines = []
    for k in known:
        of = {arm: values[:, held.y == k] for arm, values in hits.items()}
        lines.append(
            {
                "class": str(names[k]),
                "rows": int((held.y == k).sum()),
                "arms": {arm: _plain(crossed_interval(values, level=level)) for arm, values in of.items()},
                "changes": {
                    f"{a} − {b}": _plain(crossed_interval(of[a] - of[b], level=of_all)) for a, b in pairs
                },
            }
        )
    return lines


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": float(interval.estimate), "lower": float(interval.lower), "upper": float(interval.upper)}
