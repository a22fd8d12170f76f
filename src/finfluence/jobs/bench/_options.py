"""What a benchmark is asked to do: options, checked before anything is read or trained. Light to import."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import le
from pathlib import Path

from finfluence.jobs._options import check, option


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of a benchmark.

    Parameters
    ----------
    experiment
        One of `experiments()`.
    data
        One of `data_sets()`.
    methods
        "all", or names of `fi.methods()` and of the tools, separated by commas or as a list.
    seeds
        How many training seeds, from 0 on: each method is asked once for each.
    rows
        Training rows; the data set's own number unless given.
    share
        Share of the labels that are replaced by another class.
    subsets, runs
        Of experiments that retrain: random halves of the rows, and trainings without each group of rows.
    most
        A method that would cost more trainings than this is left out, and the table says so and what includes it: by
        its own count of evaluations, or by the time that own influence takes for a part of the rows. The default lets
        through those that train a hundred models, and not retraining.
    memory
        The same of the memory that it would take, in GiB.
    out
        Folder for everything; `out/EXPERIMENT-DATA` holds the tables, `out/answers` and `out/bank` what is kept for the
        next command.

    Raises
    ------
    ConfigError
        A number is out of range.
    """

    experiment: str | None = option("Which experiment (see --list).", None, flag="-")
    data: str = option("Which data (see --list).", "digits")
    methods: str | Sequence[str] = option("Which methods, separated by commas (see --list).", "all")
    seeds: int = option("Training seeds: each method is asked once for each.", 3)
    rows: int | None = option("Training rows.", None, shown="the data's own number")
    share: float = option("Share of labels replaced by another class.", 0.2)
    subsets: int = option("Random halves of the rows to train on, where an experiment retrains.", 64)
    runs: int = option("Trainings without each group of rows, where an experiment retrains.", 24)
    most: float = option("Leave out methods that would cost more trainings than this.", 500.0)
    memory: float = option("Leave out methods that would take more memory than this, in GiB.", 4.0)
    out: str | os.PathLike[str] = option("Folder for all results.", "bench-out", typed=Path)

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("rows", 20), ("subsets", 4), ("runs", 2)):
            check(self, name, f"a whole number of at least {least}", partial(le, least))
        check(self, "share", "above 0 and below 1", lambda v: 0 < v < 1)
        for name in ("most", "memory"):
            check(self, name, "a positive number", lambda v: v > 0)
