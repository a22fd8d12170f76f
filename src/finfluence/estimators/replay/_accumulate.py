"""Accumulators of a backward pass: memory holds sums per (row, query), never gradients.

Effect of removing row i at fixed step count:  effect_i = −Σ_t (x_{t,i} − mean_D x_t) / (n−1).
*online* takes only the rows of the batch, each at its own step:  −Σ_{t: i∈B_t} (x_{t,i} − mean_{B_t} x_t)/(B−1),
an unbiased estimate. *full* takes all rows.

Effect of adding candidate c, likewise:  effect_c = Σ_t (x_{t,c} − mean_D x_t) / (n+1).

Spread from batch order, with S² the variance over rows (n−1):
independent batches    Var = Σ_t S²(x_t)/B · (n−1)/n   (from the rows of an independent batch itself: Σ_t S²(x_t)/B)
reshuffled each epoch  Var = Σ_e [ Σ_{t∈e} S²(x_t)/B − S²(Σ_{t∈e} x_t)/n ]
Both terms come from the same rows of the epoch (the variance sample), so each epoch's part is never negative.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

HELD = 2**16  # slopes of batches that are kept before they are added, all in one go


@dataclass
class EpochSums:
    """Sums of one epoch, in float64.

    Parameters
    ----------
    effects : Tensor [n, Q]
        Of the rows removed, or of the candidates added.
    slopes, squares : Tensor [m, Q]
        Of each variance-sample row: row directional derivatives, and their squared deviations.
    chances : Tensor [m]
        π, with which each of these rows came into the sample.
    variance, variance_error : Tensor [Q]
        The epoch's part of Var(q), and the variance of that estimate.
    """

    effects: Tensor
    slopes: Tensor
    squares: Tensor
    chances: Tensor
    variance: Tensor
    variance_error: Tensor
    _batches: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    @classmethod
    def zeros(cls, rows: int, sampled: int, queries: int, device: torch.device) -> "EpochSums":
        """Return empty sums."""

        def empty(*shape: int) -> Tensor:
            return torch.zeros(*shape, queries, dtype=torch.float64, device=device)

        alike = torch.full((sampled,), min(1.0, sampled / max(rows, 1)), dtype=torch.float64, device=device)
        return cls(empty(rows), empty(sampled), empty(sampled), alike, empty(), empty())

    def add_batch(self, rows: Tensor, slopes: Tensor) -> None:
        """Add the batch's own rows: slopes x [Q, M] of the batch at positions `rows` [B], then of M − B other rows."""
        self._batches.append((rows, slopes))
        if len(self._batches) * slopes.numel() >= HELD:
            self._add_held()

    def _add_held(self) -> None:
        """Add the batches that are kept: together those of one size, which of small ones takes a tenth of the time."""
        held, self._batches = self._batches, []
        while held:
            rows, slopes = held[0]
            alike = next(
                (k for k, (r, s) in enumerate(held) if len(r) != len(rows) or s.shape != slopes.shape),
                len(held),
            )
            x, size = torch.stack([s for _, s in held[:alike]]).double(), slopes.shape[1]
            terms = (x.mean(2, keepdim=True) - x[..., : len(rows)]) * size / (size - 1) / len(rows)
            order = torch.cat([r for r, _ in held[:alike]])
            self.effects.index_add_(0, order, terms.transpose(1, 2).flatten(0, 1))
            held = held[alike:]

    def add_batch_variance(self, slopes: Tensor, batch: float, rows: int) -> None:
        """Add Var(mean_B x) of one step from slopes [Q, M] of an independent batch, or of one row and others."""
        size = slopes.shape[1]
        squares = (slopes.double() - slopes.double().mean(1, keepdim=True)) ** 2
        different = 1 - 1 / rows if size > batch else 1.0  # rows drawn without replacement
        self.variance += different * squares.sum(1) / (size - 1) / batch
        self.variance_error += squares.var(1) / size / batch**2

    def add_sample(self, slopes: Tensor, batch_size: float, weight: float) -> None:
        """Add one step's slopes of the variance sample [Q, m], for `weight` steps with batches of this size."""
        x = slopes.double().T
        self.slopes += weight * x
        self.squares += (weight / batch_size) * (x - self._mean(x)) ** 2

    def close(self, rows: int, reshuffled: bool) -> None:
        """Turn the sample's sums into this epoch's part of Var(q) [Q] and the variance of that estimate [Q]."""
        self._add_held()
        m = len(self.slopes)
        if not m:
            return
        weights = 1 / self.chances
        parts = self.squares.clone()
        if reshuffled:
            parts -= (self.slopes - self._mean(self.slopes)) ** 2 / rows
        else:
            parts *= 1 - 1 / rows
        several = weights.sum() ** 2 / (weights**2).sum()
        parts = parts * weights[:, None] * (several / (several - 1) / rows)
        self.variance = parts.sum(0)
        left = (1 - self.chances)[:, None]
        centre = (left * parts).sum(0) / left.sum().clamp_min(1e-300)
        self.variance_error = m / (m - 1) * (left * (parts - centre) ** 2).sum(0)

    def _mean(self, x: Tensor) -> Tensor:
        """Return the mean over all rows [Q], from those of the sample [m, Q]."""
        weights = 1 / self.chances
        return (weights[:, None] * x).sum(0) / weights.sum()

    def add_all(self, slopes: Tensor) -> None:
        """Add the slopes of all rows [Q, n] of one step to the effects."""
        x = slopes.double().T
        self.effects += (x.mean(0) - x) / (len(x) - 1)

    def add_candidates(self, slopes: Tensor, weight: float, rows: int) -> None:
        """Add the slopes of candidate rows [Q, m] at one step, standing for `weight` steps over `rows` rows."""
        self.effects += slopes.double().T * (weight / (rows + 1))

    def add_mean_against_candidates(self, mean: Tensor, rows: int) -> None:
        """Add what one step's `rows` training rows, of mean slope [Q], lose of their weight to a candidate."""
        self.effects -= mean / (rows + 1)


class Accumulators:
    """Sums over the epochs accepted so far, and what their error is estimated from."""

    NAMES = (
        "effects", "roughness", "compared", "shares", "previous", "previous_share", "gap", "paired", "change",
        "changed", "profile", "profile_error", "accepted",
    )  # fmt: skip

    def __init__(self, rows: int, queries: int, epochs: int, device: torch.device) -> None:
        def filled(value: float, *shape: int) -> Tensor:
            return torch.full((*shape, queries), value, dtype=torch.float64, device=device)

        self.effects = filled(0.0, rows)
        self.roughness = filled(0.0, rows)
        self.compared = filled(0.0)
        self.shares = filled(0.0)
        self.previous = filled(0.0, rows)
        self.previous_share = filled(1.0)
        self.gap = filled(0.0)
        self.paired = filled(0.0)
        self.change = filled(0.0)
        self.changed = filled(0.0)
        self.profile = filled(torch.nan, epochs)
        self.profile_error = filled(0.0, epochs)
        self.accepted = torch.zeros(queries, dtype=torch.int64, device=device)

    def add(self, epoch: int, sums: EpochSums, active: Tensor, share: float = 1.0) -> None:
        """Add one epoch's effects and variance for the queries still active [Q] (bool).

        `share`: how much of an ordinary epoch's terms these are, where a query is averaged over the tail.
        """
        effects = sums.effects
        kept = torch.where(active, effects, torch.zeros_like(effects))
        self.effects += kept
        both = active & (self.accepted > 0)
        weight = torch.where(both, (share**2 + self.previous_share**2) / 2, torch.zeros_like(self.compared))
        self.roughness += weight * (kept / share - self.previous / self.previous_share) ** 2
        self.compared += weight
        gap = torch.where(both, ((kept - self.previous) ** 2).sum(0), self.gap)
        self.paired += torch.where(both & (self.accepted % 2 == 1), gap, torch.zeros_like(gap))
        self.gap = gap
        change = torch.where(both, _change(kept, self.previous), self.change)
        self.changed += torch.where(both & (self.accepted % 2 == 1), change, torch.zeros_like(change))
        self.change = change
        self.shares += active * share**2
        self.previous = kept
        self.previous_share = torch.full_like(self.previous_share, share)
        self.profile[epoch] = torch.where(active, sums.variance, self.profile[epoch])
        self.profile_error[epoch] = torch.where(active, sums.variance_error, self.profile_error[epoch])
        self.accepted += active

    def variance(self) -> Tensor:
        """Return Var(q) over batch order [Q], from the epochs accepted."""
        return self.profile.nan_to_num(0.0).sum(0).clamp_min(0.0)

    def effect_variance(self) -> Tensor:
        """Return the variance of each effect as an estimate [n, Q], from how its terms differ between epochs.

        Σ_e r_e² · v, v the mean of (c_e/r_e − c_{e+1}/r_{e+1})²/2 weighed by (r_e² + r_{e+1}²)/2, r_e the shares of the
        epochs: neighbouring terms have nearly the same mean. With all shares 1, Σ_e (c_e − c_{e+1})²/2 · E/(E−1).
        That is right for epochs which vary alike. Often one at an end outweighs all others (the last, or Adam's first)
        and is counted half: the variances are scaled so that they add up over rows to Σ (c_e − c_{e+1})² over separate
        pairs of epochs, in which each counts once.

        Returns
        -------
        Tensor [n, Q]
            NaN where one epoch was accepted.
        """
        unknown = torch.full_like(self.compared, torch.nan)
        found = self.roughness / 2 * torch.where(self.compared > 0, self.shares / self.compared, unknown)
        pairs = self.paired + torch.where(self.accepted % 2 == 1, self.gap / 2, torch.zeros_like(self.gap))
        total = found.sum(0)
        return found * torch.where(total > 0, pairs / total, torch.ones_like(total))

    def steady_share(self) -> Tensor:
        """Return how much of `effect_variance` is left where epochs may differ by a common factor [Q], at most 1.

        The terms of rows may all grow or fade from one epoch to the next: no error of theirs. Two epochs of the same
        reliability, correlated by ρ over rows, hold (1−ρ)·Σ(c_e² + c_{e+1}²) of noise.

        Returns
        -------
        Tensor [Q]
        """
        odd = self.accepted % 2 == 1
        half = torch.zeros_like(self.gap)
        pairs = self.paired + torch.where(odd, self.gap / 2, half)
        noise = self.changed + torch.where(odd, self.change / 2, half)
        return torch.where(pairs > 0, (noise / pairs).clamp(0.0, 1.0), torch.ones_like(pairs))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors, for saving."""
        return {name: getattr(self, name) for name in self.NAMES}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take everything back from `tensors()`."""
        for name in self.NAMES:
            setattr(self, name, tensors[name].to(self.effects.device))


def _change(now: Tensor, before: Tensor) -> Tensor:
    """Return (1−ρ)·Σ(c² + c'²) [Q] of the terms of two epochs [n, Q], ρ their correlation over rows, at least 0."""
    a, b = (now**2).sum(0), (before**2).sum(0)
    correlation = (now * before).sum(0) / (a * b).sqrt()
    return (1 - correlation.nan_to_num(0.0).clamp(0.0, 1.0)) * (a + b)
