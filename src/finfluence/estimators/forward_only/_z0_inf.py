"""Z0-Inf: influence from losses at states of a run, by forward passes alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from finfluence._progress import Progress
from finfluence.estimators._base import AbstractEstimator, Cost, check_choice, check_whole
from finfluence.estimators._one_run import (
    activation_bytes,
    forward_values,
    in_trainings,
    mean_over,
    scored,
)
from finfluence.estimators._recorded_states import spaced_steps
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over
from finfluence.runs.tape import final_losses

Form = Literal["adjacent", "neighbourhood"]
FORMS = ("adjacent", "neighbourhood")
LEAST = 1e-6  # of the largest squared way from a state to the next; shorter ones are no direction to measure along
ON_THE_PATH = (
    "a score, without an error: its terms are stretches of one path; what lies across the path is not seen"
)


@dataclass(frozen=True, kw_only=True)
class Z0InfOptions:
    """Options of `Z0Inf`.

    Parameters
    ----------
    checkpoints : int, optional
        Stretches of the run, of equal length, between whose ends losses are compared; every step by itself unless
        given. Fewer cost less and see less: over many steps all rows are seen along the way that they share.
    form : {"adjacent", "neighbourhood"}
        What the gradient at a state is fitted from: the way to the next one, or to both beside it.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    checkpoints: int | None = None
    form: Form = "adjacent"
    rows_at_once: int = 1024

    def __post_init__(self) -> None:
        if self.checkpoints is not None:
            check_whole("checkpoints", self.checkpoints)
        check_choice("form", self.form, FORMS)
        check_whole("rows_at_once", self.rows_at_once)


class Z0Inf(AbstractEstimator[Tape, Z0InfOptions]):
    """Z0-Inf: how rows and queries change together along the run's path, from their values alone.

    Between states, ĝ_t(z) = (L_{t+1}(z) − L_t(z))/‖Δθ_t‖² · Δθ_t is the gradient as the path shows it:
    score(S) = σ Σ_{i∈S} Σ_t ĝ_t(i)·ĝ_t(q), that is Σ_t ΔL_t(i) Δq_t/‖Δθ_t‖² (*adjacent*), σ the query's sign: larger
    is more harmful. *neighbourhood*: ĝ_t averaged over the ways to the states before and after, from the inner products
    of successive ways. Nothing is differentiated: losses and queries may be anything that can be evaluated.

    Notes
    -----
    Reconstructed from descriptions: the paper's equations could not be read, and this is not claimed to be its exact
    algorithm. Exact where losses are linear in the parameters: TracIn along the path. Rows are seen only as far as they
    change along the path. A way shorter than 10⁻³ of the longest counts for nothing.

    A single step is what its batch pushed, and so shows what a row of that batch pushes by itself; the way over many
    steps is what most rows share, and a row that pushes elsewhere, such as a wrong label, moves least along it. So
    every step is looked at by default; with fewer stretches a finding says what is lost.

    Cost: an evaluation of every row and query at each state.

    References
    ----------
    "Z0-Inf: zeroth order approximation for data influence" (2025).

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> Z0Inf().estimate(train(recipe), zero).top(1).row_id.item()
    3
    """

    name = "z0-inf"
    family = "forward_only"
    paper = "arXiv 2510.11832"
    yields = "score"
    needs = Tape
    Options = Z0InfOptions

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o = self.options
        steps = self._looked_at(source)
        rows, asked, ways = [], [], _Ways()
        for done, model in enumerate(source.models(steps), start=1):
            ways.add(source.layout.theta(model).detach().double())
            with seeded(0):
                rows.append(final_losses(source, model, o.rows_at_once))
                asked.append(forward_values(queries, model, source))
            progress("checkpoints", done, len(steps))
        fitted = adjacent if o.form == "adjacent" else neighbourhood
        found = fitted(ways.path(), np.stack(rows), np.stack(asked))
        return scored(
            source,
            self.name,
            queries,
            subsets,
            sum_over(subsets.positions, found),
            mean_over(subsets, rows[-1]),
            findings=(
                ON_THE_PATH,
                *([_coarse(len(steps) - 1, source.steps)] if len(steps) <= source.steps else []),
            ),
            details={"checkpoints": steps},
        )

    def _looked_at(self, source: Tape) -> list[int]:
        return [0, *spaced_steps(source, self.options.checkpoints or source.steps)]

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = len(self._looked_at(source))
        memory = activation_bytes(source, self.options.rows_at_once)
        memory += 4 * 8 * source.layout.size + 8 * (3 * states * (rows + columns) + rows * columns)
        return Cost(in_trainings(source, rows * states), memory)


@dataclass(frozen=True, eq=False)
class StatePath:
    """The ways Δθ_t between successive states.

    Attributes
    ----------
    squares : array [T]
        ‖Δθ_t‖².
    turns : array [T − 1]
        Δθ_t · Δθ_{t+1}.

    Examples
    --------
    >>> path = StatePath.through(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]))
    >>> path.squares.tolist(), path.turns.tolist()
    ([1.0, 4.0], [0.0])
    """

    squares: np.ndarray
    turns: np.ndarray

    @classmethod
    def through(cls, states: np.ndarray) -> "StatePath":
        """Return the path through the rows of an array [T + 1, P]."""
        ways = np.diff(states, axis=0)
        return cls((ways**2).sum(1), (ways[1:] * ways[:-1]).sum(1))

    @property
    def long(self) -> np.ndarray:
        """Which ways are long enough to be a direction, bool [T]."""
        found: np.ndarray = self.squares > LEAST * self.squares.max(initial=0.0)
        return found


class _Ways:
    """Gathers a path state by state; three vectors are held at a time."""

    def __init__(self) -> None:
        self._squares: list[float] = []
        self._turns: list[float] = []
        self._state: Tensor | None = None
        self._way: Tensor | None = None

    def add(self, state: Tensor) -> None:
        if self._state is not None:
            way = state - self._state
            self._squares.append(float(way @ way))
            if self._way is not None:
                self._turns.append(float(self._way @ way))
            self._way = way
        self._state = state

    def path(self) -> StatePath:
        return StatePath(np.array(self._squares), np.array(self._turns))


def adjacent(path: StatePath, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return Σ_t ΔL_t(i) Δq_t / ‖Δθ_t‖² [n, Q].

    Parameters
    ----------
    path : StatePath
        Of T ways.
    rows, asked : arrays [T + 1, n], [T + 1, Q]
        Losses of rows and values of queries at each state.

    Returns
    -------
    array [n, Q]

    Examples
    --------
    >>> path = StatePath.through(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]))
    >>> a, b = np.array([[1.0], [0.6], [0.2]]), np.array([[2.0], [1.5], [1.6]])
    >>> [float(adjacent(path, a, c)[0, 0].round(6)) for c in (a, b)]
    [0.2, 0.19]
    """
    found: np.ndarray = _along(path, rows).T @ np.diff(asked, axis=0)
    return found


def neighbourhood(path: StatePath, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return Σ_t ĝ_t(i)·ĝ_t(q) [n, Q], ĝ_t averaged over the ways to the states beside t.

    Parameters
    ----------
    path, rows, asked
        As for `adjacent`.

    Returns
    -------
    array [n, Q]

    Examples
    --------
    >>> path = StatePath.through(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]))
    >>> a, b = np.array([[1.0], [0.6], [0.2]]), np.array([[2.0], [1.5], [1.6]])
    >>> ends = 0.4 * 0.5 + 0.4 * -0.1 / 4  # of the first and the last state, which have one neighbour
    >>> float((neighbourhood(path, a, b)[0, 0] - ends).round(6))
    0.0475
    """
    beside = np.r_[0, path.long] + np.r_[path.long, 0]  # how many neighbours each state has
    weight = 1 / np.maximum(beside, 1.0) ** 2
    of_rows, of_asked = _along(path, rows), _along(path, asked)
    own = path.squares * (weight[:-1] + weight[1:])
    turned = (path.turns * weight[1:-1])[:, None]
    found: np.ndarray = (of_rows * own[:, None]).T @ of_asked
    found += (of_rows[:-1] * turned).T @ of_asked[1:] + (of_rows[1:] * turned).T @ of_asked[:-1]
    return found


def _along(path: StatePath, values: np.ndarray) -> np.ndarray:
    """Return the fitted gradient in multiples of each way [T, …]: Δ value / ‖Δθ‖², zero on ways that are too short."""
    inverse = np.where(path.long, 1 / np.where(path.long, path.squares, 1.0), 0.0)
    found: np.ndarray = np.diff(values, axis=0) * inverse[:, None]
    return found


def _coarse(stretches: int, steps: int) -> str:
    return (
        f"{stretches} stretches for {steps} steps: over a stretch of several steps rows are seen along the way that "
        "all share, and what a row pushes by itself is lost; own influence then ranks wrong labels too low (on digits "
        "below chance). Leave checkpoints out to look at every step"
    )
