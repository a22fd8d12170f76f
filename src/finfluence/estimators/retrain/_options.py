"""Options of retrain, refused together where no design takes them."""

import os
from dataclasses import dataclass
from typing import Literal

from finfluence.ensemble import Executor, Vary
from finfluence.errors import ConfigError, explain
from finfluence.estimators._base import check_choice, check_whole
from finfluence.estimators.retrain._sequential import FIRST_ANALYSIS, Precision, check_until


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """Options of `Retrain`; `fi.retrain` says more of each.

    Parameters
    ----------
    runs : int, optional
        Trainings on all rows, or in all for half-subsets; 100, or 32 to begin with where `until` is given.
    runs_without : int, optional
        Trainings without each subset; as many unless given.
    until : Precision, optional
        Precision at which runs are no longer added, such as se("mu") < 0.1.
    design : {"leave-out", "half-subsets", "paired"}
        Which trainings are compared.
    vary : {"all", "order", "init"}
        What differs between runs.
    mu : {"pooled_d", "auc_probit"}
        Estimator of μ.
    level : float
        Level of the intervals.
    seed : int
        Master seed.
    out : path, optional
        Folder of finished runs.
    bank : path, optional
        Folder of banks of retrained models.
    executor : {None, "serial", "joblib", "ray"}
        Where to train.
    n_jobs : int, optional
        Processes.
    max_bytes : int
        Memory for the copies trained at once.
    max_runs : int
        The most runs to start.

    Raises
    ------
    ConfigError
        A word that is none of these, too few runs for a spread, or options that no design takes together.
    """

    runs: int | None = None
    runs_without: int | None = None
    until: Precision | None = None
    design: Literal["leave-out", "half-subsets", "paired"] = "leave-out"
    vary: Vary = "all"
    mu: Literal["pooled_d", "auc_probit"] = "pooled_d"
    level: float = 0.95
    seed: int = 0
    out: str | os.PathLike[str] | None = None
    bank: str | os.PathLike[str] | None = None
    executor: Executor | None = None
    n_jobs: int | None = None
    max_bytes: int = 2**30
    max_runs: int = 50_000

    def __post_init__(self) -> None:
        check_until(self.until)
        check_choice("vary", self.vary, ("all", "order", "init"))
        if self.executor is not None:
            check_choice("executor", self.executor, ("serial", "joblib", "ray"))
        if self.bank is not None and self.executor in ("joblib", "ray"):
            raise ConfigError(
                explain(
                    "executor to be None or 'serial' with a bank",
                    repr(self.executor),
                    "a bank trains in the process that asks, and keeps what it trained",
                    "leave executor out, or bank",
                )
            )
        check_whole("seed", self.seed, 0)
        for name in ("max_bytes", "max_runs", "n_jobs", "runs", "runs_without"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        self._check_words()
        self._check_runs()

    @property
    def first_runs(self) -> int:
        """Trainings on all rows, of the first analysis where there are several; in all for half-subsets."""
        return self.runs if self.runs is not None else 100 if self.until is None else FIRST_ANALYSIS

    @property
    def first_without(self) -> int:
        """Trainings without each subset, likewise."""
        return self.first_runs if self.runs_without is None else self.runs_without

    def _check_words(self) -> None:
        level = self.level if isinstance(self.level, (int, float)) else 0.0
        if (
            self.design not in ("leave-out", "half-subsets", "paired")
            or self.mu not in ("pooled_d", "auc_probit")
            or not 0 < level < 1
        ):
            raise ConfigError(
                explain(
                    "design 'leave-out', 'half-subsets' or 'paired', mu 'pooled_d' or 'auc_probit', "
                    "level between 0 and 1",
                    f"design={self.design!r}, mu={self.mu!r}, level={self.level!r}",
                    "a mistyped word",
                    "use one of these",
                )
            )

    def _check_runs(self) -> None:
        runs, without = self.first_runs, self.first_without
        if self.design == "half-subsets" and (self.mu != "pooled_d" or runs < 8 or runs % 2):
            raise ConfigError(
                explain(
                    "an even number of at least 8 runs and mu='pooled_d' for random halves",
                    f"runs={runs}, mu={self.mu!r}",
                    "each half is trained twice, and their outcomes are mixtures that an AUC cannot split",
                    "pass for instance runs=400",
                )
            )
        if self.design == "paired" and (self.mu != "pooled_d" or without > runs):
            raise ConfigError(
                explain(
                    "mu='pooled_d' and no more runs without a subset than on all rows for design='paired'",
                    f"runs={runs}, runs_without={without}, mu={self.mu!r}",
                    "run k without a subset is compared with run k on all rows; an AUC takes its samples as "
                    "independent",
                    "leave runs_without out, or use design='leave-out'",
                )
            )
        if min(runs, without) < 2:
            raise ConfigError(
                explain(
                    "at least 2 runs with and 2 without each subset",
                    f"runs={runs}, runs_without={without}",
                    "a spread needs two values",
                    "pass runs=50 for a standard error of μ of about 0.2, runs=200 for 0.1",
                )
            )
