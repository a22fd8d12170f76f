"""retrain: the truth. Many trainings with and without each subset, compared as two laws."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, DataError, TrainingError, explain
from finfluence.estimators._batched import RunSpec
from finfluence.estimators._laws import Law, half_subsets, two_samples
from finfluence.estimators._parallel import Executor
from finfluence.estimators._retrain_design import Seeds, Vary, covers, leave_out, random_halves
from finfluence.estimators._run_store import RunStore, run_key, signature
from finfluence.estimators._subsets import Given, Subsets, check_removable, find_subsets
from finfluence.estimators._train_many import train_many
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Recipe, Stepper, check_queries, initial_model, own_loss

_OWN_LOSS_RUNS = 16


@dataclass
class _Laboratory:
    """Runs of one recipe with one list of queries: looked up in the store, else trained and stored."""

    recipe: Recipe
    queries: list[AnyQuery]
    store: RunStore
    options: dict[str, Any]
    trained: int = 0
    reused: int = 0
    how: str = "every run was in the store"
    findings: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for query in self.queries for name in query.names]

    def values(self, runs: Sequence[RunSpec]) -> np.ndarray:
        """Return query values [runs, Q], NaN for runs that diverged."""
        base = signature(self.recipe, self.queries)
        keys = [run_key(base, self.recipe, run) for run in runs]
        missing = {key: run for key, run in zip(keys, runs, strict=True) if self.store.get(key) is None}
        new = list(missing)
        if missing:
            result = train_many(
                self.recipe, list(missing.values()), self.queries, **self.options,
                on_done=lambda indices, values: self.store.add([new[i] for i in indices], values),
            )  # fmt: skip
            self.how = result.how
        self.trained, self.reused = self.trained + len(new), self.reused + len(keys) - len(new)
        return np.stack([_found(self.store, key) for key in keys])


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

    effect(S) = E[q | trained without S] − E[q | trained with S], spread² = (Var_P + Var_Q)/2, μ = effect / spread.
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
        "half-subsets" keeps each subset with probability ½ and trains each such half twice: effects of all
        subsets come from the same runs. **Scale**: the effect of removing S from data where every other subset
        is there half of the time, about twice that of removal from all rows when the data are small; spread is
        that of training on such a half. Rows in no subset are always there; subsets must not overlap.
    vary : {"all", "order", "init"}
        What differs between runs: "all" that the recipe leaves open, batch order (with dropout), or initialisation.
    mu : {"pooled_d", "auc_probit"}
        "pooled_d": effect / spread. "auc_probit": √2 Φ⁻¹(AUC), invariant to monotone transforms of the query,
        but it saturates: K runs against K cannot say more than |μ| ≈ √2 Φ⁻¹(1 − 1/(2K²)), 5 for K = 100.
    out : path, optional
        Folder of finished runs: kept there as they finish, and reused by any later call that needs them.
    executor, n_jobs : optional
        As in `train_many`: None stacks copies in this process, "joblib" uses processes.
    max_runs : int
        Refuse to start more runs than this.

    Returns
    -------
    Influence
        With `effect_se`, the standard error of `effect`. The `se`, the interval and the p-value (Welch) take runs
        as independent; subsets share the runs on all rows, so their errors are correlated.

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
    Cost: runs + subsets × runs_without trainings. Stacked copies of a small model cost about a sixth of a training
    each. Runs whose state or queries are not finite are left out of the estimates and counted in the attribute
    `diverged` and in a finding.

    References
    ----------
    methods.md 1.9 (fixed step count); Wang and Jia, "Data Banzhaf" (2023), for random halves.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Query, Rows
    >>> recipe = Recipe(data=Rows(x=np.zeros((4, 1)), y=np.array([0.0, 0, 0, 4])), model=nn.Linear(1, 1),
    ...     loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2 / 2, optimizer=SGD(lr=0.5), batch_size=1, epochs=10)
    >>> level = Query(lambda m: m.bias.sum(), name="level")
    >>> influence = retrain(recipe, level, [3], runs=20)
    >>> bool(influence.data.effect.item() < -0.5)
    True
    """
    listed, found = check_queries(queries), find_subsets(recipe, subsets)
    without = runs if runs_without is None else runs_without
    _check(design, mu, runs, without, level)
    total = runs if design == "half-subsets" else runs + len(found) * without
    _check_budget(total, max_runs, len(found), design)
    check_removable(recipe, found)
    stochastic = Stepper(recipe, initial_model(recipe, seed), seed).stochastic
    options = {"executor": executor, "n_jobs": n_jobs, "max_bytes": max_bytes, "progress": progress}
    lab = _Laboratory(recipe, listed, RunStore(out), options)
    attrs: dict[str, Any] = {
        "method": "retrain", "design": design, "vary": vary, "mu": mu, "seed": seed,
        "covers": covers(recipe, vary, stochastic), "n_rows": len(recipe.rows),
    }  # fmt: skip
    seeds = Seeds(seed, vary)
    if design == "half-subsets":
        law, own = _from_halves(lab, found, seeds, runs, level, attrs)
    else:
        law, own = _from_leave_out(lab, found, seeds, runs, without, mu, level, attrs)
    _note_constants(law, lab)
    attrs |= {"engine": lab.how, "runs_trained": lab.trained, "runs_reused": lab.reused}
    return Influence.build(
        effect=law.effect, spread=law.spread, mu=law.mu, se=law.se, p_value=law.p_value, lower=law.lower,
        upper=law.upper, subsets=found.names, sizes=found.sizes, queries=lab.names, own_loss=own, level=level,
        units=[q.unit for q in listed for _ in q.names], signs=[q.sign for q in listed for _ in q.names],
        attrs=attrs | {"findings": lab.findings}, extra={"effect_se": law.effect_se},
    )  # fmt: skip


def _from_leave_out(
    lab: _Laboratory, subsets: Subsets, seeds: Seeds, runs: int, runs_without: int, mu: str, level: float,
    attrs: dict[str, Any],
) -> tuple[Law, np.ndarray]:  # fmt: skip
    everything, arms = leave_out(seeds, len(lab.recipe.rows), subsets, runs, runs_without)
    values = lab.values([*everything, *(run for arm in arms for run in arm)])
    cut = np.cumsum([len(everything), *(len(arm) for arm in arms)])[:-1]
    parts = np.split(values, cut)
    names = ["all rows", *(f"without '{name}'" for name in subsets.names)]
    finite = [_finite(lab, part, name) for part, name in zip(parts, names, strict=True)]
    dropped = {n: len(p) - len(f) for n, p, f in zip(names, parts, finite, strict=True) if len(f) < len(p)}
    attrs |= {"runs": len(values), "runs_with": runs, "runs_without": runs_without}
    attrs["diverged"] = _note_diverged(lab, dropped, len(values))
    return two_samples(finite[0], finite[1:], mu, level), _own_losses(lab, subsets, everything)


def _from_halves(
    lab: _Laboratory, subsets: Subsets, seeds: Seeds, runs: int, level: float, attrs: dict[str, Any]
) -> tuple[Law, np.ndarray]:
    _check_disjoint(subsets)
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
    attrs |= {"runs": runs, "halves": runs // 2, "diverged": _note_diverged(lab, dropped, runs)}
    attrs["scale"] = "removal where every other subset is present half of the time"
    law = half_subsets(values[0][good], values[1][good], kept[good], level)
    return law, _own_losses(lab, subsets, [run for run in first if run.keep is not None])


def _own_losses(lab: _Laboratory, subsets: Subsets, runs: Sequence[RunSpec]) -> np.ndarray:
    """Return each subset's mean final training loss [S] over the first few runs that held it."""
    some = runs[:_OWN_LOSS_RUNS]
    rows = np.unique(np.concatenate(subsets.positions))
    losses = train_many(
        lab.recipe, some, [own_loss(rows.tolist())], **{**lab.options, "progress": silent}
    ).values
    for run, row in zip(some, losses, strict=True):
        if run.keep is not None:
            row[~np.isin(rows, run.keep)] = np.nan
    known = np.isfinite(losses)
    mean = np.where(known, losses, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    return np.array([mean[np.searchsorted(rows, s)].mean() for s in subsets.positions])


def _finite(lab: _Laboratory, values: np.ndarray, arm: str) -> np.ndarray:
    good = np.isfinite(values).all(1)
    if good.sum() >= 2:
        return values[good]
    bad = [n for n, column in zip(lab.names, np.isfinite(values).T, strict=True) if not column.all()]
    raise TrainingError(
        explain(
            f"at least two finished runs on {arm}"
            if arm == "all rows"
            else f"at least two finished runs {arm}",
            f"{int(good.sum())} of {len(values)}; not finite: {', '.join(bad[:3])}",
            f"the learning rate ({lab.recipe.optimizer.lr:g}) is too high, or a query takes the logarithm of zero",
            "lower the learning rate tenfold, or bound the query",
        )
    )


def _note_diverged(lab: _Laboratory, dropped: dict[str, int], total: int) -> dict[str, int]:
    if dropped:
        worst = max(dropped, key=lambda name: dropped[name])
        lab.findings.append(
            f"{sum(dropped.values())} of {total} runs diverged and are left out (most: {dropped[worst]}, {worst}); "
            "the estimates describe the runs that did not"
        )
    return dropped


def _note_constants(law: Law, lab: _Laboratory) -> None:
    constant = [n for n, still in zip(lab.names, (law.spread == 0).any(0), strict=True) if still]
    if len(constant) == len(lab.names) and (law.spread == 0).all():
        raise DataError(
            explain(
                "queries that differ between runs",
                f"the same value in every run of {', '.join(constant[:3])}",
                "nothing random is left (one batch holds all rows, and the initialisation is fixed), or the query "
                "counts something that never changes",
                "vary what your training varies (model=callable(seed)), or ask for a loss instead of a count",
            )
        )
    if constant:
        lab.findings.append(
            f"no spread between runs, so no μ, for some subsets of: {', '.join(constant[:5])}"
        )


def _check(design: str, mu: str, runs: int, runs_without: int, level: float) -> None:
    if (
        design not in ("leave-out", "half-subsets")
        or mu not in ("pooled_d", "auc_probit")
        or not 0 < level < 1
    ):
        raise ConfigError(
            explain(
                "design 'leave-out' or 'half-subsets', mu 'pooled_d' or 'auc_probit', level between 0 and 1",
                f"design={design!r}, mu={mu!r}, level={level!r}",
                "a mistyped word",
                "use one of these",
            )
        )
    if design == "half-subsets" and (mu != "pooled_d" or runs < 8 or runs % 2):
        raise ConfigError(
            explain(
                "an even number of at least 8 runs and mu='pooled_d' for random halves",
                f"runs={runs}, mu={mu!r}",
                "each half is trained twice, and their laws are mixtures that an AUC cannot split",
                "pass for instance runs=400",
            )
        )
    if min(runs, runs_without) < 2:
        raise ConfigError(
            explain(
                "at least 2 runs with and 2 without each subset",
                f"runs={runs}, runs_without={runs_without}",
                "a spread needs two values",
                "pass runs=50 for a standard error of μ of about 0.2, runs=200 for 0.1",
            )
        )


def _check_budget(total: int, max_runs: int, n_subsets: int, design: str) -> None:
    if total > max_runs:
        raise ConfigError(
            explain(
                f"at most {max_runs} runs (max_runs)",
                f"{total} runs for {n_subsets} subsets",
                "every row alone was asked for" if design == "leave-out" else "a mistyped number",
                "name fewer subsets or runs, use design='half-subsets' (its cost does not grow with subsets), "
                f"or pass max_runs={total}",
            )
        )


def _check_disjoint(subsets: Subsets) -> None:
    rows, counts = np.unique(np.concatenate(subsets.positions), return_counts=True)
    if (counts > 1).any():
        raise DataError(
            explain(
                "subsets that do not overlap for design='half-subsets'",
                f"{int((counts > 1).sum())} rows in more than one, first at position {int(rows[counts > 1][0])}",
                "groups were built by several columns at once",
                "pass one grouping per call, or use design='leave-out'",
            )
        )


def _found(store: RunStore, key: str) -> np.ndarray:
    values = store.get(key)
    assert values is not None, key
    return values
