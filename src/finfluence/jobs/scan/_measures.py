"""What a trained model is measured by on held-out rows: row by row, so that intervals know runs and rows."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.ingest import Table, Target
from finfluence.runs import Query

FEWEST_OF_CLASS = 2
_AT_ONCE = 1024
RATES = ("accuracy", "balanced accuracy")
"""Measures that are shares, and said in percentage points."""


@dataclass(frozen=True, eq=False)
class RowOutputs:
    """A query of many values: of each row the probability of its label and whether it is predicted [2n], or the error.

    Parameters
    ----------
    x : Tensor [n, …]
        Features.
    y : Tensor [n]
        Class indices, or standardised numbers: then the values are predictions minus them [n].
    classes : bool
        Whether `y` holds class indices.
    """

    x: Tensor
    y: Tensor
    classes: bool

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each number that `values` returns."""
        return tuple(f"output {k}" for k in range((1 + self.classes) * len(self.y)))

    def values(self, model: nn.Module, recipe: Any) -> Tensor:
        """Return the values as a tensor."""
        outputs = model(self.x)
        if not self.classes:
            error: Tensor = outputs[:, 0].double() - self.y
            return error
        chance = outputs.double().softmax(1).gather(1, self.y[:, None])[:, 0]
        return torch.cat([chance, (outputs.argmax(1) == self.y).double()])


@dataclass(frozen=True, eq=False)
class RowChances:
    """A query of many values: the logarithm of every class's probability on every row [n · K].

    Parameters
    ----------
    x : Tensor [n, …]
        Features.
    classes : int
        K.
    """

    x: Tensor
    classes: int

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each number that `values` returns."""
        return tuple(f"chance {k}" for k in range(len(self.x) * self.classes))

    def values(self, model: nn.Module, recipe: Any) -> Tensor:
        """Return the values as a tensor."""
        outputs = torch.cat([model(part) for part in self.x.split(_AT_ONCE)])
        return outputs.double().log_softmax(1).flatten()


@dataclass(frozen=True, eq=False)
class Hidden:
    """A query of many values: what the last layer of a sequence of layers is given, row by row [n · H].

    Parameters
    ----------
    x : Tensor [n, …]
        Features.
    width : int
        H.
    """

    x: Tensor
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each number that `values` returns."""
        return tuple(f"hidden {k}" for k in range(len(self.x) * self.width))

    def values(self, model: nn.Module, recipe: Any) -> Tensor:
        """Return the values as a tensor."""
        assert isinstance(model, nn.Sequential)
        return torch.cat([model[:-1](part) for part in self.x.split(_AT_ONCE)]).flatten()


@dataclass(frozen=True)
class Measured:
    """One measure of the check: its name, its unit, and which side is better.

    Attributes
    ----------
    name
        "log loss", "accuracy", "balanced accuracy", "bounded loss"; "loss", "RMSE", "absolute error" for a regression.
        "held-out" stands before it in what is written down.
    """

    name: str
    better: Literal["lower", "higher"]
    unit: str = ""

    @property
    def full_name(self) -> str:
        """The name with "held-out" before it."""
        return f"held-out {self.name}"


def measures(target: Target) -> tuple[Measured, ...]:
    """Return what a check measures; the loss comes first, and then what a person looks at."""
    if target.classes is not None:
        return (
            Measured("log loss", "lower", "nats"),
            Measured("accuracy", "higher"),
            Measured("balanced accuracy", "higher"),
            Measured("bounded loss", "lower"),
        )
    return (
        Measured("loss", "lower"),
        Measured("RMSE", "lower", target.written or target.name),
        Measured("absolute error", "lower", target.written or target.name),
    )


def row_values(measure: Measured, outputs: np.ndarray, target: Target) -> np.ndarray:
    r"""Return values [runs, rows] whose mean over rows is the measure of each run.

    The bounded loss is 1 − p of the label: unlike the log loss, a wrong held-out label costs at most 1. Of the RMSE the
    values are e²/(2 RMSE) + RMSE/2, its first order in each row.

    Parameters
    ----------
    outputs : array [runs, k]
        As `RowOutputs` gives them.

    Returns
    -------
    array
    """
    if target.classes is not None:
        chance, hit = np.split(outputs, 2, axis=1)
        if measure.name in RATES:
            return hit
        return 1 - chance if measure.name == "bounded loss" else -np.log(np.maximum(chance, 1e-30))
    error = outputs * target.scale
    if measure.name == "loss":
        return 0.5 * outputs**2
    if measure.name == "absolute error":
        return np.abs(error)
    root = np.sqrt((error**2).mean(1, keepdims=True))
    values: np.ndarray = 0.5 * (error**2 / np.maximum(root, 1e-300) + root)
    return values


def bounded_loss(held: Table, name: str) -> Query:
    r"""Return the query of a loss of at most 1 a row, which a few wrong held-out labels cannot dominate.

    .. math:: 1 - p_\theta(y \mid x), \quad \text{of numbers } 1 - e^{-(\hat y - y)^2 / 2}

    with numbers in standard deviations of the training rows; the mean over the rows.

    Returns
    -------
    Query
    """
    x, y = torch.from_numpy(held.x), torch.from_numpy(held.y)

    def of_classes(model: nn.Module) -> Tensor:
        return 1 - model(x).softmax(1).gather(1, y[:, None]).mean()

    def of_numbers(model: nn.Module) -> Tensor:
        error = model(x)[:, 0] - y
        return 1 - torch.exp(-(error**2) / 2).mean()

    return Query(of_numbers if held.target.classes is None else of_classes, name=name, unit="")


def known_classes(y: np.ndarray) -> np.ndarray:
    """Return the class indices of which there are at least two rows."""
    found, counts = np.unique(y, return_counts=True)
    known: np.ndarray = found[counts >= FEWEST_OF_CLASS]
    return known
