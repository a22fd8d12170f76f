"""The plan of a verification: which subsets, how many trainings, and what they will cost."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finfluence._files import digest, write_json
from finfluence._progress import Progress, silent
from finfluence.ensemble import (
    CachedTrainer,
    ModelBank,
    RunSpec,
    RunStore,
    Seeds,
    Vary,
    Workers,
    signature,
    train_many,
    without,
)
from finfluence.errors import ConfigError, DataError, StorageError, explain
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Recipe
from finfluence.runs.describe import class_labels
from finfluence.verification._budget import (
    FEWEST,
    FEWEST_RUNS,
    duration,
    fit_to_budget,
    runs_on_all,
    seconds_of,
)
from finfluence.verification._choose import CLEAR, KINDS, Chosen, choose, choose_given, measurable_size

_FIRST, _TIMED = 2, 128
PILOT, _PILOT_SHARE = 10, 0.1
Design = Literal["leave-out", "paired"]


@dataclass(frozen=True, eq=False)
class Plan:
    """What will be retrained, and its cost.

    Attributes
    ----------
    subsets
        The chosen subsets.
    runs, runs_with
        Trainings without each subset, and on all rows.
    seconds_each
        Measured seconds of one training; NaN if it was not measured.
    left
        Trainings that are not in the store yet.
    notes
        What the budget cut.
    design
        "paired": run k without a subset shares initial weights and, as far as it can, batches with run k on all rows.
    """

    subsets: tuple[Chosen, ...]
    runs: int
    runs_with: int
    seconds_each: float
    left: int
    notes: tuple[str, ...] = field(default=())
    design: Design = "leave-out"

    @property
    def trainings(self) -> int:
        """Trainings in all, finished ones included."""
        return self.runs_with + self.runs * len(self.subsets)

    @property
    def sentence(self) -> str:
        """Subsets, trainings and time, before anything is started."""
        kinds = [s.kind for s in self.subsets]
        parts = [
            f"{kinds.count(k)} {'random' if k == 'random' else f'from the {k}'}" for k in KINDS if k in kinds
        ]
        sizes = sorted({len(s.rows) for s in self.subsets})
        rows = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        listed = f": {', '.join(parts)}" if parts else ""
        done = self.trainings - self.left
        kept = f" ({done:,} of them are there already)" if done else ""
        cost = "" if np.isnan(self.seconds_each) else f", about {duration(self.left * self.seconds_each)}"
        if not self.left:
            kept, cost = " (all there already)", ""
        return (
            f"{len(kinds)} subsets of {rows} row{'' if rows == '1' else 's'}{listed}. {self.trainings:,} trainings"
            f"{kept}, {self.runs_with:,} on all rows and {self.runs:,} without each subset"
            f"{', in pairs under common random numbers' if self.design == 'paired' else ''}{cost}."
        )


@dataclass(frozen=True, eq=False)
class Request:
    """Everything a plan depends on."""

    estimate: Influence
    recipe: Recipe
    queries: Sequence[AnyQuery]
    subsets: int
    runs: int
    groups: Mapping[Any, np.ndarray] | None
    budget: float | str | None
    seed: int
    vary: Vary
    out: Path | None
    options: Mapping[str, Any]
    bank: ModelBank | None = None

    @property
    def names(self) -> list[str]:
        """Names of the queries."""
        return [name for query in self.queries for name in query.names]

    def trainer(self, progress: Progress = silent) -> CachedTrainer:
        """Return a trainer of the recipe's runs, with the store and the bank."""
        workers = Workers(**self.options)
        return CachedTrainer(
            self.recipe, list(self.queries), RunStore(self.out), workers, progress, self.bank
        )

    def ranked(self) -> np.ndarray:
        """Return what subsets are chosen by [S, Q]: shrunken effects over their spread, or μ where there are none."""
        data = self.estimate.data.sel(query=self.names)
        mu = data["mu"].values
        if "shrunken" not in data:
            return mu
        with np.errstate(divide="ignore", invalid="ignore"):
            shrunken = data["shrunken"].values / data["spread"].values
        return np.where(np.isfinite(shrunken), shrunken, mu)


def make_plan(request: Request, measure: bool, progress: Progress = silent) -> Plan:
    """Return the plan; one that was written for the same request is read, so that what was interrupted goes on.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        Too few subsets or runs, or a budget in which not even the fewest fit.
    """
    check_counts(request.subsets, request.runs)
    seconds = None if request.budget is None else seconds_of(request.budget)
    base = signature(request.recipe, list(request.queries))
    path = None if request.out is None else request.out / f"plan-{_key(request, base)}.json"
    if path is not None and path.exists():
        return _read(path, request)
    started = time.perf_counter()
    most = request.subsets if request.groups is None else len(request.groups)
    subsets = min(request.subsets, most)
    notes = [f"the estimate has {most} groups: all are retrained"] if subsets < request.subsets else []
    runs = request.runs
    each = _cost(request, base, progress) if measure or seconds is not None else float("nan")
    affordable = math.inf if seconds is None else _PILOT_SHARE * seconds / each
    design = _design(request, subsets, runs) if affordable >= 2 * PILOT else "leave-out"
    if seconds is not None:
        spent = time.perf_counter() - started
        subsets, runs = fit_to_budget(subsets, runs, seconds, spent, each, design == "paired")
        if (subsets, runs) != (min(request.subsets, most), request.runs):
            notes.append(
                f"the budget of {duration(seconds)} allows {subsets} subsets with {runs} trainings each, instead of "
                f"{request.subsets} with {request.runs}"
            )
    chosen = _choose_subsets(request, subsets, runs, design)
    plan = _of(chosen, design, runs, each, notes, request)
    if path is not None:
        write_json(
            path,
            {
                "runs": runs,
                "design": design,
                "seconds_each": None if each != each else each,
                "notes": notes,
                "subsets": [[s.name, s.kind, s.rows.tolist()] for s in plan.subsets],
            },
        )
    return plan


def _design(request: Request, subsets: int, runs: int) -> Design:
    """Return "paired" where single rows can be measured so, by a few pairs without the two strongest rows.

    Runs that share their random numbers differ by what removal does and by what chaos makes of it: how much that is,
    only trainings show. Where differences of single rows as predicted are six times the noise that is left, single rows
    are verified; else groups, against independent trainings.

    Returns
    -------
    {"leave-out", "paired"}
    """
    if request.groups is not None:
        return "leave-out"
    mu, n = request.ranked(), len(request.recipe.rows)
    chosen = choose(mu, subsets, 1, request.seed, class_labels(request.recipe))
    seeds, lab = Seeds(request.seed, request.vary), request.trainer()
    ends = [without(n, c.rows) for c in (chosen[0], next(c for c in chosen if c.kind == "bottom"))]
    values = lab.values(
        [seeds.run(keep, k, keep is not None) for keep in (None, *ends) for k in range(PILOT)]
    )
    values = values.reshape(3, PILOT, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = (values[1:] - values[0]).std(1, ddof=1) / values[0].std(0, ddof=1) / np.sqrt(runs)
    predicted = np.stack([mu[c.rows[0]] for c in chosen])
    clear = predicted.std() >= CLEAR * np.sqrt((noise**2).mean())
    return "paired" if clear else "leave-out"  # NaN, where runs diverged: not clear


def _of(
    chosen: Sequence[Chosen],
    design: Design,
    runs: int,
    each: float,
    notes: Sequence[str],
    request: Request,
) -> Plan:
    paired = design == "paired"
    runs_with = runs_on_all(runs, len(chosen), paired)
    seeds, n = Seeds(request.seed, request.vary), len(request.recipe.rows)
    arms = [(None, runs_with), *((without(n, c.rows), runs) for c in chosen)]
    left = request.trainer().left(
        [seeds.run(keep, k, paired and keep is not None) for keep, count in arms for k in range(count)]
    )
    return Plan(tuple(chosen), runs, runs_with, each, left, tuple(notes), design)


def _read(path: Path, request: Request) -> Plan:
    with _reading(path):
        saved = json.loads(path.read_text(encoding="utf-8"))
        chosen = [Chosen(name, kind, np.array(rows)) for name, kind, rows in saved["subsets"]]
        each = float("nan") if saved["seconds_each"] is None else float(saved["seconds_each"])
        runs, notes = int(saved["runs"]), [str(note) for note in saved["notes"]]
        design: Design = "paired" if saved.get("design") == "paired" else "leave-out"
    return _of(chosen, design, runs, each, notes, request)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file causes inside the block into StorageError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            explain(
                f"a whole file of a verification at {path}",
                f"{type(error).__name__}: {error}",
                "the file was cut short by a copy or a full disk, or was edited",
                "delete this one file and verify again: it is made anew, and finished trainings are kept",
            )
        ) from error


def make_own_plan(
    request: Request, chosen: Sequence[Chosen], runs: int, each: float, notes: Sequence[str]
) -> Plan:
    """Return the plan of removing given rows in pairs."""
    return _of(chosen, "paired", runs, each, notes, request)


def measured_cost(request: Request, progress: Progress = silent) -> float:
    """Return seconds per training, measured once for each recipe and list of queries in a folder."""
    return _cost(request, signature(request.recipe, list(request.queries)), progress)


def _choose_subsets(request: Request, subsets: int, runs: int, design: Design) -> list[Chosen]:
    mu = request.ranked()
    if request.groups is not None:
        return choose_given(mu, request.estimate.subsets.tolist(), request.groups, subsets, request.seed)
    labels = class_labels(request.recipe)
    if design == "paired":
        return choose(mu, subsets, 1, request.seed, labels)
    noise = float(np.sqrt(1 / runs + 1 / runs_on_all(runs, subsets)))
    size = measurable_size(mu, subsets, request.seed, noise, labels)
    return choose(mu, subsets, size, request.seed, labels)


def _cost(request: Request, base: str, progress: Progress) -> float:
    """Return seconds per training, measured once for each bank; without one for each list of queries in a folder."""
    path = None if request.out is None else request.out / f"cost-{base}.json"
    if request.bank is not None:
        path = request.bank.folder / "cost.json"
    if path is not None and path.exists():
        with _reading(path):
            return float(json.loads(path.read_text(encoding="utf-8"))["seconds_each"])
    each = _measure(request, progress)
    if path is not None:
        write_json(path, {"seconds_each": each})
    return each


def _measure(request: Request, progress: Progress) -> float:
    """Return seconds per training, from the clock between the ends of two stacks (or of single runs).

    The first few runs warm up; what comes before the end of the first stack (tracing) is left out. The runs are some of
    those on all rows, so that a store keeps them for the verification itself.

    Returns
    -------
    float
    """
    seeds = Seeds(request.seed, request.vary)
    clock: list[tuple[int, float]] = []

    def note(stage: str, done: int, total: int) -> None:
        clock.append((done, time.perf_counter()))

    lab = request.trainer(note)
    progress("measure", 0, 2)
    lab.values([seeds.run(None, k) for k in range(_FIRST)])
    progress("measure", 1, 2)
    base = lab.trained
    count = _TIMED if lab.how.startswith("stacked") or not base else 2 * _FIRST
    clock.clear()
    began = time.perf_counter()
    if base:
        lab.values([seeds.run(None, k) for k in range(_FIRST, _FIRST + count)])
    if lab.trained - base < count:  # they are in the store: others, for the clock alone
        clock.clear()
        began = time.perf_counter()
        train_many(
            request.recipe,
            [RunSpec(2**31 - 1 - k, 2**31 - 1 - k) for k in range(count)],
            list(request.queries),
            Workers(**request.options),
            progress=note,
        )
    progress("measure", 2, 2)
    return seconds_each(clock, began)


def seconds_each(clock: Sequence[tuple[int, float]], began: float) -> float:
    """Return seconds per training between the first and the last batch's end; since `began` if there was one batch.

    Returns
    -------
    float

    Examples
    --------
    >>> seconds_each([(64, 13.0), (128, 16.2)], began=10.0), seconds_each([(128, 16.4)], began=10.0)
    (0.05, 0.05)
    """
    (first, start), (last, end) = clock[0], clock[-1]
    rate = (end - start) / (last - first) if last > first else (end - began) / last
    return round(rate, 12)


def _key(request: Request, base: str) -> str:
    groups = None if request.groups is None else [[str(k), v.tolist()] for k, v in request.groups.items()]
    asked = (request.subsets, request.runs, request.budget, request.seed, request.vary, groups)
    mu = np.ascontiguousarray(request.ranked())
    return digest(base.encode(), repr(asked).encode(), mu.tobytes())


def check_counts(subsets: int, runs: int, budget: str | float | None = None) -> None:
    """Raise unless there are subsets and runs enough to say anything, and a budget that can be read, or none.

    Raises
    ------
    ConfigError
    """
    if subsets < FEWEST:
        raise ConfigError(
            explain(
                f"at least {FEWEST} subsets: one each from the top, the bottom, the middle, and a random one",
                str(subsets),
                "a quick look was wanted",
                "ask for 24; 8 is the least for which a verdict is given",
            )
        )
    if runs < FEWEST_RUNS:
        raise ConfigError(
            explain(
                f"at least {FEWEST_RUNS} trainings without each subset",
                str(runs),
                f"with {runs} the retrained μ is uncertain by more than {1 / max(runs, 1) ** 0.5:.1f} spreads",
                "ask for 100, which leaves 0.11 with 24 subsets; 30 leaves 0.2",
            )
        )
    if budget is not None:
        seconds_of(budget)


def check_matches(estimate: Influence, recipe: Recipe) -> None:
    """Raise unless the influence is one of this recipe's rows.

    Raises
    ------
    DataError
        Another recipe, or other rows.
    """
    made = estimate.provenance
    then, now = made.recipe_digest, recipe.digest()
    if then is not None and then != now:
        raise DataError(
            explain(
                f"the recipe that the influence was estimated for (digest {then})",
                f"another one (digest {now})",
                "data, model, loss or hyper-parameters were changed in between",
                "pass the recipe of the tape that was replayed, or estimate again",
            )
        )
    if made.n_rows != len(recipe.rows):
        raise DataError(
            explain(
                f"a recipe with the {made.n_rows:,} rows of the influence",
                f"{len(recipe.rows):,} rows",
                "rows were added or removed in between",
                "pass the recipe that the influence was estimated for",
            )
        )
