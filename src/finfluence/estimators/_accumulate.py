"""Running sums of a backward walk: memory holds sums per (row, query), never gradients.

Effect of removing row i at fixed step count:  effect_i = −Σ_t (x_{t,i} − mean_D x_t) / (n−1).
*online* takes only the rows of the batch, each at its own step:  −Σ_{t: i∈B_t} (x_{t,i} − mean_{B_t} x_t)/(B−1),
an unbiased estimate. *full* takes all rows.

Spread from batch order, with S² the variance over rows (n−1):
independent batches    Var = Σ_t S²(x_t)/B
reshuffled each epoch  Var = Σ_e [ Σ_{t∈e} S²(x_t)/B − S²(Σ_{t∈e} x_t)/n ]
Both terms come from the same rows of the epoch (the probes), so each epoch's part is never negative.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class EpochSums:
    """Sums of one epoch, in float64: effects [n, Q], probe sums [m, Q], variance of the batch means [Q]."""

    effects: Tensor
    probes: Tensor
    batch_variance: Tensor

    @classmethod
    def zeros(cls, rows: int, probes: int, queries: int, device: torch.device) -> "EpochSums":
        """Return empty sums."""
        options = {"dtype": torch.float64, "device": device}
        return cls(
            torch.zeros(rows, queries, **options),
            torch.zeros(probes, queries, **options),
            torch.zeros(queries, **options),
        )

    def add_batch(self, rows: Tensor, slopes: Tensor) -> None:
        """Add the batch's own rows: slopes x [Q, B] at positions `rows` [B]."""
        x = slopes.double()
        terms = (x.mean(1, keepdim=True) - x) / (x.shape[1] - 1)
        self.effects.index_add_(0, rows, terms.T)

    def add_batch_variance(self, slopes: Tensor, batch_size: int, weight: float = 1.0) -> None:
        """Add weight · S²(x)/B of one step from slopes [Q, m]."""
        self.batch_variance += slopes.double().var(1) * (weight / batch_size)

    def add_probes(self, slopes: Tensor, weight: float) -> None:
        """Add weight · x of the probe rows [Q, m]."""
        self.probes += weight * slopes.double().T

    def variance(self, rows: int, reshuffled: bool) -> Tensor:
        """Return this epoch's part of Var(q) [Q]."""
        if not reshuffled:
            return self.batch_variance
        return self.batch_variance - self.probes.var(0) / rows

    def full_effects(self) -> Tensor:
        """Return effects [n, Q] when the probes are all rows."""
        return (self.probes.mean(0) - self.probes) / (len(self.probes) - 1)


class Totals:
    """Sums over the epochs accepted so far, and what their sampling error is estimated from."""

    def __init__(self, rows: int, queries: int, epochs: int, device: torch.device) -> None:
        options = {"dtype": torch.float64, "device": device}
        self.effects = torch.zeros(rows, queries, **options)
        self.roughness = torch.zeros(rows, queries, **options)
        self._previous = torch.zeros(rows, queries, **options)
        self.profile = torch.full((epochs, queries), torch.nan, **options)
        self.accepted = torch.zeros(queries, dtype=torch.int64, device=device)

    def add(self, epoch: int, effects: Tensor, variance: Tensor, active: Tensor) -> None:
        """Add one epoch's effects [n, Q] and variance [Q] for the queries still active [Q] (bool)."""
        kept = torch.where(active, effects, torch.zeros_like(effects))
        self.effects += kept
        step = torch.where(self.accepted > 0, kept - self._previous, kept)
        self.roughness += torch.where(active, step * step, torch.zeros_like(step))
        self._previous = kept
        self.profile[epoch] = torch.where(active, variance, self.profile[epoch])
        self.accepted += active

    def spread(self) -> Tensor:
        """Return sd of q over batch order [Q], from the epochs accepted."""
        return self.profile.nan_to_num(0.0).sum(0).clamp_min(0.0).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors, for saving."""
        names = ("effects", "roughness", "_previous", "profile", "accepted")
        return {name: getattr(self, name) for name in names}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take everything back from `tensors()`."""
        for name in self.tensors():
            setattr(self, name, tensors[name].to(self.effects.device))
