"""retrain: the truth. Many trainings with and without each subset, compared as two laws."""

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.ensemble import Executor, Laboratory, RunStore, Seeds, Vary, covers
from finfluence.estimators.retrain._checks import check_budget, check_options, constant_finding
from finfluence.estimators.retrain._designs import from_arms, from_halves
from finfluence.estimators.retrain._sequential import FIRST_LOOK, Precision, check_reachable, check_until
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, Recipe, Stepper, check_queries, initial_model
from finfluence.runs.describe import Given, check_removable, find_subsets


def retrain(
    recipe: Recipe,
    queries: Sequence[AnyQuery] | AnyQuery,
    subsets: Given = None,
    *,
    runs: int | None = None,
    runs_without: int | None = None,
    until: Precision | None = None,
    design: Literal["leave-out", "half-subsets", "paired"] = "leave-out",
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
        "leave-out": trainings on all rows (default 100), and without each subset (default: as many).
        "half-subsets": `runs` trainings in all, an even number, whatever the number of subsets.
        "paired": pairs for each subset. With `until`, these are the runs of the first look (default 32).
    until : Precision, optional
        For instance `se("mu") < 0.1`: runs are added, where they are needed and look by look, until the standard
        error is below the bound for every subset and query, or `max_runs` are trained.
    design : {"leave-out", "half-subsets", "paired"}
        "leave-out" trains with all rows, and without each subset, on independent seeds. "paired" gives run k
        without a subset the seeds of run k with all rows, and a batch order that differs as little as its law
        allows: the same effect and spread, and far fewer runs for the same error of `effect` where training is
        smooth. "half-subsets" keeps each subset with probability ½ and trains each such half twice: effects of
        all subsets come from the same runs. **Scale**: removal of S from data where every other subset is there
        half of the time. A row then has about twice its weight in the mean loss, and spread is that of training
        on such a half. Rows in no subset are always there; subsets must not overlap.
    vary : {"all", "order", "init"}
        What differs between runs: all that the recipe leaves open, or only batch order (with dropout), or
        only initialisation.
    mu : {"pooled_d", "auc_probit"}
        "pooled_d": effect / spread. "auc_probit": √2 Φ⁻¹(AUC), invariant to monotone transforms of the query,
        but it saturates: K runs against K say at most |μ| = √2 Φ⁻¹(1 − 1/(2K²)), 5.5 for K = 100.
    out : path, optional
        Folder of finished runs: kept there as they finish, and reused by any later call that needs them.
    executor, n_jobs : optional
        As in `train_many`: None stacks copies in this process, "joblib" uses processes, "ray" a Ray cluster.
    max_runs : int
        Refuse to start more runs than this; with `until`, stop there.

    Returns
    -------
    Influence
        With `effect_se`, the standard error of `effect`. The p-value is by Welch, for pairs by Student. Subsets
        share the runs on all rows, so their errors are correlated. With `until`, attributes tell the number of
        `looks`, the runs of each arm, and the pairs (subset, query) `unreached`.

    Raises
    ------
    DataError
        Unknown ids; a subset that leaves less than a batch or empties a class; queries that never vary.
    ConfigError
        Too few runs for a spread or for the precision asked for, or more than `max_runs`.
    TrainingError
        So many runs diverged that no law is left.

    Notes
    -----
    Cost: runs + subsets × runs_without trainings. Stacked copies of a small model cost about a sixth of one
    each. Runs whose state or queries are not finite are left out of the estimates, counted in the attribute
    `diverged` and told in a finding.

    References
    ----------
    Wang and Jia, "Data Banzhaf" (2023), for random halves; f-influence, arXiv 2510.10510, for the two laws.

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
    check_until(until)
    runs = runs if runs is not None else 100 if until is None else FIRST_LOOK
    without = runs if runs_without is None else runs_without
    check_options(design, mu, runs, without, level)
    total = runs if design == "half-subsets" else runs + len(found) * without
    check_budget(total, max_runs, len(found), design)
    check_reachable(until, design, len(found), max_runs)
    check_removable(recipe, found)
    stochastic = Stepper(recipe, initial_model(recipe, seed), seed).stochastic
    options = {"executor": executor, "n_jobs": n_jobs, "max_bytes": max_bytes, "progress": progress}
    lab = Laboratory(recipe, listed, RunStore(out), options)
    seeds = Seeds(seed, vary)
    if design == "half-subsets":
        law, own, more = from_halves(lab, found, seeds, np.array([runs // 2]), level, until, max_runs)
    else:
        plan = np.array([runs, *[without] * len(found)])
        law, own, more = from_arms(lab, found, seeds, plan, mu, level, design == "paired", until, max_runs)
    lab.findings += constant_finding(law, lab.names)
    made = Provenance(
        method="retrain", design=design, vary=vary, mu=mu, seed=seed, covers=tuple(covers(recipe, vary, stochastic)),
        n_rows=len(recipe.rows), level=level, engine=lab.how, runs_trained=lab.trained, runs_reused=lab.reused,
        findings=tuple(lab.findings), **more,
    )  # fmt: skip
    return Influence.build(
        effect=law.effect, spread=law.spread, mu=law.mu, se=law.se, p_value=law.p_value, lower=law.lower,
        upper=law.upper, subsets=found.names, sizes=found.sizes, queries=lab.names, own_loss=own,
        units=[q.unit for q in listed for _ in q.names], signs=[q.sign for q in listed for _ in q.names],
        provenance=made, effect_se=law.effect_se,
    )  # fmt: skip
