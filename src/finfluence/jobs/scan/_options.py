"""What a scan is asked to do: options, checked before anything is read or written."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from operator import le
from typing import Any

from finfluence.errors import ConfigError, explain
from finfluence.jobs.scan._budget import check_scan_budget, runs_for
from finfluence.result import one_of

QUERIES = ("held-out", "per-class", "own")
OPTIMIZERS = ("sgd", "adamw")
MODELS = ("auto", "linear", "mlp", "cnn")


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Options of `scan`; None means that the scan chooses and says what it chose.

    Parameters
    ----------
    source
        A `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.npz` file, a folder of images by class, or a built-in name.
    out
        Folder for everything the scan writes; nothing is written outside it.
    target, id_column, group_column
        Columns with the label, the row ids and groups of rows.
    holdout, holdout_fraction
        A file with held-out rows, or the share of `source` to hold out (0.2).
    task
        "auto", "classification" or "regression".
    queries
        Some of "held-out" (always asked), "per-class" and "own".
    model
        "auto", "linear", "mlp", "cnn" or `package.module:factory`, called as
        `factory(input_shape, n_outputs, seed)`.
    epochs, batch_size, lr, optimizer
        The training; chosen by the number of rows where None.
    runs
        Trainings to replay; by default 4, or what `budget` pays for. One: its initialisation is fixed and the spread
        covers the batch order. More: each draws its own initialisation and order, and the spread covers both.
    budget
        What the estimate may cost in multiples of one training: `runs` × (training + replay). Where `runs` is None it
        makes a run for every 4, at least one; each is replayed as closely as its share pays for, measured on the first
        run. Proof and self-test come on top.
    seed
        Of the hold-out draw, the initialisations, the batch orders and the proof.
    fdr
        Accepted share of false names among the named rows.
    proof, proof_runs
        Whether to retrain on the original, the cleaned and randomly thinned rows, and how often each.
    self_test
        Train and replay once more with planted neutral rows, and count how many do not come out neutral.
    resume
        Go on with an interrupted scan in `out`.
    keep_tapes
        Keep the recorded trainings (up to 1 GiB each) instead of deleting them when they have been replayed.
    """

    source: str | os.PathLike[str]
    out: str | os.PathLike[str]
    target: str | None = None
    holdout: str | os.PathLike[str] | None = None
    holdout_fraction: float | None = None
    id_column: str | None = None
    group_column: str | None = None
    task: str = "auto"
    queries: tuple[str, ...] = ("held-out",)
    model: str = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str = "adamw"
    runs: int | None = None
    budget: float | None = None
    seed: int = 0
    fdr: float = 0.1
    proof: bool = True
    proof_runs: int | None = None
    self_test: bool = False
    resume: bool = False
    keep_tapes: bool = False

    def __post_init__(self) -> None:
        asked = [one_of(name, QUERIES, "query") for name in self.queries]
        object.__setattr__(self, "queries", tuple(q for q in QUERIES if q == "held-out" or q in asked))
        one_of(self.optimizer, OPTIMIZERS, "optimizer")
        if ":" not in self.model:
            one_of(self.model, MODELS, "model (or package.module:factory)")
        for option, least in (("runs", 1), ("epochs", 1), ("batch_size", 1), ("proof_runs", 2), ("seed", 0)):
            self._check(option, f"a whole number of at least {least}", partial(le, least))
        if self.budget is not None:
            check_scan_budget(self.budget, self.runs)
        self._check("lr", "a positive number", lambda v: 0 < v < float("inf"))
        self._check("fdr", "a number between 0 and 1, such as 0.1 for 10 %", lambda v: 0 < v < 1)

    @property
    def n_runs(self) -> int:
        """Trainings to replay: as asked, or as chosen."""
        return runs_for(self.runs, self.budget)

    @property
    def replay_budget(self) -> float | None:
        """What one replay may cost in training runs; None: no budget."""
        return None if self.budget is None else self.budget / self.n_runs - 1

    def _check(self, option: str, expected: str, fits: Callable[[Any], bool]) -> None:
        value = getattr(self, option)
        if value is not None and not fits(value):
            raise ConfigError(
                explain(
                    f"--{option.replace('_', '-')} to be {expected}",
                    repr(value),
                    "a percentage, a sign or a digit slipped in",
                    "correct the option, or leave it out to use the default",
                )
            )

    def described(self) -> dict[str, Any]:
        """Return what determines the numbers, as plain values; paths are absolute."""
        values = asdict(self)
        for name in ("out", "resume", "keep_tapes"):
            values.pop(name)
        values["queries"], values["runs"] = list(self.queries), self.n_runs
        for name in ("source", "holdout"):
            values[name] = None if values[name] is None else _absolute(os.fspath(values[name]))
        return values


def _absolute(name: str) -> str:
    from finfluence.ingest import BUILTIN_NAMES

    return name if name in BUILTIN_NAMES else os.path.abspath(name)
