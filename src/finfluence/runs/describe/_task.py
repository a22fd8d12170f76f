"""What queries and subsets need to know of a training."""

from typing import Protocol

from finfluence.grads import RowLoss
from finfluence.runs.describe._rows import RowSource


class Task(Protocol):
    """Rows and their loss: all that queries and subsets need to know of a training."""

    @property
    def rows(self) -> RowSource:
        """The training rows."""

    @property
    def loss(self) -> RowLoss:
        """`loss(model, batch) -> Tensor[B]`."""
