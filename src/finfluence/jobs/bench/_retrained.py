"""The truth that estimates are held against: models of the bank, trained on halves of the rows and without groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from finfluence._progress import Progress
from finfluence._seeds import stream
from finfluence.ensemble import ModelBank, RunSpec, Seeds, without
from finfluence.jobs.bench._problem import Problem
from finfluence.runs import AnyQuery

SEEDS_OF_A_HALF = 3
"""Trainings on each half with seeds of their own."""
OF_ALL = 4
"""Trainings on all rows, in multiples of those without each group: their error is in every effect."""
MASTER = 1_000_000
"""Seed of the trainings, far from those that methods look at."""


@dataclass(frozen=True, eq=False)
class Halves:
    """Query values after training on random halves of the rows.

    Attributes
    ----------
    left_out : array of bool [M, n]
        Which rows each training did without.
    same_seed : array [seeds, M, Q]
        Trained with the seeds of the run that methods look at, with batches as near to its own as can be.
    other_seeds : array [R, M, Q]
        Trained with seeds of their own.
    """

    left_out: np.ndarray
    same_seed: np.ndarray
    other_seeds: np.ndarray


@dataclass(frozen=True, eq=False)
class Removed:
    """What removing groups of rows does to queries, by many trainings with and without: arrays [G, Q].

    effect = E[q without] − E[q with all]; spread² the mean of both variances; mu = effect / spread, with its standard
    error. `with_all` are the values [runs, Q] after training on all rows, the first that of `first`.
    """

    groups: dict[str, list[int]]
    effect: np.ndarray
    spread: np.ndarray
    mu: np.ndarray
    mu_se: np.ndarray
    with_all: np.ndarray
    first: RunSpec

    def frame(self, queries: Sequence[str]) -> pd.DataFrame:
        """Return one line for each group and query."""
        return pd.DataFrame(
            {
                "group": np.repeat(list(self.groups), len(queries)),
                "query": np.tile(list(queries), len(self.groups)),
                **{name: getattr(self, name).ravel() for name in ("effect", "spread", "mu", "mu_se")},
            }
        )


def train_halves(
    bank: ModelBank, queries: Sequence[AnyQuery], count: int, seeds: Sequence[int], progress: Progress
) -> Halves:
    """Return query values after training on `count` random halves, with the seeds given and with others."""
    n = len(bank.recipe.rows)
    keeps = [
        np.sort(stream(MASTER, "bench halves", m).permutation(n)[: n // 2]).astype(np.int64)
        for m in range(count)
    ]
    own = Seeds(MASTER, "all")
    same = [RunSpec(s, s, keep, paired=True) for s in seeds for keep in keeps]
    other = [own.run(keep, k) for k in range(SEEDS_OF_A_HALF) for keep in keeps]
    values = bank.values([*same, *other], queries, progress)
    left_out = np.stack([~np.isin(np.arange(n), keep) for keep in keeps])
    shape = (-1, count, values.shape[1])
    return Halves(left_out, values[: len(same)].reshape(shape), values[len(same) :].reshape(shape))


def remove_groups(
    bank: ModelBank, queries: Sequence[AnyQuery], groups: dict[str, list[int]], runs: int, progress: Progress
) -> Removed:
    """Return what removing each group does, by `runs` trainings without it and four times as many on all rows."""
    n, own = len(bank.recipe.rows), Seeds(MASTER, "all")
    specs = [own.run(None, k) for k in range(OF_ALL * runs)]
    for rows in groups.values():
        keep = without(n, np.asarray(rows))
        specs += [own.run(keep, k) for k in range(runs)]
    values = bank.values(specs, queries, progress)
    with_all, rest = values[: OF_ALL * runs], values[OF_ALL * runs :].reshape(len(groups), runs, -1)
    effect = np.nanmean(rest, axis=1) - np.nanmean(with_all, axis=0)
    of_all, of_rest = np.nanvar(with_all, axis=0, ddof=1), np.nanvar(rest, axis=1, ddof=1)
    spread = np.sqrt((of_all + of_rest) / 2)
    error = np.sqrt(of_all / len(with_all) + of_rest / runs)
    return Removed(groups, effect, spread, effect / spread, error / spread, with_all, specs[0])


def make_groups(problem: Problem, size: int) -> dict[str, list[int]]:
    """Return groups of rows to remove: at random, of wrong labels, and of one class with right ones."""
    rng = stream(problem.seed, "bench groups")
    labels = problem.recipe.rows.batch(_all(problem))["y"].numpy()
    wrong, right = np.flatnonzero(problem.flipped), ~problem.flipped
    groups = {f"random {k}": rng.choice(len(labels), size, replace=False) for k in range(6)}
    few = min(size, len(wrong))
    groups |= {f"wrong labels {k}": rng.choice(wrong, few, replace=False) for k in range(5)}
    for c in np.unique(labels)[:5]:
        members = np.flatnonzero(right & (labels == c))
        groups[f"class {c}"] = rng.choice(members, min(size, len(members) // 2 + 1), replace=False)
    return {name: sorted(int(i) for i in rows) for name, rows in groups.items()}


def _all(problem: Problem) -> torch.Tensor:
    return torch.arange(len(problem.ids))
