"""The retraining check: train on the original, the cleaned and randomly thinned rows, and compare on held-out rows."""

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from finfluence._files import write_json
from finfluence._seeds import stream
from finfluence.clean import Decisions
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import CHECK, GROUP_CHECK
from finfluence.jobs.scan._models import SMALL
from finfluence.jobs.scan._versions import (
    FEWEST_ROWS,
    ORIGINAL,
    PARTS,
    Version,
    cleaned,
    compared,
    original,
    run_seeds,
    trained,
    without,
)

WITHOUT, RANDOM = "without", "random removals"
MOST_GROUPS = 3


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
    seeds, n = run_seeds(seed, runs), len(decisions.frame)
    version = cleaned(context, decisions.frame, seeds)
    if version is None or len(data.evaluation) < FEWEST_ROWS:
        return None
    changed = int(decisions.frame["suggested_action"].isin(["drop", "relabel"]).sum())
    versions = [
        original(context, seeds),
        version,
        Version(RANDOM, training.recipe, data.train.y, without(seeds, _random(n, changed, runs, seed))),
    ]
    outputs = trained(context, versions, "retraining check")
    result = {
        "changed_rows": changed,
        "judging_rows": len(data.evaluation),
        "apart": data.halved,
        **compared(outputs, data.evaluation),
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
    seeds = run_seeds(seed, runs)
    tried: dict[str, Any] = {}
    versions, judged = [original(context, seeds)], {}
    for group in groups[: MOST_GROUPS if training.model.name in SMALL else 1]:
        rows = names == group
        others = np.arange(len(data.evaluation)) if of_rows is None else np.flatnonzero(of_rows != group)
        if not rows.any() or n - rows.sum() < max(2, training.recipe.batch_size) or len(others) < FEWEST_ROWS:
            continue
        judged[group] = others
        versions += [
            Version(f"{WITHOUT} {group}", training.recipe, data.train.y, without(seeds, [rows] * runs)),
            Version(
                f"{RANDOM} {group}",
                training.recipe,
                data.train.y,
                without(seeds, _random(n, int(rows.sum()), runs, seed, group)),
            ),
        ]
    outputs = trained(context, versions, "retrain without groups") if judged else {}
    for group, others in judged.items():
        arms = {ORIGINAL: ORIGINAL, WITHOUT: f"{WITHOUT} {group}", RANDOM: f"{RANDOM} {group}"}
        part = data.evaluation.take(others)
        chosen = np.concatenate([others, others + len(data.evaluation)]) if part.target.classes else others
        tried[group] = {
            "changed_rows": int((names == group).sum()),
            "judging_rows": len(others),
            "apart": data.halved,
            **compared({arm: outputs[name][:, chosen] for arm, name in arms.items()}, part),
        }
    write_json(context.folder / GROUP_CHECK, tried)
    return tried


def forget_parts(context: Context) -> None:
    """Remove the outputs of single runs, which both checks share."""
    shutil.rmtree(context.folder / PARTS, ignore_errors=True)


def _random(n: int, count: int, runs: int, seed: int, *of: str) -> list[np.ndarray]:
    """Return a mask of random rows for each run."""
    drawn = [
        stream(seed, " of ".join(("random removal", *of)), r).permutation(n)[:count] for r in range(runs)
    ]
    return [np.isin(np.arange(n), rows) for rows in drawn]
