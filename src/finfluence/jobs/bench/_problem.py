"""The problem that methods are compared on: a data set, some of its labels wrong, and how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._seeds import stream
from finfluence.ensemble import signature
from finfluence.errors import ConfigError, explain
from finfluence.runs import SGD, AdamW, AnyQuery, Recipe, Rows, each_loss, mean_loss

LEFT = 10
"""The least number of rows held out."""


@dataclass(frozen=True)
class DataSet:
    """Rows to train on, and the training that suits them: one small file in `finfluence.jobs.bench.data`.

    Parameters
    ----------
    name, summary : str
        What it is called, and what it is, in a line.
    install : str
        The command that installs it.
    read : callable
        `read() -> (x, y)`: features [n, …], float32, of which a network can learn as they are, and classes 0 … C−1.
        Reads what is installed, downloads nothing, and raises in words where it is missing.
    model : callable
        `model(seed) -> nn.Module`: a new network.
    optimizer : SGD or AdamW
    batch_size, epochs : int
    rows, held_out : int
        How many rows are trained on unless asked otherwise, and how many others are held out, at most.
    votes : callable, optional
        `votes() -> array [n, C]`: how many people gave each row each class, most of them that of `read`. Wrong labels
        are then those of people: each training row is labelled by one of its people, drawn at random, and `share` is
        not used.
    """

    name: str
    summary: str
    install: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    model: Callable[[int], nn.Module]
    optimizer: SGD | AdamW
    batch_size: int
    epochs: int
    rows: int
    held_out: int
    votes: Callable[[], np.ndarray] | None = None

    def noise(self, share: float) -> str:
        """Return in words which labels are wrong, `share` of them where that is asked for."""
        if share == 0:
            return "all labels right"
        if self.votes is None:
            return f"{share:.0%} of the labels replaced by another class"
        return "each label that of one person drawn at random, wrong where most people say otherwise"


@dataclass(frozen=True, eq=False)
class Problem:
    """A training with planted label errors, and rows held out.

    Attributes
    ----------
    recipe
        What is trained.
    flipped
        Which labels are wrong, bool [n].
    x_test, y_test
        Rows held out, with their right labels.
    seed
        Of the split and of the errors.
    """

    data: str
    recipe: Recipe
    flipped: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    seed: int

    @property
    def ids(self) -> list[int]:
        """Ids of the training rows."""
        found: list[int] = self.recipe.rows.ids.tolist()
        return found

    @property
    def held_out(self) -> AnyQuery:
        """The mean loss of the rows held out."""
        return mean_loss(self.x_test, self.y_test, name="held-out")

    def test_rows(self, count: int) -> AnyQuery:
        """Return the losses of the first rows held out, each by itself."""
        return each_loss(
            self.x_test[:count],
            self.y_test[:count],
            names=[f"test {k}" for k in range(len(self.x_test[:count]))],
        )

    @cached_property
    def hash(self) -> str:
        """Of the recipe, its rows and the rows held out."""
        return signature(self.recipe, [self.held_out])


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy of each row."""
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def make_problem(data: DataSet, rows: int | None, share: float, seed: int) -> Problem:
    """Return the data split at random, with wrong labels: a share replaced by another class, or those of people.

    With a share of 0 all labels are right.

    Returns
    -------
    Problem

    Raises
    ------
    ConfigError
        More rows are asked for than there are beside those held out.
    """
    x, right, x_test, y_test = split(data, rows, seed)
    count = len(right)
    if share == 0:
        labels = right
    elif data.votes is None:
        labels = _replaced(right, int(max(right.max(), y_test.max())) + 1, share, seed)
    else:
        labels = by_one_person(data.votes()[_order(len(data.read()[1]), seed)[:count]], seed)
    flipped = labels != right
    recipe = Recipe(
        data=Rows(x=torch.from_numpy(x), y=torch.from_numpy(labels)), model=data.model, loss=class_loss,
        optimizer=data.optimizer, batch_size=min(data.batch_size, count), epochs=data.epochs,
    )  # fmt: skip
    return Problem(data.name, recipe, flipped, x_test, y_test, seed)


def by_one_person(votes: np.ndarray, seed: int) -> np.ndarray:
    """Return the class that one of each row's people gave it [n], drawn at random among them.

    Parameters
    ----------
    votes : array [n, C]
        How many people gave each row each class.
    seed : int

    Returns
    -------
    array of int [n]

    Examples
    --------
    >>> labels = by_one_person(np.tile([[9, 1]], (1000, 1)), seed=0)
    >>> int((labels == 1).sum())
    110
    """
    drawn = stream(seed, "bench people").random(len(votes)) * votes.sum(1)
    found: np.ndarray = (np.cumsum(votes, axis=1) <= drawn[:, None]).sum(1)
    return found.astype(np.int64)


def _replaced(right: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    labels, rng = right.copy(), stream(seed, "bench flips")
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[rng.choice(len(labels), max(1, round(share * len(labels))), replace=False)] = True
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    return labels


def split(
    data: DataSet, rows: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows to train on and rows held out, drawn at random: x, y, x_test, y_test.

    Returns
    -------
    tuple of arrays

    Raises
    ------
    ConfigError
        More rows are asked for than there are beside those held out.
    """
    x, y = data.read()
    count = data.rows if rows is None else rows
    if count + LEFT > len(x):
        raise ConfigError(
            explain(
                f"at most {len(x) - LEFT:,} training rows of {data.name}, so that some are held out",
                f"--rows {count}",
                "the data set is smaller than that",
                "ask for fewer rows",
            )
        )
    order = _order(len(x), seed)
    train, test = order[:count], order[count : count + data.held_out]
    return x[train], y[train].astype(np.int64), x[test], y[test].astype(np.int64)


def _order(count: int, seed: int) -> np.ndarray:
    return stream(seed, "bench split").permutation(count)
