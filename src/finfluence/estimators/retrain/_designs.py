"""The designs of retrain at work: the runs a plan asks for, the laws they give, and how a plan grows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from finfluence.ensemble import Laboratory, Seeds, leave_out, random_halves
from finfluence.errors import ConfigError, DataError, explain
from finfluence.estimators.retrain._checks import check_disjoint, diverged_finding, finite_runs
from finfluence.estimators.retrain._estimates import Law, half_subsets, pairs, two_samples
from finfluence.estimators.retrain._sequential import (
    Looks,
    Plan,
    Precision,
    grow_arms,
    grow_halves,
    grow_pairs,
    pairs_cost,
    unreached,
)
from finfluence.runs.describe import Subsets

Measured = tuple[Law, np.ndarray, dict[str, Any]]


def from_arms(
    lab: Laboratory, subsets: Subsets, seeds: Seeds, plan: Plan, mu: str, level: float, paired: bool,
    until: Precision | None, max_runs: int,
) -> Measured:  # fmt: skip
    """Return law, own losses and attributes of runs on all rows and without each subset."""
    names = ["all rows", *(f"without '{name}'" for name in subsets.names)]
    dropped: dict[str, int] = {}

    def measure(plan: Plan) -> Law:
        arms = leave_out(seeds, len(lab.recipe.rows), subsets, plan, paired)
        values = lab.values([run for arm in arms for run in arm])
        parts = np.split(values, np.cumsum(plan)[:-1])
        if paired:
            finite = np.isfinite(parts[0]).all(1)[:, None]
            parts[1:] = [np.where(finite[: len(part)], part, np.nan) for part in parts[1:]]
        lr = lab.recipe.optimizer.lr
        good = [finite_runs(part, lab.names, lr, name) for part, name in zip(parts, names, strict=True)]
        dropped.clear()
        dropped.update(
            {n: len(p) - len(g) for n, p, g in zip(names, parts, good, strict=True) if len(g) < len(p)}
        )
        if not paired:
            return two_samples(good[0], good[1:], mu, level)
        whole = [parts[0][: len(part)][np.isfinite(part).all(1)] for part in parts[1:]]
        return pairs(list(zip(whole, good[1:], strict=True)), level)

    looks = Looks(measure, grow_pairs if paired else grow_arms, pairs_cost if paired else _total)
    law, plan, count = looks.until(plan, until, max_runs)
    lab.findings += diverged_finding(dropped, int(plan.sum()))
    attrs = {
        "runs": int(plan.sum()), "runs_with": int(plan[0]), "runs_without": int(plan[1:].min()), "diverged": dropped,
        **_stopped(lab, until, law, subsets, count, int(plan.sum()), max_runs),
    }  # fmt: skip
    if until is not None:
        attrs["runs_without_each"] = tuple(plan[1:].tolist())
    return law, lab.own_losses(subsets, [seeds.run(None, k) for k in range(int(plan[0]))]), attrs


def from_halves(
    lab: Laboratory, subsets: Subsets, seeds: Seeds, plan: Plan, level: float,
    until: Precision | None, max_runs: int,
) -> Measured:  # fmt: skip
    """Return law, own losses and attributes of `plan` [1] random halves, each trained twice."""
    check_disjoint(subsets)
    dropped: dict[str, int] = {}

    def measure(plan: Plan) -> Law:
        kept, first, second = random_halves(seeds, len(lab.recipe.rows), subsets, int(plan[0]))
        short = min(len(run.keep) for run in first if run.keep is not None)
        if short < lab.recipe.batch_size:
            raise DataError(
                explain(
                    f"every random half to hold a batch of {lab.recipe.batch_size} rows",
                    f"one of {short} rows",
                    "half of the data is hardly more than a batch",
                    "use design='leave-out', or a smaller batch_size",
                )
            )
        values = lab.values([*first, *second]).reshape(2, len(first), -1)
        good = np.isfinite(values).all((0, 2))
        dropped.clear()
        dropped.update({"random halves": int((~good).sum())} if not good.all() else {})
        _check_seen(kept[good], subsets, len(first))
        return half_subsets(values[0][good], values[1][good], kept[good], level)

    law, plan, count = Looks(measure, grow_halves, lambda plan: 2 * _total(plan)).until(plan, until, max_runs)
    halves = int(plan[0])
    lab.findings += diverged_finding(dropped, 2 * halves)
    attrs = {
        "runs": 2 * halves, "halves": halves, "diverged": dropped,
        "scale": "removal where every other subset is present half of the time",
        **_stopped(lab, until, law, subsets, count, 2 * halves, max_runs),
    }  # fmt: skip
    _, first, _ = random_halves(seeds, len(lab.recipe.rows), subsets, halves)
    return law, lab.own_losses(subsets, first), attrs


def _check_seen(kept: np.ndarray, subsets: Subsets, halves: int) -> None:
    counts = np.minimum(kept.sum(0), (~kept).sum(0))
    if len(kept) < 2 or counts.min() < 2:
        raise ConfigError(
            explain(
                "every subset to be in at least two random halves and out of two",
                f"{len(kept)} finished halves, in which '{subsets.names[int(counts.argmin())]}' is "
                f"{'in' if kept.sum(0)[counts.argmin()] < 2 else 'out'} less than twice",
                "too few runs, or most of them diverged",
                f"pass runs={max(40, 8 * halves)} or more; finished runs are reused if out=… is given",
            )
        )


def _stopped(
    lab: Laboratory, until: Precision | None, law: Law, subsets: Subsets, looks: int, cost: int, max_runs: int
) -> dict[str, Any]:
    """Return the attributes that tell where adaptive stopping stopped."""
    if until is None:
        return {}
    missed, told = unreached(until, law, subsets.names, lab.names, cost, max_runs)
    lab.findings += told
    return {"until": str(until), "looks": looks, "unreached": tuple(map(tuple, missed))}


def _total(plan: Sequence[int] | np.ndarray) -> int:
    return int(np.sum(plan))
