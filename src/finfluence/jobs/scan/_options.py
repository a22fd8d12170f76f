"""What a scan and its verification are asked to do: options, checked before anything is read or written.

Light to import: the command line is made from these fields, and `--help` has to be quick.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

from finfluence.errors import ConfigError, StorageError, explain
from finfluence.jobs._options import check, option
from finfluence.jobs.scan._budget import check_scan_budget, runs_for

HELD_OUT, BOUNDED, PER_CLASS, OWN = QUERIES = ("held-out", "bounded", "per-class", "own")
OPTIMIZERS = ("sgd", "adamw")
AUTO = "auto"
SCORES = ("max_confidence", "negative_entropy")
MODELS = (AUTO, "linear", "mlp-small", "mlp", "cnn")
_NOT_NUMBERS = ("out", "resume", "keep_tapes")
"""Options on which no number depends: `run.yaml` is silent about them."""


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Options of a scan; None means that the scan chooses and says what it chose.

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
        Some of "held-out" (always asked), "bounded", "per-class" and "own".
    model
        "linear", "mlp-small", "mlp", "cnn" or `package.module:factory`, called as
        `factory(input_shape, n_outputs, seed)`; "auto" tries the usual ones by cross-validation.
    epochs, batch_size, lr, weight_decay, optimizer
        The training. Where None, epochs are those of the least loss in cross-validation, the batch size is chosen by
        the number of rows, and the weight decay of adamw is 0.3.
    runs
        Trainings to replay; by default 4, or what `budget` pays for. One: its initialisation is fixed and the spread
        covers the batch order. More: each draws its own initialisation and order, and the spread covers both.
    budget
        What the estimate may cost in multiples of one training: `runs` × (training + replay). Where `runs` is None it
        makes a run for every 4, at least one; each is replayed as closely as its share pays for, measured on the first
        run. Retraining check and self-test come on top.
    seed
        Of the hold-out draw, the initialisations, the batch orders and the retraining check.
    fdr
        Accepted share of false names among the named rows.
    proof, proof_runs
        Whether to retrain on the original, the cleaned and randomly thinned rows (the retraining check), and how often
        each. Also whether to plant label errors, to say what could be found.
    self_test
        Train and replay once more with planted neutral rows, and count how many do not come out neutral.
    resume
        Go on with an interrupted scan in `out`.
    keep_tapes
        Keep the recorded trainings (up to 1 GiB each) instead of deleting them when they have been replayed.

    Raises
    ------
    ConfigError
        A name is unknown, or a number out of range.
    """

    source: str | os.PathLike[str] = option(
        "CSV, TSV, Parquet, JSON lines or .npz file; a folder of images by class; or a built-in set: digits, "
        "fashion-mnist.",
        flag="-",
    )
    target: str | None = option("Column with the label or the number to predict.", None)
    out: str | os.PathLike[str] = option("Folder for all results (new or empty).", typed=Path)
    holdout: str | os.PathLike[str] | None = option(
        "File or folder with held-out rows, checked if you can.", None, typed=Path
    )
    holdout_fraction: float | None = option("Share of rows to hold out.", None, shown="0.2")
    id_column: str | None = option("Column with unique row ids; else row numbers from 0.", None, flag="--id")
    group_column: str | None = option(
        "Column with groups (source, annotator): measured as a whole, too.", None, flag="--group"
    )
    task: str = option("auto, classification or regression.", "auto")
    queries: tuple[str, ...] = option(
        "What to ask beside the mean held-out loss (always asked): bounded asks a loss of at most 1 a row, which wrong "
        "held-out labels cannot dominate; per-class asks the held-out loss of each class; own "
        "asks how much the 32 worst-fitted rows rely on having been seen. May be repeated.",
        (HELD_OUT,),
        flag="--query",
        shown=HELD_OUT,
    )
    model: str = option(
        "auto (tries the next three and, for images, cnn by cross-validation), linear, mlp-small, mlp, cnn or "
        "package.module:factory.",
        AUTO,
    )
    epochs: int | None = option("Passes over the rows.", None, shown="by cross-validation")
    batch_size: int | None = option("Rows per step.", None, shown="by the number of rows")
    lr: float | None = option(
        "Learning rate.", None, shown="adamw 0.001, linear 0.005, mlp-small 0.002, sgd 0.05"
    )
    weight_decay: float | None = option("Weight decay.", None, shown="adamw 0.3, sgd 0")
    optimizer: str = option("sgd or adamw.", "adamw")
    runs: int | None = option(
        "Trainings to record and replay; each costs about four trainings. With 1 the initialisation is fixed and the "
        "spread covers the batch order; with more each draws its own, and the spread covers both.",
        None,
        shown="4, or by --budget",
    )
    budget: float | None = option(
        "What the estimate may cost, in multiples of one training (such as 16): to train and replay all runs. Sets the "
        "number of runs (one for every 4, unless --runs is given) and how closely each is replayed. The retraining "
        "check and the self-test come on top.",
        None,
        shown="none",
        typed=str,
    )
    seed: int = option("The same seed gives the same numbers.", 0)
    fdr: float = option("Accepted share of false names among the named rows.", 0.1)
    proof: bool = option(
        "The checks: train again on the original, cleaned and randomly thinned rows; plant errors and count how many "
        "are found.",
        True,
        flag="--proof/--no-proof",
    )
    proof_runs: int | None = option(
        "Trainings of the check for each of the three.",
        None,
        shown="20, fewer above 5,000 rows; cnn or your own model: 3 to 5",
    )
    self_test: bool = option(
        "Train and replay once more with planted neutral rows, and print how many do not come out neutral.",
        False,
    )
    resume: bool = option("Go on with an interrupted scan.", False)
    keep_tapes: bool = option("Keep the recorded trainings (up to 1 GiB each).", False)

    def __post_init__(self) -> None:
        from finfluence.result import one_of  # brings pandas

        asked = [one_of(name, QUERIES, "query") for name in self.queries]
        object.__setattr__(self, "queries", tuple(q for q in QUERIES if q == HELD_OUT or q in asked))
        one_of(self.optimizer, OPTIMIZERS, "optimizer")
        if ":" not in self.model:
            one_of(self.model, MODELS, "model (or package.module:factory)")
        for name, least in (("runs", 1), ("epochs", 1), ("batch_size", 1), ("proof_runs", 2), ("seed", 0)):
            check(self, name, f"a whole number of at least {least}", partial(le, least))
        if self.budget is not None:
            check_scan_budget(self.budget, self.runs)
        check(self, "lr", "a positive number", lambda v: 0 < v < float("inf"))
        check(self, "weight_decay", "a number of at least 0", lambda v: 0 <= v < float("inf"))
        check(self, "fdr", "a number between 0 and 1, such as 0.1 for 10 %", lambda v: 0 < v < 1)

    @property
    def n_runs(self) -> int:
        """Trainings to replay: as asked, or as chosen."""
        return runs_for(self.runs, self.budget)

    @property
    def replay_budget(self) -> float | None:
        """What one replay may cost in training runs; None: no budget."""
        return None if self.budget is None else self.budget / self.n_runs - 1

    @property
    def per_class(self) -> bool:
        """Whether the held-out loss of each class is asked, too."""
        return PER_CLASS in self.queries

    @property
    def own(self) -> bool:
        """Whether rows are asked how much they rely on having been seen."""
        return OWN in self.queries

    def described(self) -> dict[str, Any]:
        """Return what determines the numbers, as plain values; paths are absolute."""
        values = asdict(self)
        for name in _NOT_NUMBERS:
            values.pop(name)
        values["queries"], values["runs"] = list(self.queries), self.n_runs
        for name in ("source", "holdout"):
            values[name] = None if values[name] is None else _absolute(os.fspath(values[name]))
        return values

    @classmethod
    def of_run(cls, run: Mapping[str, Any], out: Path) -> "ScanOptions":
        """Return the options that `described` described, from what run.yaml in `out` says.

        Returns
        -------
        ScanOptions

        Raises
        ------
        StorageError
            Options that this version does not have.
        """
        try:
            given = {**run["options"], "queries": tuple(run["options"]["queries"])}
            return cls(**given, out=out)
        except (TypeError, KeyError) as error:
            writer = dict(run.get("versions") or {}).get("finfluence", "of another version")
            raise StorageError(
                explain(
                    f"the options of a scan in {out / 'run.yaml'}",
                    str(error),
                    f"another version of finfluence made it (it says {writer}), or the file was edited",
                    "scan again with this version into another folder",
                )
            ) from error


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `verify_scan`.

    Parameters
    ----------
    subsets, runs, budget, seed, bank
        As `finfluence.verification.verify`.
    queries
        Names of the queries to verify; all that decide by default. "own", alone: the rows' own losses, of a scan that
        asked for them.
    """

    subsets: int = option(
        "Groups of rows to train without: from the top, the bottom and the middle of the estimate, and random.",
        24,
    )
    runs: int = option("Trainings without each; on all rows √subsets times as many.", 100)
    budget: float | str | None = option(
        "Time to spend, such as 90s, 10m or 1h30m: runs, then subsets, are reduced to fit it.",
        None,
        shown="none",
        typed=str,
    )
    queries: tuple[str, ...] = option(
        "Query to verify. May be repeated.", (), flag="--query", shown="all that decide"
    )
    seed: int = option("Of the choice of groups, the trainings and the intervals.", 0)
    bank: str | os.PathLike[str] | None = option(
        "Folder of retrained models, shared by all that name it: what is there for this training is not trained again.",
        None,
        shown="none",
        typed=Path,
    )


@dataclass(frozen=True, kw_only=True)
class DecideOptions:
    """Options of `decide_scan` and `decide_tune`.

    Parameters
    ----------
    unlabelled
        Of a scan: rows without labels, on which the accuracy of each version is estimated, too.
    behaviour
        Of a tuning: a file of behaviours (YAML) whose prompts and rows took no part in naming. By default those that
        were tuned with, which flatters.
    runs
        How often each version is trained; at least twice. By default as often as the scan's own check, or five times
        after a tuning.

    Raises
    ------
    ConfigError
        Fewer than two trainings.
    """

    unlabelled: str | os.PathLike[str] | None = option(
        "Of a scan: file with rows without labels, such as those that the model will meet: accuracy on them is "
        "estimated, too.",
        None,
        typed=Path,
    )
    behaviour: str | os.PathLike[str] | None = option(
        "Of a tuning: file of behaviours (YAML) with other prompts, which took no part.",
        None,
        typed=Path,
        shown="those that were asked, which flatters",
    )
    runs: int | None = option(
        "Trainings of each version.", None, shown="as many as the scan's check; 5 of a tuning"
    )

    def __post_init__(self) -> None:
        _check_trainings(self.runs)


@dataclass(frozen=True, kw_only=True)
class AssessOptions:
    """Options of `assess_scan`.

    Parameters
    ----------
    unlabelled
        Rows without labels: a file of the scanned one's kind, for images a folder with images at any depth.
    runs
        How often each version is trained; at least twice. By default as often as the scan's own check.
    score
        How sure the model is of a row: "max_confidence" or "negative_entropy".

    Raises
    ------
    ConfigError
        Fewer than two trainings, or an unknown score.
    """

    unlabelled: str | os.PathLike[str] = option(
        "File with rows without labels, such as those that the model will meet.", typed=Path
    )
    runs: int | None = option("Trainings of each version.", None, shown="as many as the scan's check")
    score: str = option("max_confidence or negative_entropy: how sure the model is of a row.", SCORES[0])

    def __post_init__(self) -> None:
        from finfluence.result import one_of

        one_of(self.score, SCORES, "score")
        _check_trainings(self.runs)


@dataclass(frozen=True, kw_only=True)
class MitigateOptions:
    """Options of `mitigate_scan`.

    Parameters
    ----------
    source
        Folder of a finished scan, or an `.npz` file of features `x` and labels `y`.
    out
        Of a file: folder for the outcome.
    target, holdout
        Of a file: the array with the labels, and a file with held-out rows in place of a fifth of `source`.
    heads
        How often each kind of head is trained.
    epochs
        Passes over the rows; None as `finfluence.mitigate.HeadOptions`.
    seed
        Of the hold-out draw, initial weights and orders.

    Raises
    ------
    ConfigError
        A number out of range.
    """

    source: str | os.PathLike[str] = option(
        "Folder of a finished scan, or an .npz file of a frozen encoder's features x and labels y.",
        flag="-",
        typed=Path,
    )
    out: str | os.PathLike[str] | None = option(
        "Folder for the outcome, of an .npz file.", None, typed=Path, shown="the scan's folder"
    )
    target: str | None = option("Array with the labels, of an .npz file.", None, shown="y")
    holdout: str | os.PathLike[str] | None = option(
        "Another .npz file with held-out rows.", None, typed=Path, shown="a fifth of the rows"
    )
    heads: int = option("Trainings of each kind of head.", 3)
    epochs: int | None = option("Passes over the rows.", None, shown="30, more on small data")
    seed: int = option("The same seed gives the same heads.", 0)

    def __post_init__(self) -> None:
        for name, least in (("heads", 1), ("epochs", 1), ("seed", 0)):
            check(self, name, f"a whole number of at least {least}", partial(le, least))


def _check_trainings(runs: int | None) -> None:
    if runs is not None and runs < 2:
        raise ConfigError(
            explain(
                "at least two trainings of each version",
                f"--runs {runs}",
                "a single training, whose chance nobody knows",
                "leave --runs out, or give 5 or more",
            )
        )


def checked_names(given: Mapping[str, Any], options: type) -> dict[str, Any]:
    """Return keyword arguments that all are fields of an options class.

    Returns
    -------
    dict[str, Any]

    Raises
    ------
    ConfigError
        One is not; the nearest is suggested.
    """
    from finfluence.result import one_of

    known = [field.name for field in fields(options)]
    return {one_of(name, known, "option"): value for name, value in given.items()}


def _absolute(name: str) -> str:
    from finfluence.ingest import BUILTIN_NAMES

    return name if name in BUILTIN_NAMES else os.path.abspath(name)
