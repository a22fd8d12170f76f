"""What each method costs, in trainings, and how that grows with rows, queries, steps and parameters."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from finfluence._files import digest, write_json
from finfluence.errors import NotSupportedError
from finfluence.estimators import method_class
from finfluence.estimators.replay.cost import PeakMemory
from finfluence.jobs.bench._answers import damaged_answer, in_one_line, source_of, too_costly
from finfluence.jobs.bench._bench import Bench, Outcome
from finfluence.jobs.bench._problem import LEFT, Problem, make_problem, split
from finfluence.jobs.bench._tools import TOOLS
from finfluence.jobs.bench.data import mlp
from finfluence.report import Level, Section, levels
from finfluence.runs import Tape, train

FACTORS = (1, 2, 4)
REPEATS, LONG = 3, 3.0
"""The least of so many times is taken; work that takes more seconds of the processor than `LONG` is timed once."""


@dataclass(frozen=True)
class Size:
    """A problem of one size: rows, test rows asked about, epochs, and the width of an MLP with one hidden layer."""

    rows: int = 100
    queries: int = 8
    steps: int = 6
    parameters: int = 8


GROWTH = tuple(asdict(Size()))


class Costs:
    """Time and memory of every method, at sizes that double along each direction."""

    name = "cost"
    summary = (
        "time as a ratio to one training, memory, and how they grow with rows, queries, steps and parameters"
    )

    def run(self, bench: Bench) -> Outcome:
        """Return what every method costs at the smallest size, and the exponents of its growth."""
        most = bench.options.rows or min(Size().rows * FACTORS[-1], len(bench.data.read()[1]) - LEFT)
        split(bench.data, most, 0)  # in words where there are fewer rows
        base = Size(rows=max(10, min(Size().rows, most // FACTORS[-1])))
        sizes = [base, *(replace(base, **{g: getattr(base, g) * f}) for g in GROWTH for f in FACTORS[1:])]
        lines, done = [], 0
        for size in sizes:
            measure = _Measure(bench, size)
            for method in bench.methods:
                lines.append({"method": method, **asdict(size), **measure(method)})
                done += 1
                bench.progress("cost", done, len(sizes) * len(bench.methods))
        found = pd.DataFrame(lines)
        at_base = found[(found[list(GROWTH)] == pd.Series(asdict(base))).all(axis=1)]
        order = at_base.sort_values("trainings", kind="stable", na_position="last")["method"].tolist()
        grown = {m: {g: _exponent(found[found["method"] == m], base, g) for g in GROWTH} for m in order}
        section = Section(
            "What methods cost",
            ["method", "trainings, processor", "trainings, wall", "tensors [MiB]", *GROWTH, "remark"],
            [_row(at_base[at_base["method"] == m].iloc[0], grown[m]) for m in order],
            [
                f"{bench.data.summary.partition(';')[0]}; an MLP with {base.parameters} hidden units, "
                f"{base.rows} rows, {base.steps} epochs, {base.queries} test rows asked about, every row removed "
                "alone. Time as a multiple of one recorded training in the same process, one thread, the least of up "
                "to three; the most memory "
                "that tensors made inside hold at one time.",
                "The last columns: exponents fitted to processor time as each quantity is doubled twice, the others "
                "kept: 1 is linear, 0 is constant. At such small sizes what does not grow still counts, so that they "
                "understate.",
            ],
            levels(
                [Level(m, float(at_base.set_index("method")["trainings"][m])) for m in order],
                "processor time [trainings]", "Processor time of each method in trainings", 1.0,
            ),
        )  # fmt: skip
        known = at_base.dropna(subset=["trainings"])
        verdict = (
            f"{int((known['trainings'] <= 1).sum())} of {len(known)} methods cost less than one training"
            if len(known)
            else "No method could be asked"
        )
        exponents = pd.DataFrame([{"method": m, **grown[m]} for m in order])
        return Outcome(verdict, [section], {"costs": found, "exponents": exponents})


class _Measure:
    """Measures methods at one size; the training is done and timed when the first one is not kept yet."""

    def __init__(self, bench: Bench, size: Size) -> None:
        self._bench, self._size = bench, size
        classes = int(bench.data.read()[1].max()) + 1
        features = int(np.prod(bench.data.read()[0].shape[1:]))

        def model(seed: int) -> nn.Module:
            return mlp(features, size.parameters, classes, seed=seed)

        data = replace(bench.data, model=model, epochs=size.steps)
        self._problem: Problem = make_problem(data, size.rows, bench.options.share, 0)
        self._trained: tuple[Tape, float, float] | None = None

    def __call__(self, method: str) -> dict[str, Any]:
        """Return times, memory and remark of a method, measured now or before."""
        asked = repr((method, self._size, REPEATS)).encode()
        key = digest(self._problem.hash.encode(), asked, source_of(method).encode())
        path = Path(self._bench.answers.folder) / f"cost-{method}-{key}.json"
        if path.exists():
            return _read(path)
        found = self._measured(method)
        if not found["remark"]:
            write_json(path, found)
        return found

    def _measured(self, method: str) -> dict[str, Any]:
        nothing = dict.fromkeys(
            ("trainings", "trainings_wall", "seconds", "training_seconds", "bytes"), np.nan
        )
        tape, training, training_wall = self._training()
        try:
            work, remark = self._work(method, tape)
            if remark:
                return {**nothing, "remark": f"left out: {remark}"}
            cpu, wall = _least(work)
            with PeakMemory() as counted:
                work()
        except NotSupportedError as error:
            return {**nothing, "remark": f"does not apply: {in_one_line(error)}"}
        except Exception as error:  # as in `Answers`: a line of the table, and others go on
            return {**nothing, "remark": f"failed: {type(error).__name__}: {in_one_line(error)}"}
        return {
            "trainings": cpu / training, "trainings_wall": wall / training_wall, "seconds": cpu,
            "training_seconds": training, "bytes": counted.peak, "remark": "",
        }  # fmt: skip

    def _training(self) -> tuple[Tape, float, float]:
        if self._trained is None:
            tape = train(self._problem.recipe)
            self._trained = (tape, *_least(partial(train, self._problem.recipe)))
        return self._trained

    def _work(self, method: str, tape: Tape) -> tuple[Callable[[], object], str]:
        problem = self._problem
        if method in TOOLS:
            fields = problem.recipe.rows.batch(torch.arange(len(problem.ids)))
            return partial(TOOLS[method], fields["x"].numpy(), fields["y"].numpy(), 0), ""
        estimator = method_class(method)()
        source = tape if estimator.needs is Tape else problem.recipe
        queries = [problem.test_rows(self._size.queries)]
        remark = too_costly(estimator.cost(source, queries), self._bench.answers.limits)
        return partial(estimator.estimate, source, queries), remark


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: kept[name]
            for name in ("trainings", "trainings_wall", "seconds", "training_seconds", "bytes", "remark")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged_answer(path, error) from error


def _least(work: Callable[[], object]) -> tuple[float, float]:
    """Return the least processor and wall time of some repetitions."""
    cpu: list[float] = []
    wall: list[float] = []
    while len(cpu) < REPEATS and (not cpu or cpu[0] < LONG):
        start, begun = process_time(), perf_counter()
        work()
        cpu.append(process_time() - start)
        wall.append(perf_counter() - begun)
    return min(cpu), min(wall)


def _exponent(mine: pd.DataFrame, base: Size, grown: str) -> float:
    others = [g for g in GROWTH if g != grown]
    along = mine[(mine[others] == pd.Series({g: getattr(base, g) for g in others})).all(axis=1)]
    if len(along) < len(FACTORS) or along["seconds"].isna().any():
        return float("nan")
    slope, _ = np.polyfit(np.log(along[grown].astype(float)), np.log(along["seconds"].astype(float)), 1)
    return float(slope)


def _row(line: pd.Series, grown: dict[str, float]) -> list[str]:
    def shown(value: float, digits: int = 2) -> str:
        return "" if np.isnan(value) else f"{value:.{digits}f}"

    return [
        line["method"], shown(line["trainings"]), shown(line["trainings_wall"]), shown(line["bytes"] / 2**20),
        *(shown(grown[g]) for g in GROWTH), line["remark"],
    ]  # fmt: skip
