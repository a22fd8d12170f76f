"""retrain: the truth. Many trainings with and without each subset, compared as two laws."""

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, DataError, explain
from finfluence.estimators._laboratory import Laboratory
from finfluence.estimators._laws import Law, half_subsets, two_samples
from finfluence.estimators._parallel import Executor
from finfluence.estimators._retrain_checks import (
    check_budget,
    check_disjoint,
    check_options,
    constant_finding,
    diverged_finding,
    finite_runs,
)
from finfluence.estimators._retrain_design import Seeds, Vary, covers, leave_out, random_halves
from finfluence.estimators._run_store import RunStore
from finfluence.estimators._subsets import Given, Subsets, check_removable, find_subsets
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Recipe, Stepper, check_queries, initial_model


def retrain(
    recipe: Recipe,
    queries: Sequence[AnyQuery] | AnyQuery,
    subsets: Given = None,
    *,
    runs: int = 100,
    runs_without: int | None = None,
    design: Literal["leave-out", "half-subsets"] = "leave-out",
    vary: Vary = "all",
    mu: Literal["pooled_d", "auc_probit"] = "pooled_d",
    level: float = 0.95,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    n_jobs: int | None = None,
    max_bytes: int = 2**30,
    max_runs: int = 50_000,
    progress: Progress = silent,
) -> Influence:
    """Measure influence by its definition: train with and without each subset, many times each.

    effect(S) = E_Q[q] − E_P[q], spread² = (Var_P[q] + Var_Q[q]) / 2, μ = effect / spread;
    P: trained with S, Q: without.
    The number of optimiser steps is the same with and without S.

    Parameters
    ----------
    queries : Query or sequence of them
    subsets : mapping, sequence or None
        {name: row ids}; or row ids, each alone; or groups of ids; None: every row alone.
    runs, runs_without : int
        "leave-out": trainings on all rows, and without each subset (default: as many).
        "half-subsets": `runs` trainings in all, an even number, whatever the number of subsets.
    design : {"leave-out", "half-subsets"}
        "leave-out" trains with all rows, and without each subset. "half-subsets" keeps each subset with
        probability ½ and trains each such half twice: effects of all subsets come from the same runs.
        **Scale**: removal of S from data where every other subset is there half of the time. A row then has
        about twice its weight in the mean loss, and spread is that of training on such a half. Rows in no
        subset are always there; subsets must not overlap.
    vary : {"all", "order", "init"}
        What differs between runs: all that the recipe leaves open, or only batch order (with dropout), or
        only initialisation.
    mu : {"pooled_d", "auc_probit"}
        "pooled_d": effect / spread. "auc_probit": √2 Φ⁻¹(AUC), invariant to monotone transforms of the query,
        but it saturates: K runs against K say at most |μ| = √2 Φ⁻¹(1 − 1/(2K²)), 5.5 for K = 100.
    out : path, optional
        Folder of finished runs: kept there as they finish, and reused by any later call that needs them.
    executor, n_jobs : optional
        As in `train_many`: None stacks copies in this process, "joblib" uses processes.
    max_runs : int
        Refuse to start more runs than this.

    Returns
    -------
    Influence
        With `effect_se`, the standard error of `effect`. The p-value is by Welch. Subsets share the runs on
        all rows, so their errors are correlated.

    Raises
    ------
    DataError
        Unknown ids; a subset that leaves less than a batch or empties a class; queries that never vary.
    ConfigError
        Too few runs for a spread, or more than `max_runs`.
    TrainingError
        So many runs diverged that no law is left.

    Notes
    -----
    Cost: runs + subsets × runs_without trainings; stacked copies of a small model cost about a sixth of one
    each. Runs whose state or queries are not finite are left out of the estimates, counted in the attribute
    `diverged` and told in a finding.

    References
    ----------
    methods.md 1.9 (fixed step count); Wang and Jia, "Data Banzhaf" (2023), for random halves.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Rows
    >>> recipe = Recipe(
    ...     data=Rows(x=np.zeros((4, 1)), y=np.array([0.0, 0, 0, 4])), model=nn.Linear(1, 1),
    ...     loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2 / 2,
    ...     optimizer=SGD(lr=0.5), batch_size=1, epochs=10)
    >>> level = Query(lambda m: m.bias.sum(), name="level")
    >>> influence = retrain(recipe, level, [3], runs=20)
    >>> bool(influence.data.effect.item() < -0.5)
    True
    """
    listed, found = check_queries(queries), find_subsets(recipe, subsets)
    without = runs if runs_without is None else runs_without
    check_options(design, mu, runs, without, level)
    total = runs if design == "half-subsets" else runs + len(found) * without
    check_budget(total, max_runs, len(found), design)
    check_removable(recipe, found)
    stochastic = Stepper(recipe, initial_model(recipe, seed), seed).stochastic
    options = {"executor": executor, "n_jobs": n_jobs, "max_bytes": max_bytes, "progress": progress}
    lab = Laboratory(recipe, listed, RunStore(out), options)
    attrs: dict[str, Any] = {
        "method": "retrain", "design": design, "vary": vary, "mu": mu, "seed": seed,
        "covers": covers(recipe, vary, stochastic), "n_rows": len(recipe.rows),
    }  # fmt: skip
    seeds = Seeds(seed, vary)
    if design == "half-subsets":
        law, own = _from_halves(lab, found, seeds, runs, level, attrs)
    else:
        law, own = _from_leave_out(lab, found, seeds, runs, without, mu, level, attrs)
    lab.findings += constant_finding(law, lab.names)
    attrs |= {"engine": lab.how, "runs_trained": lab.trained, "runs_reused": lab.reused}
    return Influence.build(
        effect=law.effect, spread=law.spread, mu=law.mu, se=law.se, p_value=law.p_value, lower=law.lower,
        upper=law.upper, subsets=found.names, sizes=found.sizes, queries=lab.names, own_loss=own, level=level,
        units=[q.unit for q in listed for _ in q.names], signs=[q.sign for q in listed for _ in q.names],
        attrs=attrs | {"findings": lab.findings}, extra={"effect_se": law.effect_se},
    )  # fmt: skip


def _from_leave_out(
    lab: Laboratory, subsets: Subsets, seeds: Seeds, runs: int, runs_without: int, mu: str, level: float,
    attrs: dict[str, Any],
) -> tuple[Law, np.ndarray]:  # fmt: skip
    everything, arms = leave_out(seeds, len(lab.recipe.rows), subsets, runs, runs_without)
    values = lab.values([*everything, *(run for arm in arms for run in arm)])
    cut = np.cumsum([len(everything), *(len(arm) for arm in arms)])[:-1]
    parts = np.split(values, cut)
    names = ["all rows", *(f"without '{name}'" for name in subsets.names)]
    lr = lab.recipe.optimizer.lr
    finite = [finite_runs(part, lab.names, lr, name) for part, name in zip(parts, names, strict=True)]
    dropped = {n: len(p) - len(f) for n, p, f in zip(names, parts, finite, strict=True) if len(f) < len(p)}
    attrs |= {"runs": len(values), "runs_with": runs, "runs_without": runs_without}
    attrs["diverged"] = dropped
    lab.findings += diverged_finding(dropped, len(values))
    return two_samples(finite[0], finite[1:], mu, level), lab.own_losses(subsets, everything)


def _from_halves(
    lab: Laboratory, subsets: Subsets, seeds: Seeds, runs: int, level: float, attrs: dict[str, Any]
) -> tuple[Law, np.ndarray]:
    check_disjoint(subsets)
    kept, first, second = random_halves(seeds, len(lab.recipe.rows), subsets, runs // 2)
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
    values = lab.values([*first, *second]).reshape(2, runs // 2, -1)
    good = np.isfinite(values).all((0, 2))
    dropped = {"random halves": int((~good).sum())} if not good.all() else {}
    counts = np.minimum(kept[good].sum(0), (~kept[good]).sum(0))
    if good.sum() < 2 or counts.min() < 2:
        raise ConfigError(
            explain(
                "every subset to be in at least two random halves and out of two",
                f"{int(good.sum())} finished halves, in which '{subsets.names[int(counts.argmin())]}' is "
                f"{'in' if kept[good].sum(0)[counts.argmin()] < 2 else 'out'} less than twice",
                "too few runs, or most of them diverged",
                f"pass runs={max(40, 4 * runs)} or more; finished runs are reused if out=… is given",
            )
        )
    attrs |= {"runs": runs, "halves": runs // 2, "diverged": dropped}
    lab.findings += diverged_finding(dropped, runs)
    attrs["scale"] = "removal where every other subset is present half of the time"
    law = half_subsets(values[0][good], values[1][good], kept[good], level)
    return law, lab.own_losses(subsets, [run for run in first if run.keep is not None])
