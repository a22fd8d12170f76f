"""How far back to walk: an epoch's part of the variance should shrink as one walks back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.errors import ConfigError, explain


@dataclass(frozen=True)
class Horizon:
    """Decides, per query, whether an epoch further back still belongs to the linear response.

    epochs : int or None
        Walk exactly this many epochs; None: stop automatically.
    growth : float
        Automatic: refuse an epoch whose variance exceeds `growth` times that of the last epoch of training, and all before it.
    """

    last: int
    epochs: int | None
    growth: float = 1.0

    def accepts(self, epoch: int, variance: Tensor, profile: Tensor) -> Tensor:
        """Return a mask [Q]: whether `epoch`, with this variance [Q], is accepted given the profile so far [E, Q]."""
        finite = torch.isfinite(variance)
        back = self.last - epoch
        if self.epochs is not None:
            return finite & (back < self.epochs)
        if back == 0:
            return finite
        return finite & (variance <= self.growth * profile[self.last])


def horizon_for(value: int | str, epochs: int) -> Horizon:
    """Return the rule for the argument `horizon`: "auto", or a number of epochs.

    Raises
    ------
    ConfigError
        Neither.
    """
    if value == "auto":
        return Horizon(epochs - 1, None)
    if isinstance(value, int) and 1 <= value <= epochs:
        return Horizon(epochs - 1, value)
    raise ConfigError(
        explain(
            f"horizon to be 'auto' or a number of epochs from 1 to {epochs}",
            repr(value),
            "more epochs were asked for than the run has",
            "use horizon='auto'",
        )
    )
