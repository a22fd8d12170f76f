"""Baselines from the losses of rows along the run: their mean, and how often a row was forgotten."""

from dataclasses import dataclass

import numpy as np

from finfluence.estimators._base import check_whole
from finfluence.estimators._recorded_states import spaced_steps
from finfluence.estimators.baselines._probabilities import class_probabilities
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.runs import Tape
from finfluence.runs.tape import final_losses


@dataclass(frozen=True, kw_only=True)
class AlongTheRunOptions(RowScoreOptions):
    """Options of a score from several states of a run.

    Parameters
    ----------
    checkpoints : int, optional
        States of the run, at the ends of as many stretches of equal length; one an epoch unless given.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that is no whole number of at least 1.
    """

    checkpoints: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoints is not None:
            check_whole("checkpoints", self.checkpoints)


class _AlongTheRun(RowScore[AlongTheRunOptions]):
    Options = AlongTheRunOptions

    def _steps(self, tape: Tape) -> list[int]:
        return spaced_steps(tape, self.options.checkpoints or max(len(tape.epochs), 1))

    def _evaluations(self, source: Tape) -> float:
        return float(len(self._steps(source)))


class MeanLoss(_AlongTheRun):
    """Mean loss of each row over the run: what was learnt late, or never.

    score(S) = Σ_{i∈S} (1/C) Σ_c ℓ_i(θ_c) over states of the run, in evaluation mode; larger is more suspect. A wrong
    row that was learnt by heart in the end still has a large loss on the way.

    Notes
    -----
    Cost: an evaluation of every row at each state.

    References
    ----------
    Pleiss et al., "Identifying mislabeled data using the area under the margin ranking" (2020), there of margins.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> MeanLoss().estimate(train(recipe), own_loss([3])).top(1).row_id.item()
    3
    """

    name = "mean-loss"
    paper = "arXiv 2001.10528"

    def scores(self, tape: Tape) -> np.ndarray:
        """Return the mean loss of every row [n]."""
        at_once = self.options.rows_at_once
        return np.mean([final_losses(tape, tape.model(step), at_once) for step in self._steps(tape)], 0)


class Forgetting(_AlongTheRun):
    """How often each row was forgotten: classified rightly at one state of the run, wrongly at the next.

    score(S) = Σ_{i∈S} events_i; larger is more suspect. A row is right where its class has the largest probability; one
    that never is counts as forgotten at every state and once more, so that it stands above all others.

    Notes
    -----
    Cost: an evaluation of every row at each state. For classifiers, as `margin`. Published with every row seen as often
    as it was drawn; here all rows are evaluated at the same states.

    References
    ----------
    Toneva et al., "An empirical study of example forgetting during deep neural network learning" (2019).

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.array([[-1.0], [-1.0], [1.0], [-1.0]]), np.array([0, 0, 1, 1])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 2), optimizer=SGD(lr=0.1), batch_size=2, epochs=40,
    ...                 loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"))
    >>> Forgetting().estimate(train(recipe), own_loss([3])).top(1).row_id.item()
    3
    """

    name = "forgetting"
    paper = "arXiv 1812.05159"

    def _check(self, source: Tape) -> None:
        class_probabilities(source, rows_at_once=2, rows=2)

    def scores(self, tape: Tape) -> np.ndarray:
        """Return how often every row was forgotten [n]."""
        right = []
        for step in self._steps(tape):
            p, y = class_probabilities(tape, self.options.rows_at_once, step=step)
            right.append(p.argmax(1) == y)
        return forgetting_events(np.stack(right))


def forgetting_events(right: np.ndarray) -> np.ndarray:
    """Return how often each row was right and then wrong [n]; the number of states and one more if it never was right.

    Parameters
    ----------
    right : array of bool [C, n]
        Whether each row was classified rightly at each state, in order.

    Returns
    -------
    array of float [n]

    Examples
    --------
    >>> forgetting_events(np.array([[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], dtype=bool)).tolist()
    [2.0, 0.0, 5.0]
    """
    events = (right[:-1] & ~right[1:]).sum(0)
    return np.where(right.any(0), events, len(right) + 1).astype(float)
