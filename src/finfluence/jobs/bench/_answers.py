"""What a method says of a problem: asked once, kept in a file named after everything that it depends on."""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from finfluence._clock import clock
from finfluence._files import atomic, digest
from finfluence._version import __version__
from finfluence.errors import NotSupportedError, StorageError, explain
from finfluence.estimators import AbstractEstimator, Cost, method_class
from finfluence.jobs.bench._forecast import MANY, Forecast, forecast
from finfluence.jobs.bench._problem import Problem
from finfluence.jobs.bench._tools import TOOLS
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Recipe, Rows, Tape, own_loss, train

Status = Literal["measured", "does not apply", "left out", "failed"]
ROWS_ALONE = ("baselines", "resampling")
"""Families whose time does not grow with the queries: they score rows by themselves."""
_KEY = b"finfluence-bench"
_COLUMNS = ["subset", "query", "harm", "mu", "effect"]


@dataclass(frozen=True, eq=False)
class Ask:
    """One question to one method, on one training.

    Attributes
    ----------
    queries
        None: the own influence of each row, how much it carries its own label. Else: what removing does to each query.
    groups
        What is removed: row ids by name; None: every row alone.
    candidates
        Rows that training never saw, by field: what adding each does is asked, in place of removal.
    seed
        Of the training that the method looks at, and of what the method draws.
    """

    problem: Problem
    method: str
    seed: int
    queries: Sequence[AnyQuery] | None = None
    groups: Mapping[str, Sequence[int]] | None = None
    candidates: Mapping[str, np.ndarray] | None = None

    @property
    def new_rows(self) -> Rows | None:
        """The candidates, under names that no training row has."""
        if self.candidates is None:
            return None
        count = len(next(iter(self.candidates.values())))
        return Rows(**self.candidates, ids=[f"new {k}" for k in range(count)])

    @property
    def key(self) -> str:
        """A hash of everything that the answer depends on: data, training, question, and the method's own file."""
        names = None if self.queries is None else [name for query in self.queries for name in query.names]
        asked = repr((self.method, self.seed, names, sorted((self.groups or {}).items()), __version__))
        added = [
            part
            for name, cells in (self.candidates or {}).items()
            for part in (name.encode(), cells.tobytes())
        ]
        return digest(self.problem.hash.encode(), asked.encode(), source_of(self.method).encode(), *added)


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of it.

    Attributes
    ----------
    status, reason
        Whether the method could be asked, and why not.
    frame
        `subset`, `query` and `harm`, larger where the rows do more damage, or are more suspect; `mu` and `effect` of
        removal, positive where the query rises, NaN where the method knows none.
    kind
        "mu" or "score"; "rows" where the method scores rows by themselves, whatever is asked.
    seconds, training
        What the answer took, and what the training took that it looks at, both by the same clock.
    """

    method: str
    seed: int
    status: Status
    reason: str = ""
    frame: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_COLUMNS))
    kind: str = ""
    seconds: float = float("nan")
    training: float = float("nan")

    @property
    def measured(self) -> bool:
        """Whether there are numbers."""
        return self.status == "measured"

    @property
    def lost(self) -> int:
        """How many answers are no numbers: they are ranked last, and predict nothing."""
        return int(self.frame["harm"].isna().sum())

    def values(self, column: str = "harm") -> np.ndarray:
        """Return a column as an array [subsets, queries], both in the order of the question."""
        wide = self.frame.pivot(index="subset", columns="query", values=column)
        found: np.ndarray = wide.loc[self.frame["subset"].unique(), self.frame["query"].unique()].to_numpy()
        return found


@dataclass(frozen=True)
class Limits:
    """What a method may cost: by its own count of evaluations, and by the time that a part of the question takes."""

    trainings: float
    memory_bytes: float


@dataclass(eq=False)
class Answers:
    """Answers by question: looked up in the folder, else measured and kept. Failures are not kept.

    Parameters
    ----------
    folder
        Of the answers.
    limits
        Beyond which a method is left out.
    """

    folder: Path
    limits: Limits
    measured: int = field(default=0, init=False)
    _answered: set[tuple[str, int]] = field(default_factory=set, init=False)
    _last: tuple[str, Tape, float] | None = field(default=None, init=False)

    def get(self, ask: Ask) -> Answer:
        """Return the answer to a question."""
        path = self.folder / f"{ask.method}-{ask.key}.parquet"
        if path.exists():
            answer = _read(path)
        else:
            answer = self._ask(ask)
            self.measured += 1
            if answer.measured:
                _write(path, answer)
        if answer.measured and ask.queries is None:
            self._answered.add((ask.method, len(ask.problem.ids)))
        return answer

    def tape(self, problem: Problem, seed: int) -> tuple[Tape, float]:
        """Return the run of a seed, and the seconds that it took; the last one is kept in memory."""
        key = f"{problem.hash} {seed}"
        if self._last is None:
            train(problem.recipe, seed=seed)  # the first training of a process traces what later ones reuse
        if self._last is None or self._last[0] != key:
            start = clock(torch.device("cpu"))
            tape = train(problem.recipe, seed=seed)
            self._last = (key, tape, clock(torch.device("cpu")) - start)
        return self._last[1], self._last[2]

    def _ask(self, ask: Ask) -> Answer:
        tape, training = self.tape(ask.problem, ask.seed)
        source = tape if ask.method in TOOLS or method_class(ask.method).needs is Tape else ask.problem.recipe
        start = clock(torch.device("cpu"))
        try:
            frame, kind, reason = _tool(ask) if ask.method in TOOLS else self._method(ask, source)
        except NotSupportedError as error:
            return Answer(ask.method, ask.seed, "does not apply", in_one_line(error))
        except (
            Exception
        ) as error:  # whatever goes wrong in one method is a line of the table, and others go on
            return Answer(ask.method, ask.seed, "failed", f"{type(error).__name__}: {in_one_line(error)}")
        if frame is None:
            return Answer(ask.method, ask.seed, "left out", reason)
        if frame["harm"].isna().all():
            return Answer(ask.method, ask.seed, "failed", f"none of {len(frame):,} answers is a number")
        return Answer(
            ask.method, ask.seed, "measured", "", frame, kind, clock(torch.device("cpu")) - start, training
        )

    def _method(self, ask: Ask, source: Tape | Recipe) -> tuple[pd.DataFrame | None, str, str]:
        made = method_class(ask.method)
        seeded = {"seed": ask.seed} if "seed" in {f.name for f in fields(made.Options)} else {}
        estimator = made(made.Options(**seeded))
        queries = [own_loss(ask.problem.ids)] if ask.queries is None else list(ask.queries)
        groups = None if ask.groups is None else {name: list(rows) for name, rows in ask.groups.items()}
        cost = estimator.cost(source, queries, groups)
        remark = too_costly(cost, self.limits) or self._too_long(ask, estimator, source)
        if remark:
            return None, "", remark
        found = estimator.estimate(source, queries, groups, candidates=ask.new_rows)
        names = [name for query in queries for name in query.names]
        return (*(_own(found, ask) if ask.queries is None else _removal(found, names)), "")

    def _too_long(self, ask: Ask, estimator: AbstractEstimator[Any, Any], source: Tape | Recipe) -> str:
        """Return why own influence is not asked for: how long it takes for some of the rows; "" where it is."""
        ids, limit = ask.problem.ids, self.limits.trainings
        known = (ask.method, len(ids)) in self._answered
        if ask.queries is not None or len(ids) < MANY or known or estimator.family in ROWS_ALONE:
            return ""
        found = own_forecast(estimator, source, ids, self.tape(ask.problem, ask.seed)[1], limit)
        return "" if found.middle <= limit else _time_remark(found, len(ids), limit)


def own_forecast(
    estimator: AbstractEstimator[Any, Any],
    source: Tape | Recipe,
    ids: Sequence[Any],
    training: float,
    limit: float | None = None,
) -> Forecast:
    """Return how many trainings the own influence of all rows will take, tried with rows evenly far apart.

    Parameters
    ----------
    training : float
        Seconds of a training.
    limit : float, optional
        In trainings; less is tried where that tells.

    Returns
    -------
    Forecast
    """

    def took(count: int) -> float:
        some = [ids[i] for i in np.linspace(0, len(ids) - 1, count).round().astype(int)]
        start = clock(torch.device("cpu"))
        estimator.estimate(source, own_loss(some))
        return (clock(torch.device("cpu")) - start) / training

    return forecast(took, len(ids), limit)


def _time_remark(found: Forecast, queries: int, limit: float) -> str:
    return (
        f"about {found.middle:,.0f} trainings' time ({found.least:,.0f} to {found.most:,.0f}, tried with "
        f"{found.tried} of {queries:,} queries), which is more than {limit:g}; include it by "
        f"--most {_round_up(found.middle)}"
    )


def too_costly(cost: Cost, limits: Limits) -> str:
    """Return why a method is left out, "" where it costs no more than the limits."""
    if cost.trainings <= limits.trainings and cost.memory_bytes <= limits.memory_bytes:
        return ""
    most = f"{limits.trainings:g} trainings and {limits.memory_bytes / 2**30:g} GiB"
    asked = []
    if cost.trainings > limits.trainings:
        asked.append(f"--most {_round_up(cost.trainings)}")
    if cost.memory_bytes > limits.memory_bytes:
        asked.append(f"--memory {_round_up(cost.memory_bytes / 2**30)}")
    return f"{cost}, which is more than {most}; include it by {' '.join(asked)}"


def _round_up(value: float) -> str:
    """Return a whole number of two digits and zeros that is no less."""
    unit = 10 ** max(0, len(str(int(value))) - 2)
    return str(ceil(value / unit) * unit)


def source_of(method: str) -> str:
    """Return the source of the file that a method or tool is written in."""
    made: Any = TOOLS[method] if method in TOOLS else method_class(method)
    return inspect.getsource(sys.modules[made.__module__])


def in_one_line(error: Exception) -> str:
    """Return the message of an error without its line breaks."""
    return " ".join(str(error).split())


def damaged_answer(path: Path, error: Exception) -> StorageError:
    """Return the error of a kept answer that cannot be read."""
    return StorageError(
        explain(
            f"a whole answer of a method at {path}",
            in_one_line(error),
            "the file was cut short by a copy, or belongs to another program",
            "delete this one file: its method is asked again, all other answers are kept",
        )
    )


def _tool(ask: Ask) -> tuple[pd.DataFrame, str, str]:
    if ask.candidates is not None:
        raise NotSupportedError(
            explain(
                "a method that estimates what adding rows does",
                f"the tool {ask.method!r}, which judges the labels of training rows",
                "a tool looks at rows only, at no model",
                "use a method that takes candidates (fi.methods())",
            )
        )
    fields_ = ask.problem.recipe.rows.batch(torch.arange(len(ask.problem.ids)))
    scores = TOOLS[ask.method](fields_["x"].numpy(), fields_["y"].numpy(), ask.seed)
    queries = ["own"] if ask.queries is None else [n for q in ask.queries for n in q.names]
    if ask.groups is None:
        return _frame(ask.problem.ids, queries, np.tile(scores[:, None], len(queries))), "rows", ""
    sums = np.array([scores[list(rows)].sum() for rows in ask.groups.values()])
    return _frame(list(ask.groups), queries, np.tile(sums[:, None], len(queries))), "rows", ""


def _own(found: Influence, ask: Ask) -> tuple[pd.DataFrame, str]:
    """Return how suspect each row is: by its own influence, or by its score where rows are scored by themselves."""
    if len(found.queries) == 1:
        return _frame(found.subsets.tolist(), ["own"], found.data["score"].values), "rows"
    names = found.subsets.tolist()
    if not found.has_mu:  # a row that carries its own label is least harmful to itself: its loss would rise
        return _frame(names, ["own"], -_diagonal(found, "score")), "score"
    mu = _diagonal(found, "mu")
    return _frame(names, ["own"], mu, mu, _diagonal(found, "effect") if found.has_effect else None), "mu"


def _diagonal(found: Influence, name: str) -> np.ndarray:
    """Return what each row does to its own query [n, 1]."""
    return np.diag(found.data[name].values)[:, None]


def _removal(found: Influence, names: list[str]) -> tuple[pd.DataFrame, str]:
    """Return what removal does to each query; a score of rows by themselves stands for every query."""
    data, subsets = found.data, found.subsets.tolist()
    if not found.has_mu and found.queries != names:
        return _frame(subsets, names, np.tile(data["score"].values, len(names))), "rows"
    nothing = np.full((len(subsets), len(names)), np.nan)
    effect = data["effect"].values if found.has_effect else nothing
    if not found.has_mu:
        effect = data["predicted_effect"].values if "predicted_effect" in data else nothing
        return _frame(subsets, names, data["score"].values, nothing, effect), "score"
    mu = data["mu"].values
    return _frame(subsets, names, mu * data["sign"].values, mu, effect), "mu"


def _frame(
    subsets: Sequence[Any],
    queries: Sequence[str],
    harm: np.ndarray,
    mu: np.ndarray | None = None,
    effect: np.ndarray | None = None,
) -> pd.DataFrame:
    nothing = np.full(len(subsets) * len(queries), np.nan)

    def column(given: np.ndarray) -> np.ndarray:
        values = np.asarray(given, dtype=np.float64).ravel()
        return np.where(np.isfinite(values), values, np.nan)

    return pd.DataFrame(
        {
            "subset": np.repeat([str(s) for s in subsets], len(queries)),
            "query": np.tile(np.asarray(queries), len(subsets)),
            "harm": column(harm),
            "mu": nothing if mu is None else column(mu),
            "effect": nothing if effect is None else column(effect),
        }
    )


def _write(path: Path, answer: Answer) -> None:
    said = {"method": answer.method, "seed": answer.seed, "kind": answer.kind}
    said |= {"seconds": answer.seconds, "training": answer.training}
    table = pa.Table.from_pandas(answer.frame, preserve_index=False)
    with atomic(path) as part:
        pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(said).encode()}), part)


def _read(path: Path) -> Answer:
    try:
        table = pq.read_table(path)
        said = json.loads((table.schema.metadata or {})[_KEY])
        frame = table.replace_schema_metadata(None).to_pandas()
        return Answer(said["method"], said["seed"], "measured", "", frame[_COLUMNS], said["kind"],
                      said["seconds"], said["training"])  # fmt: skip
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise damaged_answer(path, error) from error
