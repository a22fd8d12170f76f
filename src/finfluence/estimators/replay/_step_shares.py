"""How much of the slopes' variance single steps hold: a step that holds much of it decides about effects and spread."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from finfluence.estimators.replay._finite_change import FURTHER

MUCH = 0.2
LARGEST = 4  # more steps cannot hold more than a fifth each


@dataclass(frozen=True, eq=False)
class StepVariance:
    """The variance of a step's slopes over the rows of its batch, over their number.

    Parameters
    ----------
    t : int
    used, tangent : Tensor [Q]
        Of the slopes that effects are made of, and of the tangent ones.
    taken, doubtful : Tensor of bool [Q]
        Where they differ: finite changes were taken; and where these are doubtful themselves.
    """

    t: int
    used: Tensor
    tangent: Tensor
    taken: Tensor | None = None
    doubtful: Tensor | None = None

    @classmethod
    def of_tangent(cls, t: int, size: float, tangent: Tensor) -> "StepVariance":
        """Return that of slopes [Q, B] of a batch of `size` rows, used as they are."""
        return cls.of_tangents([(t, size, tangent)])[0]

    @classmethod
    def of_tangents(cls, steps: Sequence[tuple[int, float, Tensor]]) -> list["StepVariance"]:
        """Return those of several steps, given as those of one: of slopes of one shape together."""
        if len({slopes.shape for _, _, slopes in steps}) > 1:
            return [cls.of_tangent(*step) for step in steps]
        if not steps:
            return []
        sizes = torch.tensor([size for _, size, _ in steps], dtype=torch.float64)
        stacked = torch.stack([slopes for _, _, slopes in steps])
        before = _variance(stacked) / sizes.to(stacked.device)[:, None]
        return [cls(t, of_step, of_step) for (t, _, _), of_step in zip(steps, before.unbind(), strict=True)]

    def replaced(self, size: float, used: Tensor, taken: Tensor, doubtful: Tensor) -> "StepVariance":
        """Return the same with the slopes [Q, B] that stand in for the tangent ones."""
        return replace(self, used=_variance(used) / size, taken=taken, doubtful=doubtful)


class StepShares:
    """The steps that hold most of the slopes' variance, and those whose finite changes were taken.

    Parameters
    ----------
    queries : int
    looked : sequence of int
        Steps at which finite changes may be taken.
    device : torch.device
    """

    NAMES = ("used", "tangent", "largest", "largest_step", "replaced", "replaced_by", "doubtful")

    def __init__(self, queries: int, looked: Sequence[int], device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, queries, dtype=torch.float64, device=device)

        self.looked = tuple(looked)
        self.used, self.tangent, self.largest = zeros(), zeros(), zeros(LARGEST)
        self.largest_step = torch.full((LARGEST, queries), -1, dtype=torch.int64, device=device)
        self.replaced = torch.full((len(self.looked), queries), torch.nan, dtype=torch.float64, device=device)
        self.replaced_by, self.doubtful = self.replaced.clone(), zeros(len(self.looked))

    def add(self, steps: Sequence[StepVariance], active: Tensor) -> None:
        """Add the steps of an epoch, for the queries [Q] that accept it."""
        if not steps:
            return
        used = torch.stack([torch.where(active, step.used, 0.0) for step in steps])
        tangent = torch.stack([torch.where(active, step.tangent, 0.0) for step in steps])
        self.used += used.sum(0)
        self.tangent += tangent.sum(0)
        numbers = torch.tensor([step.t for step in steps], device=used.device)[:, None].expand_as(used)
        values, places = torch.cat([self.largest, used]).topk(LARGEST, 0)
        self.largest = values
        self.largest_step = torch.cat([self.largest_step, numbers]).gather(0, places)
        for k, step in enumerate(steps):
            if step.taken is not None and step.doubtful is not None:
                place, taken = self.looked.index(step.t), step.taken & active
                self.replaced[place] = torch.where(taken, tangent[k], torch.nan)
                self.replaced_by[place] = torch.where(taken, used[k], torch.nan)
                self.doubtful[place] = (step.doubtful & active).double()

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors, for saving."""
        return {f"steps_{name}": getattr(self, name) for name in self.NAMES}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take everything back from `tensors()`."""
        for name in self.NAMES:
            setattr(self, name, tensors[f"steps_{name}"].to(self.used.device))

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of the steps left as tangents [4, Q], and of those whose finite changes were taken.

        The latter [L, 3, Q]: of all tangent slopes before, and of the slopes used, NaN where the tangent was kept; and
        whether the changes are doubtful.

        Returns
        -------
        tuple of array
        """
        kept = self.largest / self.used.clamp_min(1e-300)
        for place, t in enumerate(self.looked):
            taken = ~self.replaced[place].isnan()
            kept = torch.where(taken & (self.largest_step == t), 0.0, kept)
        before = self.replaced / self.tangent.clamp_min(1e-300)
        after = self.replaced_by / self.used.clamp_min(1e-300)
        return kept.cpu().numpy(), torch.stack([before, after, self.doubtful], 1).cpu().numpy()


def step_findings(
    queries: Sequence[str], shares: tuple[np.ndarray, np.ndarray], steps: np.ndarray, looked: Sequence[int]
) -> list[str]:
    """Name the steps that hold more than a fifth of the slopes' variance of a query, and what was done with them.

    Parameters
    ----------
    queries : sequence of str
    shares : tuple of array
        As of `StepShares.shares`.
    steps : array of int [4, Q]
        The steps of the first of them.
    looked : sequence of int
        The steps of the second.

    Returns
    -------
    list of str
    """
    kept, taken = shares
    found = []
    for place, t in enumerate(looked):
        before, after, doubtful = taken[place]
        large = np.flatnonzero(np.fmax(before, after) > MUCH)
        if len(large):
            worst = large[np.argmax(np.fmax(before, after)[large])]
            found.append(
                f"step {t} held {before[worst]:.0%} of the slopes' variance of {_named(queries, large, worst)} by its "
                "tangent, which is not linear on the scale of one row; the finite change of the update was taken, with "
                f"which it holds {after[worst]:.0%}"
            )
        if len(doubtful := np.flatnonzero(doubtful)):
            found.append(
                f"what the rows of step {t} change of {_named(queries, doubtful, doubtful[0])} is not settled "
                f"{FURTHER} steps later (the gradients of the next steps turn with it): effects of rows used there are "
                "doubtful; groups='paired' with a subset for such a row runs the training without it"
            )
    for t in np.unique(steps[kept > MUCH]):
        share = np.where(steps == t, kept, 0.0).max(0)
        large = np.flatnonzero(share > MUCH)
        worst = large[np.argmax(share[large])]
        why = (
            "where it was found linear on the scale of one row"
            if int(t) in looked
            else "unlike the first steps"
        )
        found.append(
            f"step {t} holds {share[worst]:.0%} of the slopes' variance of {_named(queries, large, worst)}; its "
            f"tangent was kept, {why}: effects of its rows weigh more than those of others"
        )
    return found


def _named(queries: Sequence[str], large: np.ndarray, worst: int) -> str:
    others = len(large) - 1
    return f"'{queries[worst]}'" + (f" (and of {others} more)" if others else "")


def _variance(slopes: Tensor) -> Tensor:
    """Return the variance of slopes [..., B] over the rows [...], in float64; 0 of a single one."""
    if slopes.shape[-1] < 2:
        return torch.zeros(slopes.shape[:-1], dtype=torch.float64, device=slopes.device)
    return slopes.double().var(-1)
