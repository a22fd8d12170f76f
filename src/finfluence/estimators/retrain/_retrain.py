"""retrain: the truth. Many trainings with and without each subset, compared as two samples of outcomes."""

import os
from collections.abc import Sequence
from typing import Literal

from finfluence._progress import Progress, silent
from finfluence.ensemble import (
    OWN_LOSS_RUNS,
    CachedTrainer,
    Executor,
    ModelBank,
    RunStore,
    StackedRuns,
    Vary,
    Workers,
    covers,
    not_stackable,
)
from finfluence.estimators._base import AbstractEstimator, Cost
from finfluence.estimators.retrain._checks import check_budget, constant_finding
from finfluence.estimators.retrain._designs import Experiment, from_arms, from_halves
from finfluence.estimators.retrain._options import RetrainOptions
from finfluence.estimators.retrain._sequential import Precision, check_reachable, least_runs
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, Recipe, Stepper, initial_model
from finfluence.runs.describe import Given, Subsets, check_removable

BANK = "retrained"
"""Name of a bank that retraining makes."""


class Retrain(AbstractEstimator[Recipe, RetrainOptions]):
    """Training again, with and without each subset, many times each: the truth.

    effect(S) = E_Q[q] − E_P[q], spread² = (Var_P[q] + Var_Q[q]) / 2, μ = effect / spread;
    P: trained with S, Q: without. Positive: removing S raises the query. `fi.retrain` is the short way, and says what
    each option means.

    Notes
    -----
    Cost: runs + subsets × runs_without trainings, and a few for the own losses. `cost` counts the first analysis and
    what `until` needs at least, and does not look into a folder of finished runs.

    References
    ----------
    f-influence, arXiv 2510.10510, for the two distributions.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Rows
    >>> recipe = Recipe(
    ...     data=Rows(x=np.zeros((4, 1)), y=np.array([0.0, 0, 0, 4])), model=nn.Linear(1, 1),
    ...     loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2 / 2,
    ...     optimizer=SGD(lr=0.5), batch_size=1, epochs=10)
    >>> level = Query(lambda m: m.bias.sum(), name="level")
    >>> influence = Retrain(RetrainOptions(runs=20)).estimate(recipe, level, [3])
    >>> bool(influence.data.effect.item() < -0.5)
    True
    """

    name = "retrain"
    family = "retrain"
    paper = "arXiv 2510.10510, Definition 2.5"
    yields = "mu"
    needs = Recipe
    Options = RetrainOptions

    def _check(self, source: Recipe) -> None:
        self._covers(source)

    def _estimate(
        self, source: Recipe, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        options = self.options
        check_budget(self._runs(subsets), options.max_runs, len(subsets), options.design)
        check_reachable(options.until, options.design, len(subsets.nonempty()), options.max_runs)
        check_removable(source, subsets)
        workers = Workers(options.executor, options.n_jobs, options.max_bytes)
        bank = None
        if options.bank is not None:
            bank = ModelBank(source, options.bank, BANK, options.max_bytes)
        trainer = CachedTrainer(source, queries, RunStore(options.out), workers, progress, bank)
        experiment = Experiment(trainer, subsets, options)
        halves = options.design == "half-subsets" and len(subsets.nonempty()) > 0
        found, own, more = from_halves(experiment) if halves else from_arms(experiment)
        trainer.findings += constant_finding(found, trainer.names)
        made = Provenance(
            method=self.name, design=options.design, vary=options.vary, mu=options.mu, seed=options.seed,
            covers=tuple(self._covers(source)), n_rows=len(source.rows), level=options.level, engine=trainer.how,
            runs_trained=trainer.trained, runs_reused=trainer.reused, findings=tuple(trainer.findings), **more,
        )  # fmt: skip
        return Influence.build(
            effect=found.effect, effect_se=found.effect_se, spread=found.spread, mu=found.mu, se=found.se,
            p_value=found.p_value, lower=found.lower, upper=found.upper, own_loss=own, provenance=made,
            subsets=subsets.names, sizes=subsets.sizes, queries=trainer.names,
            units=[q.unit for q in queries for _ in q.names], signs=[q.sign for q in queries for _ in q.names],
        )  # fmt: skip

    def _cost(self, source: Recipe, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        options, runs = self.options, self._runs(subsets)
        if options.until is not None:
            needed = least_runs(options.until, options.design, len(subsets.nonempty()))
            runs = min(options.max_runs, max(runs, needed))
        seeds = [options.seed, options.seed + 1]
        template = initial_model(source, options.seed)
        stack = StackedRuns(source, template)
        replicas = 1 if not_stackable(source, seeds) else stack.replicas(options.max_bytes)
        own = min(OWN_LOSS_RUNS, options.first_runs)
        return Cost(runs + own, min(replicas, runs) * stack.bytes_per_replica())

    def _covers(self, source: Recipe) -> list[str]:
        """Name what differs between runs, or raise if nothing of what is to vary does."""
        stochastic = Stepper(source, initial_model(source, self.options.seed), self.options.seed).stochastic
        return covers(source, self.options.vary, stochastic)

    def _runs(self, subsets: Subsets) -> int:
        """Return the trainings of the first analysis."""
        if self.options.design == "half-subsets":
            return self.options.first_runs
        return self.options.first_runs + len(subsets.nonempty()) * self.options.first_without


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
    bank: str | os.PathLike[str] | None = None,
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
    recipe : Recipe
        What is trained.
    queries : Query or sequence of them
        What is measured.
    subsets : mapping, sequence or None
        {name: row ids}; or row ids, each alone; or groups of ids; None: every row alone.
    runs, runs_without : int
        "leave-out": trainings on all rows (default 100), and without each subset (default: as many).
        "half-subsets": `runs` trainings in all, an even number, whatever the number of subsets.
        "paired": pairs for each subset. With `until`, these are the runs of the first analysis (default 32).
    until : Precision, optional
        For instance `se("mu") < 0.1`: runs are added, where they are needed and analysis by analysis, until the
        standard error is below the bound for every subset and query, or `max_runs` are trained.
    design : {"leave-out", "half-subsets", "paired"}
        "leave-out" trains with all rows, and without each subset, on independent seeds. "paired" gives run k
        without a subset the seeds of run k with all rows, and a batch order that differs as little as its distribution
        allows (common random numbers): the same effect and spread, and far fewer runs for the same error of `effect`
        where training is smooth. "half-subsets" keeps each subset with probability ½ and trains each such half twice:
        effects of
        all subsets come from the same runs. **Scale**: removal of S from data where every other subset is there
        half of the time. A row then has about twice its weight in the mean loss, and spread is that of training
        on such a half. Rows in no subset are always there; subsets must not overlap.
    vary : {"all", "order", "init"}
        What differs between runs: all that the recipe leaves open, or only batch order (with dropout), or
        only initialisation.
    mu : {"pooled_d", "auc_probit"}
        "pooled_d": effect / spread. "auc_probit": √2 Φ⁻¹(AUC), invariant to monotone transforms of the query,
        but it saturates: K runs against K say at most |μ| = √2 Φ⁻¹(1 − 1/(2K²)), 5.5 for K = 100.
    level : float
        Level of the intervals.
    seed : int
        Master seed of all runs.
    out : path, optional
        Folder of finished runs: kept there as they finish, and reused by any later call that needs them.
    bank : path, optional
        Folder of banks of retrained models, a folder in it for each recipe: final parameters are kept, so that another
        query, or `verify`, trains nothing again. The numbers are the same with and without.
    executor, n_jobs : optional
        None stacks copies in this process, "joblib" uses processes, "ray" a Ray cluster.
    max_bytes : int
        Memory for the copies trained at once.
    max_runs : int
        Refuse to start more runs than this; with `until`, stop there.
    progress : callable
        Called as `progress("retrain", done, total)`.

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
        So many runs diverged that no sample is left.
    NotSupportedError
        A bank was asked for, and frozen parameters or buffers differ between initialisations.
    StorageError
        A file of finished runs or of the bank is damaged.

    Notes
    -----
    Cost: runs + subsets × runs_without trainings. Stacked copies of a small model cost about a sixth of one
    each. Runs whose state or queries are not finite are left out of the estimates, counted in the attribute
    `diverged` and told in a finding.

    References
    ----------
    Wang and Jia, "Data Banzhaf" (2023), for random halves; f-influence, arXiv 2510.10510, for the two distributions.

    Examples
    --------
    >>> import numpy as np
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
    options = RetrainOptions(
        runs=runs, runs_without=runs_without, until=until, design=design, vary=vary, mu=mu, level=level, seed=seed,
        out=out, bank=bank, executor=executor, n_jobs=n_jobs, max_bytes=max_bytes, max_runs=max_runs,
    )  # fmt: skip
    return Retrain(options).estimate(recipe, queries, subsets, progress=progress)
