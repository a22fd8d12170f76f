"""The retraining check: train on the original, the cleaned and randomly thinned rows, and compare on held-out rows."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._files import digest, write_json
from finfluence._seeds import stream, torch_seed
from finfluence.clean import Decisions
from finfluence.ensemble import RunSpec, train_many
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import CHECK, ScanFolder
from finfluence.jobs.scan._models import SMALL
from finfluence.runs import Query, Recipe, Rows, mean_loss
from finfluence.stats import mean_interval, paired_difference

ARMS = ("original", "cleaned", "random removals")
LOSS = "held-out loss"
_CHUNK, _PARTS = 10, "proof"


def automatic_runs(n: int, model: str) -> int:
    """Return how often each version is trained by default, so that the check costs no more than the rest of the scan.

    Linear models and small MLPs train side by side: 20 times for up to 5,000 rows, 10 for 20,000, 5 beyond. Any other
    model gains little by that: 5 times.

    Returns
    -------
    int

    Examples
    --------
    >>> automatic_runs(1000, "mlp"), automatic_runs(1000, "cnn")
    (20, 5)
    """
    if model not in SMALL:
        return 5
    return 20 if n <= 5_000 else 10 if n <= 20_000 else 5


def check_by_retraining(
    context: Context, decisions: Decisions, *, runs: int, seed: int
) -> dict[str, Any] | None:
    """Return held-out loss and accuracy (regression: RMSE) of the three versions, or None if nothing was named.

    The r-th run of every version shares its seeds; each random run removes its own random rows, as many as cleaning
    dropped or relabelled. Runs that are whole in the folder are not repeated.

    Returns
    -------
    dict[str, Any] | None
    """
    training, data, folder = context.training, context.data, context.folder
    frame = decisions.frame
    drop = frame["suggested_action"].to_numpy() == "drop"
    relabel = frame["suggested_action"].to_numpy() == "relabel"
    changed = int(drop.sum() + relabel.sum())
    n = len(frame)
    if not changed or n - changed < max(2, training.recipe.batch_size):
        return None
    y = data.train.y.copy()
    if relabel.any():
        y[relabel] = data.train.target.encode(frame["suggested_label"].to_numpy(dtype=object)[relabel])
    relabelled = replace(training.recipe, data=Rows(x=data.train.x, y=y, ids=data.train.ids.tolist()))
    seeds = [torch_seed(seed, "proof", run) % 2**31 for run in range(runs)]
    kept = np.flatnonzero(~drop)
    random = [np.sort(stream(seed, "random removal", r).permutation(n)[changed:]) for r in range(runs)]
    plans: dict[str, tuple[Recipe, list[RunSpec]]] = {
        "original": (training.recipe, [RunSpec(s, s) for s in seeds]),
        "cleaned": (relabelled, [RunSpec(s, s, kept) for s in seeds]),
        "random removals": (training.recipe, [RunSpec(s, s, k) for s, k in zip(seeds, random, strict=True)]),
    }
    queries, names = _measures(data, training.unit)
    key = digest(drop.tobytes(), y.tobytes(), repr((seeds, names)).encode())
    values: dict[str, np.ndarray] = {}
    for place, arm in enumerate(ARMS):

        def tell(done: int, place: int = place) -> None:
            context.progress("retraining check", place * runs + done, len(ARMS) * runs)

        values[arm] = _arm(*plans[arm], queries, folder, f"{place}-{key}", tell)
    result = _compared(values, names, changed, data)
    write_json(folder / CHECK, result)
    for path in (folder / _PARTS).glob("*.json"):
        path.unlink()
    if (folder / _PARTS).exists():
        (folder / _PARTS).rmdir()
    return result


def _arm(
    recipe: Recipe, specs: Sequence[RunSpec], queries: Sequence[Any], folder: ScanFolder, key: str, tell: Any
) -> np.ndarray:
    parts = []
    for start in range(0, len(specs), _CHUNK):
        name = f"{_PARTS}/{key}-{start:03d}.json"
        chunk = specs[start : start + _CHUNK]
        if not (folder / name).exists():
            found = train_many(
                recipe, chunk, queries, progress=lambda stage, done, total, start=start: tell(start + done)
            )
            write_json(folder / name, found.values.tolist())
        with folder.reading(name):
            parts.append(np.array(json.loads((folder / name).read_text(encoding="utf-8")), dtype=np.float64))
        tell(start + len(chunk))
    return np.concatenate(parts)


def _measures(data: ScanData, unit: str) -> tuple[list[Any], list[str]]:
    held = data.evaluation
    x, y = torch.from_numpy(held.x), torch.from_numpy(held.y)
    loss = mean_loss(held.x, held.y, name=LOSS, unit=unit)
    if held.target.classes is not None:

        def accuracy(model: nn.Module) -> Tensor:
            return (model(x).argmax(1) == y).double().mean()

        return [loss, Query(accuracy, name="held-out accuracy", unit="", sign=1)], [LOSS, "held-out accuracy"]
    scale = held.target.scale

    def rmse(model: nn.Module) -> Tensor:
        return scale * ((model(x)[:, 0] - y) ** 2).mean().sqrt()

    return [loss, Query(rmse, name="held-out RMSE", unit=held.target.name)], [LOSS, "held-out RMSE"]


def _compared(
    values: dict[str, np.ndarray], names: list[str], changed: int, data: ScanData
) -> dict[str, Any]:
    finite = np.all([np.isfinite(v).all(1) for v in values.values()], axis=0)
    values = {arm: v[finite] for arm, v in values.items()}
    classes = data.evaluation.target.classes is not None
    metrics = [
        {"name": LOSS, "better": "lower", "unit": "nats" if classes else ""},
        {
            "name": names[1],
            "better": "higher" if classes else "lower",
            "unit": "" if classes else data.evaluation.target.name,
        },
    ]
    arms = [
        {
            "name": arm,
            "runs": int(finite.sum()),
            "values": {name: _interval(mean_interval(v[:, i])) for i, name in enumerate(names)},
        }
        for arm, v in values.items()
    ] if finite.sum() >= 2 else []  # fmt: skip
    pairs = [("cleaned", "original"), ("random removals", "original"), ("cleaned", "random removals")]
    differences = [
        {"metric": name, "name": f"{a} − {b}", **_interval(paired_difference(values[a][:, i], values[b][:, i]))}
        for i, name in enumerate(names)
        for a, b in pairs
    ] if arms else []  # fmt: skip
    return {
        "changed_rows": changed,
        "judging_rows": len(data.evaluation),
        "apart": data.halved,
        "diverged_runs": int((~finite).sum()),
        "metrics": metrics,
        "arms": arms,
        "differences": differences,
        "runs": {arm: v.tolist() for arm, v in values.items()},
    }


def _interval(interval: Any) -> dict[str, float]:
    return {"value": float(interval.estimate), "lower": float(interval.lower), "upper": float(interval.upper)}
