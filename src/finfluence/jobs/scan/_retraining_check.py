"""The retraining check: train on the original, the cleaned and randomly thinned rows, and compare on held-out rows."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from finfluence._files import atomic, digest, write_json
from finfluence._seeds import stream, torch_seed
from finfluence.clean import Decisions
from finfluence.ensemble import RunSpec, train_many
from finfluence.ingest import Table
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import CHECK, GROUP_CHECK
from finfluence.jobs.scan._measures import Measured, RowOutputs, known_classes, measures, row_values
from finfluence.jobs.scan._models import SMALL
from finfluence.runs import Recipe, Rows, read_tensors
from finfluence.stats import Interval, crossed_interval

ORIGINAL, CLEANED, WITHOUT, RANDOM = ARMS = ("original", "cleaned", "without", "random removals")
MOST_GROUPS, FEWEST_ROWS = 3, 2
_CHUNK, _PARTS, _LEVEL = 10, "proof", 0.95


def automatic_runs(n: int, model: str, replayed: int = 4) -> int:
    """Return how often each version is trained by default, so that the check costs no more than the rest of the scan.

    Linear models and small MLPs train side by side: 20 times for up to 5,000 rows, 10 for 20,000, 5 beyond. Any other
    model gains little by that: its three versions take the 4/3 trainings of each replayed run, 3 to 5 times each.

    Returns
    -------
    int

    Examples
    --------
    >>> automatic_runs(1000, "mlp"), automatic_runs(1000, "cnn"), automatic_runs(1000, "cnn", replayed=1)
    (20, 5, 3)
    """
    if model not in SMALL:
        return max(3, min(5, 4 * replayed // 3))
    return 20 if n <= 5_000 else 10 if n <= 20_000 else 5


@dataclass(frozen=True, eq=False)
class _Version:
    """One version of the training data, trained once for each seed."""

    name: str
    recipe: Recipe
    labels: np.ndarray
    specs: Sequence[RunSpec]


def check_by_retraining(
    context: Context, decisions: Decisions, *, runs: int, seed: int
) -> dict[str, Any] | None:
    """Return what cleaning does on held-out rows, or None if nothing was named or no two held-out rows are left.

    The r-th run of every version shares its seeds; each random run removes its own random rows, as many as cleaning
    dropped or relabelled. Runs that are whole in the folder are not repeated.

    Returns
    -------
    dict[str, Any] | None
        Measures, their intervals over trainings and held-out rows, and the paired differences; also in `proof.json`.
    """
    training, data = context.training, context.data
    action = decisions.frame["suggested_action"].to_numpy()
    drop, relabel = action == "drop", action == "relabel"
    changed, n = int(drop.sum() + relabel.sum()), len(action)
    if not changed or n - changed < max(2, training.recipe.batch_size) or len(data.evaluation) < FEWEST_ROWS:
        return None
    y = data.train.y.copy()
    if relabel.any():
        labels = decisions.frame["suggested_label"].to_numpy(dtype=object)[relabel]
        y[relabel] = data.train.target.encode(labels)
    relabelled = replace(training.recipe, data=Rows(x=data.train.x, y=y, ids=data.train.ids.tolist()))
    seeds = _seeds(seed, runs)
    versions = [
        _original(context, seeds),
        _Version(CLEANED, relabelled, y, _without(seeds, [drop] * runs)),
        _Version(RANDOM, training.recipe, data.train.y, _without(seeds, _random(n, changed, runs, seed))),
    ]
    outputs = _trained(context, versions, "retraining check")
    result = {
        "changed_rows": changed,
        "judging_rows": len(data.evaluation),
        "apart": data.halved,
        **_compared(outputs, data.evaluation),
    }
    write_json(context.folder / CHECK, result)
    return result


def check_groups(context: Context, groups: Sequence[str], *, runs: int, seed: int) -> dict[str, Any]:
    """Return what training without each group does on held-out rows of the other groups, beside random removals.

    The worst `MOST_GROUPS` are tried (one, of a model that is slow to train), each paired with as many random rows.

    Parameters
    ----------
    groups
        Names, the worst first.

    Returns
    -------
    dict
        The outcome of each group that could be tried; also in `groups-proof.json`.
    """
    training, data = context.training, context.data
    assert data.train.groups is not None
    n, names = len(data.train), data.train.groups.astype(str)
    of_rows = None if data.evaluation.groups is None else data.evaluation.groups.astype(str)
    seeds = _seeds(seed, runs)
    tried: dict[str, Any] = {}
    versions, judged = [_original(context, seeds)], {}
    for group in groups[: MOST_GROUPS if training.model.name in SMALL else 1]:
        rows = names == group
        others = np.arange(len(data.evaluation)) if of_rows is None else np.flatnonzero(of_rows != group)
        if not rows.any() or n - rows.sum() < max(2, training.recipe.batch_size) or len(others) < FEWEST_ROWS:
            continue
        judged[group] = others
        versions += [
            _Version(f"{WITHOUT} {group}", training.recipe, data.train.y, _without(seeds, [rows] * runs)),
            _Version(
                f"{RANDOM} {group}",
                training.recipe,
                data.train.y,
                _without(seeds, _random(n, int(rows.sum()), runs, seed, group)),
            ),
        ]
    outputs = _trained(context, versions, "retrain without groups") if judged else {}
    for group, others in judged.items():
        arms = {ORIGINAL: ORIGINAL, WITHOUT: f"{WITHOUT} {group}", RANDOM: f"{RANDOM} {group}"}
        part = data.evaluation.take(others)
        chosen = np.concatenate([others, others + len(data.evaluation)]) if part.target.classes else others
        tried[group] = {
            "changed_rows": int((names == group).sum()),
            "judging_rows": len(others),
            "apart": data.halved,
            **_compared({arm: outputs[name][:, chosen] for arm, name in arms.items()}, part),
        }
    write_json(context.folder / GROUP_CHECK, tried)
    return tried


def forget_parts(context: Context) -> None:
    """Remove the outputs of single runs, which both checks share."""
    shutil.rmtree(context.folder / _PARTS, ignore_errors=True)


def _seeds(seed: int, runs: int) -> list[int]:
    return [torch_seed(seed, "proof", run) % 2**31 for run in range(runs)]


def _original(context: Context, seeds: Sequence[int]) -> _Version:
    return _Version(ORIGINAL, context.training.recipe, context.data.train.y, [RunSpec(s, s) for s in seeds])


def _without(seeds: Sequence[int], gone: Sequence[np.ndarray]) -> list[RunSpec]:
    """Return the runs of a version that leaves out the rows of each mask."""
    return [RunSpec(s, s, np.flatnonzero(~mask)) for s, mask in zip(seeds, gone, strict=True)]


def _random(n: int, count: int, runs: int, seed: int, *of: str) -> list[np.ndarray]:
    """Return a mask of random rows for each run."""
    drawn = [
        stream(seed, " of ".join(("random removal", *of)), r).permutation(n)[:count] for r in range(runs)
    ]
    return [np.isin(np.arange(n), rows) for rows in drawn]


def _trained(context: Context, versions: Sequence[_Version], stage: str) -> dict[str, np.ndarray]:
    """Return the outputs [runs, k] of every version on the evaluation rows."""
    held = context.data.evaluation
    query = RowOutputs(torch.from_numpy(held.x), torch.from_numpy(held.y), held.target.classes is not None)
    rows = digest(held.x.tobytes(), held.y.tobytes())
    runs, found = len(versions[0].specs), {}
    for place, version in enumerate(versions):

        def tell(done: int, place: int = place) -> None:
            context.progress(stage, place * runs + done, len(versions) * runs)

        found[version.name] = _outputs(context, version, query, rows, tell)
    return found


def _outputs(
    context: Context, version: _Version, query: RowOutputs, rows: str, tell: Callable[[int], None]
) -> np.ndarray:
    parts = []
    for start in range(0, len(version.specs), _CHUNK):
        chunk = version.specs[start : start + _CHUNK]
        kept = [b"" if spec.keep is None else spec.keep.tobytes() for spec in chunk]
        key = digest(
            rows.encode(), version.labels.tobytes(), repr([spec.init_seed for spec in chunk]).encode(), *kept
        )
        name = f"{_PARTS}/{key}.safetensors"
        if not (context.folder / name).exists():
            queries: list[Any] = [query]
            found = train_many(
                version.recipe, chunk, queries, progress=lambda _, done, of, start=start: tell(start + done)
            )
            with atomic(context.folder / name) as part:
                save_file({"outputs": torch.from_numpy(found.values)}, part)
        with context.folder.reading(name):
            parts.append(read_tensors(context.folder / name)["outputs"].numpy())
        tell(start + len(chunk))
    return np.concatenate(parts)


def _compared(outputs: Mapping[str, np.ndarray], held: Table) -> dict[str, Any]:
    """Return measures, arms and differences of the versions; empty where fewer than two runs are finite."""
    finite = np.all([np.isfinite(v).all(1) for v in outputs.values()], axis=0)
    whole = {arm: v[finite] for arm, v in outputs.items()}
    named = measures(held.target)
    result: dict[str, Any] = {
        "level": _LEVEL,
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
    first, second, third = whole
    pairs = [(second, first), (third, first), (second, third)]
    of_arm = {
        arm: {m.full_name: _over(m, by_measure[m], held) for m in named} for arm, by_measure in values.items()
    }
    result["arms"] = [
        {"name": arm, "runs": int(finite.sum()), "values": found} for arm, found in of_arm.items()
    ]
    result["differences"] = [
        {
            "metric": m.full_name,
            "name": f"{a} − {b}",
            **_over(m, values[a][m] - values[b][m], held),
        }
        for m in named
        for a, b in pairs
    ]
    if held.target.classes is not None:
        hits = {arm: by_measure[named[1]] for arm, by_measure in values.items()}
        result["recall"] = _recalls(hits, pairs, held)
    result["runs"] = {
        arm: np.stack(
            [by_measure[m].mean(1) for m in named if m.name != "balanced accuracy"], axis=1
        ).tolist()
        for arm, by_measure in values.items()
    }
    return result


def _over(measure: Measured, values: np.ndarray, held: Table) -> dict[str, float]:
    """Return the mean of a measure's values [runs, rows] with its interval."""
    if measure.name != "balanced accuracy":
        return _plain(crossed_interval(values, level=_LEVEL))
    rows = np.isin(held.y, known_classes(held.y))
    if not rows.any():
        return dict.fromkeys(("value", "lower", "upper"), float("nan"))
    return _plain(crossed_interval(values[:, rows], held.y[rows], level=_LEVEL))


def _recalls(
    hits: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], held: Table
) -> list[dict[str, Any]]:
    """Return the recall of each class with two held-out rows or more; its changes at 5 % over all classes."""
    known, names = known_classes(held.y), held.target.classes or ()
    level = 1 - (1 - _LEVEL) / max(1, len(known))
    lines = []
    for k in known:
        of = {arm: values[:, held.y == k] for arm, values in hits.items()}
        lines.append(
            {
                "class": str(names[k]),
                "rows": int((held.y == k).sum()),
                "arms": {arm: _plain(crossed_interval(values, level=_LEVEL)) for arm, values in of.items()},
                "changes": {
                    f"{a} − {b}": _plain(crossed_interval(of[a] - of[b], level=level)) for a, b in pairs
                },
            }
        )
    return lines


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": float(interval.estimate), "lower": float(interval.lower), "upper": float(interval.upper)}
