"""The designs of retrain at work: the runs that a plan asks for, what they show, and how a plan grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finfluence.ensemble import CachedTrainer, Seeds, leave_out, random_halves
from finfluence.errors import ConfigError, DataError, explain
from finfluence.estimators.retrain._checks import check_disjoint, diverged_finding, finite_runs
from finfluence.estimators.retrain._estimates import Estimates, half_subsets, pairs, two_samples
from finfluence.estimators.retrain._options import RetrainOptions
from finfluence.estimators.retrain._sequential import (
    Plan,
    SequentialStopping,
    grow_arms,
    grow_halves,
    grow_pairs,
    pairs_cost,
    unreached,
)
from finfluence.runs.describe import Subsets

Measured = tuple[Estimates, np.ndarray, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Experiment:
    """What is compared, by which trainings, and the options that say how."""

    trainer: CachedTrainer
    subsets: Subsets
    options: RetrainOptions

    @property
    def seeds(self) -> Seeds:
        """Seeds of every run."""
        return Seeds(self.options.seed, self.options.vary)

    @property
    def n_rows(self) -> int:
        """Rows of the training data."""
        return len(self.trainer.recipe.rows)


def from_arms(experiment: Experiment) -> Measured:
    """Compare runs on all rows with runs without each subset.

    An empty subset needs no run: without it is with all rows.

    Returns
    -------
    tuple
        Estimates, own losses [S], and the attributes of the result.
    """
    trainer, options, seeds = experiment.trainer, experiment.options, experiment.seeds
    removed = experiment.subsets.nonempty()
    paired = options.design == "paired"
    names = ["all rows", *(f"without '{name}'" for name in removed.names)]
    dropped: dict[str, int] = {}
    spread = np.zeros(len(trainer.names))

    def measure(plan: Plan) -> Estimates:
        arms = leave_out(seeds, experiment.n_rows, removed, plan, paired)
        values = trainer.values([run for arm in arms for run in arm])
        parts = np.split(values, np.cumsum(plan)[:-1])
        if paired:
            finite = np.isfinite(parts[0]).all(1)[:, None]
            parts[1:] = [np.where(finite[: len(part)], part, np.nan) for part in parts[1:]]
        lr = trainer.recipe.optimizer.lr
        good = [finite_runs(part, trainer.names, lr, name) for part, name in zip(parts, names, strict=True)]
        dropped.clear()
        dropped.update(
            {n: len(p) - len(g) for n, p, g in zip(names, parts, good, strict=True) if len(g) < len(p)}
        )
        spread[:] = good[0].std(0, ddof=1)
        if not len(removed):
            return Estimates.none(len(trainer.names))
        if not paired:
            return two_samples(good[0], good[1:], options.mu, options.level)
        whole = [parts[0][: len(part)][np.isfinite(part).all(1)] for part in parts[1:]]
        return pairs(list(zip(whole, good[1:], strict=True)), options.level)

    stopping = SequentialStopping(
        measure, grow_pairs if paired else grow_arms, pairs_cost if paired else _total
    )
    plan = np.array([options.first_runs, *[options.first_without] * len(removed)])
    found, plan, analyses = stopping.until(plan, options.until, options.max_runs)
    trainer.findings += diverged_finding(dropped, int(plan.sum()))
    attrs = {
        "runs": int(plan.sum()), "runs_with": int(plan[0]), "diverged": dropped,
        "runs_without": int(plan[1:].min()) if len(removed) else 0,
        **_stopped(experiment, found, removed, analyses, int(plan.sum())),
    }  # fmt: skip
    if options.until is not None:
        attrs["runs_without_each"] = tuple(plan[1:].tolist())
    own = trainer.own_losses(experiment.subsets, [seeds.run(None, k) for k in range(int(plan[0]))])
    return found.with_empty(experiment.subsets.sizes, spread), own, attrs


def from_halves(experiment: Experiment) -> Measured:
    """Return estimates, own losses and attributes of random halves, each trained twice."""
    trainer, options, seeds = experiment.trainer, experiment.options, experiment.seeds
    removed = experiment.subsets.nonempty()
    check_disjoint(removed)
    dropped: dict[str, int] = {}

    def measure(plan: Plan) -> Estimates:
        kept, first, second = random_halves(seeds, experiment.n_rows, removed, int(plan[0]))
        short = min(len(run.keep) for run in first if run.keep is not None)
        if short < trainer.recipe.batch_size:
            raise DataError(
                explain(
                    f"every random half to hold a batch of {trainer.recipe.batch_size} rows",
                    f"one of {short} rows",
                    "half of the data is hardly more than a batch",
                    "use design='leave-out', or a smaller batch_size",
                )
            )
        values = trainer.values([*first, *second]).reshape(2, len(first), -1)
        good = np.isfinite(values).all((0, 2))
        dropped.clear()
        dropped.update({"random halves": int((~good).sum())} if not good.all() else {})
        _check_seen(kept[good], removed, len(first))
        return half_subsets(values[0][good], values[1][good], kept[good], options.level)

    stopping = SequentialStopping(measure, grow_halves, lambda plan: 2 * _total(plan))
    plan = np.array([options.first_runs // 2])
    found, plan, analyses = stopping.until(plan, options.until, options.max_runs)
    halves = int(plan[0])
    trainer.findings += diverged_finding(dropped, 2 * halves)
    attrs = {
        "runs": 2 * halves, "halves": halves, "diverged": dropped,
        "scale": "removal where every other subset is present half of the time",
        **_stopped(experiment, found, removed, analyses, 2 * halves),
    }  # fmt: skip
    _, first, _ = random_halves(seeds, experiment.n_rows, removed, halves)
    own = trainer.own_losses(experiment.subsets, first)
    return found.with_empty(experiment.subsets.sizes, found.spread[0]), own, attrs


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
    experiment: Experiment, found: Estimates, removed: Subsets, analyses: int, cost: int
) -> dict[str, Any]:
    """Return the attributes that tell where sequential stopping stopped."""
    trainer, options = experiment.trainer, experiment.options
    if options.until is None:
        return {}
    missed, told = unreached(options.until, found, removed.names, trainer.names, cost, options.max_runs)
    trainer.findings += told
    return {"until": str(options.until), "looks": analyses, "unreached": tuple(map(tuple, missed))}


def _total(plan: Sequence[int] | np.ndarray) -> int:
    return int(np.sum(plan))
