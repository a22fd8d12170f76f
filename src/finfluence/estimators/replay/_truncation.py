"""The truncation window: an epoch's part of the variance should shrink as one goes back."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from finfluence.errors import ConfigError, explain

GROWTH, RISE = 3.0, 25.0


@dataclass(frozen=True)
class TruncationRule:
    """Decides, per query, whether an epoch further back still belongs to the linear response.

    Noise enters an epoch in proportion to its squared learning rates, and stable training forgets it on the way
    to the end. So an epoch's variance over its Σ lr² is largest in the last epochs. An epoch that exceeds `growth`
    times the largest of the later ones, or `rise` times the smallest, by more than two standard errors of its own
    estimate, is refused, with all before it.

    Parameters
    ----------
    noise : tuple of float
        Σ of squared learning rates of each epoch, up to one common factor.
    epochs : int or None
        Cover exactly this many epochs; None: stop automatically.
    growth, rise : float
        How far an epoch may exceed later ones: training is rougher early.
    most : int or None
        Never cover more epochs than this.
    """

    noise: tuple[float, ...]
    epochs: int | None
    growth: float = GROWTH
    rise: float = RISE
    most: int | None = None

    @property
    def limit(self) -> int:
        """Most epochs that can be covered."""
        return min(v for v in (len(self.noise), self.epochs, self.most) if v is not None)

    def at_most(self, epochs: int) -> "TruncationRule":
        """Return the same rule, cut at this many epochs."""
        return replace(self, most=epochs)

    def accepts(self, epoch: int, variance: Tensor, error: Tensor, profile: Tensor) -> Tensor:
        """Return a mask [Q]: which queries accept `epoch`, given the variances so far [E, Q].

        `variance` [Q] is the epoch's own, `error` [Q] the variance of that estimate.

        Returns
        -------
        Tensor of bool [Q]
        """
        finite = torch.isfinite(variance)
        back = len(self.noise) - 1 - epoch
        if self.epochs is not None:
            return finite & (back < self.epochs)
        if back == 0:
            return finite
        noise = torch.tensor(self.noise, dtype=variance.dtype, device=variance.device).clamp_min(1e-300)
        later = (profile[epoch + 1 :] / noise[epoch + 1 :, None]).nan_to_num(0.0)
        bound = torch.minimum(self.growth * later.amax(0), self.rise * later.amin(0))
        surely = variance - 2 * error.clamp_min(0.0).sqrt()
        return finite & (surely / noise[epoch] <= bound)


def truncation_for(value: int | str, noise: tuple[float, ...], whole_batches: bool = False) -> TruncationRule:
    """Return the rule for the argument `horizon`: "auto", or a number of epochs.

    Parameters
    ----------
    value : "auto" or int
    noise : tuple of float
        Of the run, as `Tape.noise`.
    whole_batches : bool
        The run has no batch order, and no variance to be judged by: "auto" covers all epochs.

    Returns
    -------
    TruncationRule

    Raises
    ------
    ConfigError
        Neither.
    """
    epochs = len(noise)
    if value == "auto":
        return TruncationRule(noise, epochs if whole_batches else None)
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and 1 <= int(value) <= epochs:
        return TruncationRule(noise, int(value))
    raise ConfigError(
        explain(
            f"horizon to be 'auto' or a number of epochs from 1 to {epochs}",
            repr(value),
            "more epochs were asked for than the run has",
            "use horizon='auto'",
        )
    )
