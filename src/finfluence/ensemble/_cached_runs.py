"""A trainer with a cache: a run is looked up in the store, else trained and stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.ensemble._bank import ModelBank
from finfluence.ensemble._stacked import RunSpec
from finfluence.ensemble._store import RunStore, run_key, signature
from finfluence.ensemble._train_many import Workers, train_many
from finfluence.runs import AnyQuery, Recipe, own_loss
from finfluence.runs.describe import Subsets

OWN_LOSS_RUNS = 16


@dataclass
class CachedTrainer:
    """Runs of one recipe with one list of queries: looked up in the store, else trained and stored.

    With a bank, runs that are not in the store are looked up in the bank, else trained into it, to the same values.
    """

    recipe: Recipe
    queries: list[AnyQuery]
    store: RunStore
    workers: Workers = field(default_factory=Workers)
    progress: Progress = silent
    bank: ModelBank | None = None
    trained: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)
    how: str = field(default="every run was in the store", init=False)
    findings: list[str] = field(default_factory=list, init=False)
    _used: set[str] = field(default_factory=set, init=False)

    @property
    def names(self) -> list[str]:
        """One name for each column of `values`."""
        return [name for query in self.queries for name in query.names]

    @cached_property
    def _signature(self) -> str:
        return signature(self.recipe, self.queries)

    def values(self, runs: Sequence[RunSpec]) -> np.ndarray:
        """Return query values [runs, Q], NaN for runs that diverged."""
        keys = [run_key(self._signature, self.recipe, run) for run in runs]
        missing = {key: run for key, run in zip(keys, runs, strict=True) if self.store.get(key) is None}
        new = list(missing)
        trained = len(new)
        if missing and self.bank is not None:
            trained = self._from_bank(self.bank, missing)
        elif missing:
            result = train_many(
                self.recipe, list(missing.values()), self.queries, self.workers, progress=self.progress,
                on_done=lambda indices, values: self.store.add([new[i] for i in indices], values),
            )  # fmt: skip
            self.how = result.how
        self.trained += trained
        self.reused += len(set(keys) - self._used) - trained
        self._used |= set(keys)
        return np.stack([_found(self.store, key) for key in keys])

    def left(self, runs: Sequence[RunSpec]) -> int:
        """Return how many of these runs are neither in the store nor in the bank."""
        if not len(self.store) and self.bank is None:
            return len(runs)
        new = [run for run in runs if self.store.get(run_key(self._signature, self.recipe, run)) is None]
        return len(new) if self.bank is None else len(self.bank.missing(new))

    def _from_bank(self, bank: ModelBank, missing: Mapping[str, RunSpec]) -> int:
        """Put the values of missing runs into the store; return how many had to be trained."""
        before = bank.trained
        values = bank.values(list(missing.values()), self.queries, _as_retraining(self.progress))
        self.store.add(list(missing), values)
        reason = bank.one_by_one
        self.how = f"stacked, in the bank {bank.folder.name}" if reason is None else f"one by one: {reason}"
        return bank.trained - before

    def own_losses(self, subsets: Subsets, runs: Sequence[RunSpec]) -> np.ndarray:
        """Return each subset's mean final training loss [S] over the first few runs that held it; NaN if empty."""
        some, own = runs[:OWN_LOSS_RUNS], np.full(len(subsets), np.nan)
        rows = np.unique(np.concatenate(subsets.positions))
        if not len(rows):
            return own
        asked = [own_loss(self.recipe.rows.ids[rows].tolist())]
        if self.bank is None:
            losses = train_many(self.recipe, some, asked, self.workers).values
        else:
            losses = self.bank.values(some, asked)
        for run, row in zip(some, losses, strict=True):
            if run.keep is not None:
                row[~np.isin(rows, run.keep)] = np.nan
        known = np.isfinite(losses)
        mean = np.where(known, losses, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        for k, positions in enumerate(subsets.positions):
            if len(positions):
                own[k] = mean[np.searchsorted(rows, positions)].mean()
        return own


def _found(store: RunStore, key: str) -> np.ndarray:
    values = store.get(key)
    assert values is not None, key
    return values


def _as_retraining(progress: Progress) -> Progress:
    """Return a progress that calls what the bank does "retrain"."""
    return lambda stage, done, total: progress("retrain", done, total)
