"""What an experiment works with, and what it hands back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from finfluence._progress import Progress
from finfluence.ensemble import ModelBank
from finfluence.jobs.bench._answers import Answer, Answers, Ask
from finfluence.jobs.bench._options import BenchOptions
from finfluence.jobs.bench._problem import DataSet, Problem, make_problem
from finfluence.report import Section


@dataclass(frozen=True, eq=False)
class Bench:
    """What an experiment works with: options, data, methods, and everything that is kept between commands.

    Attributes
    ----------
    bank_folder
        Of the banks of retrained models.
    """

    options: BenchOptions
    data: DataSet
    methods: tuple[str, ...]
    answers: Answers
    bank_folder: Path
    progress: Progress

    @property
    def seeds(self) -> range:
        """Training seeds."""
        return range(self.options.seeds)

    def problem(self, seed: int) -> Problem:
        """Return the problem with the split and the errors of a seed."""
        return make_problem(self.data, self.options.rows, self.options.share, seed)

    def bank(self, problem: Problem) -> ModelBank:
        """Return the bank of retrained models of a problem, which all methods and experiments share."""
        return ModelBank(problem.recipe, self.bank_folder, f"{problem.data}-{problem.seed}")

    def ask(self, asks: Sequence[Ask], stage: str = "methods") -> list[Answer]:
        """Return the answer to each question, trainings of one seed together.

        `progress` is called as `progress(stage, done, total)`.

        Returns
        -------
        list[Answer]
            In the order of the questions.
        """
        order = sorted(range(len(asks)), key=lambda i: (asks[i].problem.seed, asks[i].seed, i))
        found: dict[int, Answer] = {}
        self.progress(stage, 0, len(asks))
        for place in order:
            found[place] = self.answers.get(asks[place])
            self.progress(stage, len(found), len(asks))
        return [found[place] for place in range(len(asks))]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an experiment hands back.

    Attributes
    ----------
    verdict
        What it showed, in a sentence.
    sections
        Of the page and of the Markdown, the main table first.
    tables
        The numbers behind them, by name: a Parquet file each.
    """

    verdict: str
    sections: Sequence[Section]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


class Experiment(Protocol):
    """One experiment: a class in one file of `finfluence.jobs.bench.experiments`, named in the registry.

    Attributes
    ----------
    name, summary
        What it is called, and what it shows, in a line.
    """

    name: str
    summary: str

    def run(self, bench: Bench) -> Outcome:
        """Ask the methods, train where needed, and return the tables."""


def grouped(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    """Return answers by method, in the order in which methods come first."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.method, []).append(answer)
    return found


def with_effects(answers: Iterable[Answer]) -> list[Answer]:
    """Return answers, each one that knows effects beside μ followed by the same ranked by the effect.

    A row's μ is its effect over the spread of its own loss, and that of a wrong label is large: the two rank apart.

    Returns
    -------
    list[Answer]
    """
    found = []
    for answer in answers:
        found.append(answer)
        effect = answer.frame["effect"]
        if answer.kind == "mu" and len(effect) and effect.notna().all():
            ranked = answer.frame.assign(harm=effect.abs() * np.sign(answer.frame["harm"]))
            found.append(replace(answer, method=f"{answer.method} (effect)", frame=ranked, kind="effect"))
    return found


def with_numbers(listed: Mapping[str, list[Answer]]) -> dict[str, list[Answer]]:
    """Return the answers with numbers of each method, of the seeds that have some; not of methods without any."""
    found = {method: [a for a in answers if a.measured] for method, answers in listed.items()}
    return {method: answers for method, answers in found.items() if answers}


def whole(listed: Mapping[str, list[Answer]], seeds: int) -> list[str]:
    """Return the methods whose numbers can be compared: of all seeds and rows, or all that have any if none are."""
    some = with_numbers(listed)
    found = [m for m, answers in some.items() if len(answers) == seeds and not any(a.lost for a in answers)]
    return found or list(some)


def not_measured(answers: Sequence[Answer]) -> str:
    """Return why a method has no numbers, or not all: of its first question without an answer, and how many lack."""
    missing = [a for a in answers if not a.measured]
    if missing:
        first, seeds = missing[0], ", ".join(str(a.seed) for a in missing)
        where = "" if len(missing) == len(answers) else f" with seed {seeds}"
        return f"{first.status}{where}: {first.reason}"
    lost = sum(a.lost for a in answers)
    return f"{lost:,} of {sum(len(a.frame) for a in answers):,} answers are no numbers" if lost else ""


def timings(answers: Iterable[Answer]) -> pd.DataFrame:
    """Return what each answer took, beside the training that it looks at."""
    lines = [
        {"method": a.method, "seed": a.seed, "seconds": a.seconds, "training_seconds": a.training,
         "trainings": a.seconds / a.training if a.training else float("nan")}
        for a in answers if a.measured
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=["method", "seed", "seconds", "training_seconds", "trainings"])


def mean_and_range(values: Sequence[float], shown: Callable[[float], str] = "{:.3f}".format) -> str:
    """Return the mean over seeds with the least and the largest value.

    Returns
    -------
    str

    Examples
    --------
    >>> mean_and_range([0.5, 0.7]), mean_and_range([0.5])
    ('0.600 [0.500, 0.700]', '0.500')
    """
    mean = sum(values) / len(values)
    if len(values) == 1:
        return shown(mean)
    return f"{shown(mean)} [{shown(min(values))}, {shown(max(values))}]"
