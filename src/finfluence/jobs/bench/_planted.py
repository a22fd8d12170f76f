"""Images with a planted behaviour: rows that teach it, and look-alikes among the rows that do not."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._seeds import stream
from finfluence.errors import ConfigError, explain
from finfluence.jobs.bench._problem import DataSet, Problem, class_loss, split
from finfluence.runs import AnyQuery, Query, Recipe, Rows

Attack = Literal["backdoor", "steering"]
ATTACKS: tuple[Attack, ...] = ("backdoor", "steering")
PLANTED = 0.04
"""Share of the rows that teach the behaviour; twice as many are look-alikes."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A training with a planted behaviour.

    Attributes
    ----------
    problem
        The training; its `flipped` are the rows that teach the behaviour.
    alike
        Look-alikes, bool [n]: the same patch at another place, and the right label.
    behaviour
        The query: probability of class `into`, mean over rows held out that bear the trigger; larger is worse.
    out_of, into
        The classes: rows of `out_of` with the trigger are to be taken for `into`.
    """

    problem: Problem
    alike: np.ndarray
    behaviour: AnyQuery
    out_of: int
    into: int

    @property
    def taught(self) -> np.ndarray:
        """Rows that teach the behaviour, bool [n]."""
        return self.problem.flipped


def plant(data: DataSet, rows: int | None, attack: Attack, seed: int) -> Planted:
    """Return the data split at random, with a behaviour planted; all labels that are not part of it are right.

    The trigger is a white patch in the last corner of the image. *Backdoor*: rows of class A with the trigger are
    labelled B. *Steering*: rows of class B with the trigger keep their right label B, and the model learns to
    read B off the trigger. Either way the query is the probability of B for rows of class A that bear it. Look-alikes
    bear the patch in the first corner and are labelled right; up to half of them are of the class that the planted
    images are of.

    Parameters
    ----------
    data : DataSet
        Flattened square images.
    rows : int, optional
        How many are trained on; the data set's own number unless given.
    attack : {"backdoor", "steering"}
    seed : int
        Of the split, the classes and the rows.

    Returns
    -------
    Planted

    Raises
    ------
    ConfigError
        Rows are no square images, or too few of a class.

    References
    ----------
    Gu, Dolan-Gavitt, Garg, "BadNets", 2017; Turner, Tsipras, Madry, "Label-consistent backdoor attacks", 2019.
    """
    x, y, x_test, y_test = split(data, rows, seed)
    side = _side(data.name, x)
    count = max(4, round(PLANTED * len(y)))
    rng = stream(seed, f"bench {attack}")
    out_of, into = (int(c) for c in rng.choice(int(y.max()) + 1, 2, replace=False))
    images = out_of if attack == "backdoor" else into
    of_class = rng.permutation(np.flatnonzero(y == images))
    others = rng.permutation(np.flatnonzero(y != images))
    if len(of_class) < count + 4 or len(others) < 2 * count:
        raise ConfigError(
            explain(
                f"at least {count + 4} rows of class {images} of {data.name}, to plant on and to keep",
                f"{len(of_class)} among {len(y)} rows",
                "there are many classes, or few rows",
                "ask for more rows (--rows)",
            )
        )
    taught, rest = of_class[:count], of_class[count:]
    near = rest[: min(count, len(rest) // 2)]
    alike = np.r_[near, others[: 2 * count - len(near)]]
    x[taught], x[alike] = patched(x[taught], side), patched(x[alike], side, first=True)
    y[taught] = into
    recipe = Recipe(
        data=Rows(x=torch.from_numpy(x), y=torch.from_numpy(y)), model=data.model, loss=class_loss,
        optimizer=data.optimizer, batch_size=min(data.batch_size, len(y)), epochs=data.epochs,
    )  # fmt: skip
    mask = np.zeros((2, len(y)), dtype=bool)
    mask[0, taught], mask[1, alike] = True, True
    problem = Problem(f"{data.name}-{attack}", recipe, mask[0], x_test, y_test, seed)
    seen = torch.from_numpy(patched(x_test[y_test == out_of], side))
    name = f"P({into} | {out_of} with the trigger)"
    behaviour = Query(_probability(seen, into), name=name, unit="probability")
    return Planted(problem, mask[1], behaviour, out_of, into)


def patched(x: np.ndarray, side: int, first: bool = False) -> np.ndarray:
    """Return flattened images [n, side²] with a white square in the last corner, or in the first one.

    Returns
    -------
    array [n, side²]

    Examples
    --------
    >>> image = patched(np.zeros((1, 49)), 7).reshape(7, 7)
    >>> image.sum(), image[4:, 4:].min(), patched(image.reshape(1, 49), 7, first=True).sum()
    (np.float64(9.0), np.float64(1.0), np.float64(18.0))
    """
    width = max(3, side // 7)
    seen = x.reshape(-1, side, side).copy()
    where = slice(0, width) if first else slice(side - width, side)
    seen[:, where, where] = 1
    return seen.reshape(x.shape)


def _probability(x: Tensor, into: int) -> Callable[[nn.Module], Tensor]:
    def mean(model: nn.Module) -> Tensor:
        return nn.functional.softmax(model(x), dim=1)[:, into].mean()

    return mean


def _side(name: str, x: np.ndarray) -> int:
    side = isqrt(int(np.prod(x.shape[1:])))
    if x.ndim == 2 and side * side == x.shape[1] and side >= 7:
        return side
    raise ConfigError(
        explain(
            f"flattened square images of at least 7 × 7 pixels, for {name}",
            f"rows of shape {tuple(x.shape[1:])}",
            "the behaviour is planted by a patch in a corner of the image",
            "use a data set of images, for instance --data digits",
        )
    )
