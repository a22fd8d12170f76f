"""Z0-Inf: influence from losses at states of a run, by forward passes alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
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
TOGETHER = 2**20  # parameters
LEAST = 1e-6  # of the largest squared way between two states; shorter ones are no direction to measure along
ON_THE_PATH = (
    "a score, without an error: its terms are stretches of one path; what lies across the path is not seen"
)


@dataclass(frozen=True, kw_only=True)
class Z0InfOptions:
    """Options of `Z0Inf`.

    Parameters
    ----------
    checkpoints : int
        Stretches of the run, of equal length, between whose ends losses are compared.
    form : {"adjacent", "neighbourhood"}
        What the gradient at a state is fitted from: the way to the next one, or to both beside it.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    checkpoints: int = 10
    form: Form = "adjacent"
    rows_at_once: int = 1024

    def __post_init__(self) -> None:
        check_whole("checkpoints", self.checkpoints)
        check_choice("form", self.form, FORMS)
        check_whole("rows_at_once", self.rows_at_once)


class Z0Inf(AbstractEstimator[Tape, Z0InfOptions]):
    """Z0-Inf: how rows and queries change together along the run's path, from their values alone.

    Between states, ĝ_t(z) = (L_{t+1}(z) − L_t(z))/‖Δθ_t‖² · Δθ_t is the gradient as the path shows it:
    score(S) = σ Σ_{i∈S} Σ_t ĝ_t(i)·ĝ_t(q), that is Σ_t ΔL_t(i) Δq_t/‖Δθ_t‖² (*adjacent*), σ the query's sign: larger
    is more harmful. *neighbourhood*: ĝ_t averaged over the ways to the states before and after, from the Gram matrix of
    states. Nothing is differentiated: losses and queries may be anything that can be evaluated.

    Notes
    -----
    Reconstructed from descriptions: the paper's equations could not be read, and this is not claimed to be its exact
    algorithm. Exact where losses are linear in the parameters: TracIn along the path. Rows are seen only as far as they
    change along the path. Two states closer than 10⁻³ of the longest way count as one.

    Cost: an evaluation of every row and query at each state, and the Gram matrix of states.

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
        steps = [0, *spaced_steps(source, o.checkpoints)]
        states, rows, asked = [], [], []
        for done, step in enumerate(steps, start=1):
            with seeded(0):
                model = source.model(step).eval()
                states.append(source.layout.theta(model).cpu())
                rows.append(final_losses(source, model, o.rows_at_once))
                asked.append(forward_values(queries, model, source))
            progress("checkpoints", done, len(steps))
        fitted = adjacent if o.form == "adjacent" else neighbourhood
        found = fitted(gram_of(states), np.stack(rows), np.stack(asked))
        return scored(
            source,
            self.name,
            queries,
            subsets,
            sum_over(subsets.positions, found),
            mean_over(subsets, rows[-1]),
            findings=(ON_THE_PATH,),
            details={"checkpoints": steps},
        )

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        states = 1 + len(spaced_steps(source, self.options.checkpoints))
        memory = activation_bytes(source, self.options.rows_at_once)
        memory += states * (source.layout.size * source.layout.dtype.itemsize + 8 * (rows + columns))
        memory += 8 * (rows * columns + 2 * states * TOGETHER)
        return Cost(in_trainings(source, rows * states), memory)


def gram_of(states: list[Tensor]) -> np.ndarray:
    """Return the inner products [T, T] of states, measured from the first, in double precision."""
    found = torch.zeros(len(states), len(states), dtype=torch.float64)
    for parts in zip(*(state.split(TOGETHER) for state in states), strict=True):
        away = torch.stack(parts).double() - parts[0].double()
        found += away @ away.T
    return found.numpy()


def adjacent(gram: np.ndarray, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return Σ_t ΔL_t(i) Δq_t / ‖Δθ_t‖² [n, Q].

    Parameters
    ----------
    gram : array [T, T]
        Inner products of the states.
    rows, asked : arrays [T, n], [T, Q]
        Losses of rows and values of queries at each state.

    Returns
    -------
    array [n, Q]

    Examples
    --------
    >>> theta = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    >>> a, b = np.array([[1.0], [0.6], [0.2]]), np.array([[2.0], [1.5], [1.6]])
    >>> [float(adjacent(theta @ theta.T, a, c)[0, 0].round(6)) for c in (a, b)]
    [0.2, 0.19]
    """
    ways = _ways(gram)
    weights = np.where(ways > 0, 1 / np.where(ways > 0, ways, 1.0), 0.0)
    following = np.diagonal(weights, 1)[:, None]
    found: np.ndarray = (np.diff(rows, axis=0) * following).T @ np.diff(asked, axis=0)
    return found


def neighbourhood(gram: np.ndarray, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return Σ_t ĝ_t(i)·ĝ_t(q) [n, Q], ĝ_t averaged over the ways to the states beside t.

    Parameters
    ----------
    gram, rows, asked
        As for `adjacent`.

    Returns
    -------
    array [n, Q]

    Examples
    --------
    >>> theta = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    >>> a, b = np.array([[1.0], [0.6], [0.2]]), np.array([[2.0], [1.5], [1.6]])
    >>> ends = 0.4 * 0.5 + 0.4 * -0.1 / 4  # of the first and the last state, which have one neighbour
    >>> float((neighbourhood(theta @ theta.T, a, b)[0, 0] - ends).round(6))
    0.0475
    """
    ways, count = _ways(gram), len(gram)
    found = np.zeros((rows.shape[1], asked.shape[1]))
    for t in range(count):
        beside = [j for j in (t - 1, t + 1) if 0 <= j < count and ways[j, t] > 0]
        inner = gram[np.ix_(beside, beside)] - gram[beside, t][:, None] - gram[t, beside] + gram[t, t]
        of_rows, of_asked = (
            (values[beside] - values[t]) / ways[beside, t][:, None] for values in (rows, asked)
        )
        found += of_rows.T @ inner @ of_asked / max(len(beside), 1) ** 2
    return found


def _ways(gram: np.ndarray) -> np.ndarray:
    """Return ‖θ_j − θ_k‖² [T, T], zero where it is too small for a direction."""
    squares = np.diagonal(gram)
    ways = np.maximum(squares[:, None] - 2 * gram + squares, 0.0)
    return np.where(ways > LEAST * ways.max(), ways, 0.0)
