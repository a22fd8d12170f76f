"""Chance: what knowing nothing achieves."""

from dataclasses import dataclass

import numpy as np

from finfluence._seeds import stream
from finfluence.estimators._base import check_whole
from finfluence.estimators._one_run import id_order
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.runs import Tape


@dataclass(frozen=True, kw_only=True)
class RandomOptions(RowScoreOptions):
    """Options of `Random`.

    Parameters
    ----------
    seed : int, optional
        Of the draw; the tape's order seed unless given.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A seed that is no whole number of at least 0.
    """

    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None:
            check_whole("seed", self.seed, 0)


class Random(RowScore[RandomOptions]):
    """A uniform number for each row: what knowing nothing achieves.

    score(S) = Σ_{i∈S} U_i, U_i between 0 and 1, drawn in the order of the row ids: a row keeps its number wherever it
    stands in the data.

    Notes
    -----
    Cost: nothing but the own losses that every result holds.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=2)
    >>> score = Random(RandomOptions(seed=1)).estimate(train(recipe), own_loss([3])).data.score.values
    >>> score.shape, bool((0 < score).all() and (score < 1).all())
    ((4, 1), True)
    """

    name = "random"
    paper = "none"
    Options = RandomOptions

    def scores(self, tape: Tape) -> np.ndarray:
        """Return a uniform number for every row [n]."""
        seed = tape.seed if self.options.seed is None else self.options.seed
        drawn = np.empty(len(tape.rows))
        drawn[id_order(tape)] = random_score(len(drawn), seed)
        return drawn

    def _evaluations(self, source: Tape) -> float:
        return 0.0


def random_score(n: int, seed: int = 0) -> np.ndarray:
    """Return n uniform scores between 0 and 1.

    Returns
    -------
    array [n]

    Examples
    --------
    >>> bool((random_score(3, seed=1) == random_score(3, seed=1)).all())
    True
    """
    return stream(seed, "baseline.random").random(n)
