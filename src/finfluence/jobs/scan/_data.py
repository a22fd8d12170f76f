"""From the options to three sets of rows: to train on, to ask the queries on, and to evaluate the cleaning by."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finfluence._seeds import stream
from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest import RawTable, Source, Table, Unlabelled, read, reread, split, split_beside
from finfluence.jobs.scan._options import ScanOptions

FEWEST_TO_HALVE = 40


@dataclass(frozen=True, eq=False)
class ScanData:
    """Rows in their three roles.

    Attributes
    ----------
    train
        The rows that are measured.
    query
        Held-out rows whose loss is the query.
    evaluation
        Held-out rows that took no part in the decision: the retraining check is measured on them. The same as `query`
        where there are too few to halve.
    notes
        What was decided while reading.
    task_reason
        Why the task is a classification or a regression.
    unlabelled
        Rows without labels that were read beside.
    """

    train: Table
    query: Table
    evaluation: Table
    notes: tuple[str, ...]
    task_reason: str
    unlabelled: Unlabelled | None = None

    @property
    def halved(self) -> bool:
        """Whether the evaluation rows are apart from the query rows."""
        return self.evaluation is not self.query

    def noted(self, notes: Sequence[str]) -> "ScanData":
        """Return the same rows with what a reader must know of how they were handed over."""
        train = replace(self.train, warnings=(*notes, *self.train.warnings))
        return replace(self, train=train, notes=(*notes, *self.notes))

    def described(self) -> dict[str, Any]:
        """Return sizes and sources as plain values."""
        return {
            "source": self.train.source.to_dict(),
            "holdout_source": self.query.source.to_dict(),
            "task": self.train.task,
            "train_rows": len(self.train),
            "asked_rows": len(self.query),
            "judging_rows": len(self.evaluation) if self.halved else 0,
            "features": int(np.prod(self.train.x.shape[1:])),
            "classes": None
            if self.train.target.classes is None
            else [str(c) for c in self.train.target.classes],
            "target_unit": self.train.target.unit,
        }


def read_data(options: ScanOptions, unlabelled: str | os.PathLike[str] | None = None) -> ScanData:
    """Read, check and split what the options name, and read rows without labels as its hold-out is read.

    Returns
    -------
    ScanData

    Raises
    ------
    DataError
        The data cannot be used; the message says which file, column or row.
    ConfigError
        An option does not fit the data; rows without labels for a regression.
    """
    raw = read_source(options)
    if options.per_class and raw.task != "classification":
        raise ConfigError(
            explain(
                "a classification for --query per-class",
                f"a regression ({raw.task_reason})",
                "the target holds numbers, which form no classes",
                "leave per-class out, or say --task classification if the numbers are classes",
            )
        )
    if unlabelled is not None and raw.task != "classification":
        raise ConfigError(
            explain(
                "a scan of a classification for --unlabelled",
                f"a regression of {raw.target_name!r}",
                "the estimate counts right predictions by how sure the model is of a class; numbers have neither",
                "use finfluence decide without --unlabelled: it measures on held-out rows with labels",
            )
        )
    more = None
    if unlabelled is None:
        train, held = split(raw, options.holdout, options.holdout_fraction, options.seed)
    else:
        train, held, more = split_beside(
            raw, unlabelled, options.holdout, options.holdout_fraction, options.seed
        )
    _check_finite(train)
    _check_groups(train, options.group_column)
    first, second = halves(held, options.seed)
    notes = list(dict.fromkeys(train.notes))
    if len(held) >= FEWEST_TO_HALVE:
        notes.append(
            f"of {len(held)} held-out rows {len(first)} are asked for the influence, and {len(second)} judge the "
            "cleaning: they take no part in the decision"
        )
        query, evaluation = held.take(first), held.take(second)
    else:
        notes.append(
            f"only {len(held)} held-out rows: the same ones are asked and judge the cleaning, so that the judgement "
            "flatters it"
        )
        query = evaluation = held
    return ScanData(train, query, evaluation, tuple(notes), raw.task_reason, more)


def halves(held: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two halves of the positions, drawn by `seed`, in each class alike; the first is the larger."""
    strata = held.y if held.task == "classification" else np.zeros(len(held), dtype=np.int64)
    rng = stream(seed, "held-out halves")
    order = rng.permutation(len(held))
    order = order[np.argsort(strata[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])


def read_source(options: ScanOptions) -> RawTable:
    """Return the raw training source that the options name."""
    return read(
        options.source,
        target=options.target,
        id_column=options.id_column,
        group_column=options.group_column,
        task=options.task,
    )


def read_again(described: dict[str, Any]) -> RawTable:
    """Return the raw training source that `ScanData.described` describes, with the content it had."""
    return reread(Source.from_dict(described["source"]))


def _check_finite(train: Table) -> None:
    bad = np.flatnonzero(~np.isfinite(train.x.reshape(len(train), -1)).all(1))
    if len(bad):
        raise DataError(
            explain(
                "finite features",
                f"NaN or infinity in {len(bad)} rows, first in row {train.ids[bad[0]]}",
                "missing values or a division by zero upstream",
                "fill or remove these rows",
            )
        )


def _check_groups(train: Table, column: str | None) -> None:
    if train.groups is not None and len(set(train.groups.tolist())) < 2:
        raise DataError(
            explain(
                f"two groups or more among the training rows, in the group column {column!r}",
                f"{train.groups[0]!r} in all {len(train):,} of them",
                "another column, or a file of one source: there is nothing to compare a group with",
                "name another column by --group, or leave --group out",
            )
        )
