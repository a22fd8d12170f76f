"""What a tape needs of the training it was made in: steps that can be taken again, and differentiated.

A step is one update of the state s = (θ, slots) by the optimiser:

    s_{t+1} = U_t(s_t, g_t),   g_t = Σ_{i∈B_t} c_{t,i} ∇ℓ_i(θ_t),

however many backward passes went into g_t. U_t is a functional update (`Optimizer.update`) at the numbers of step t
(`Step.hyper`: learning rate, bias corrections and the like); whatever happens to the gradient between the backward
pass and the optimiser, such as clipping, is part of U_t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from finfluence.grads import Batch, Graphs, Layout, RowLoss
from finfluence.runs.describe import RowSource
from finfluence.runs.describe.optimizers import Pull


class Update(Protocol):
    """An optimiser as a function: what the adjoint differentiates."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the optimiser's buffers, one vector of θ's length each."""

    def update(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (θ_{t+1}, slots_{t+1})."""

    @property
    def translates(self) -> bool:
        """Whether what a gradient does to θ and the slots is the same at every θ, as without decay in the gradient."""

    def part(self, some: slice) -> "Update | None":
        """Return the update of some coordinates alone, of vectors [..., p]; None unless each moves by itself."""

    def pull_back(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> Pull | None:
        """Return the map of λ [..., 1+S, P] to (∂U/∂s)ᵀλ [..., 1+S, P] and (∂U/∂g)ᵀλ [..., P], if written out."""

    def gradient(
        self, theta: Tensor, slots: tuple[Tensor, ...], after: tuple[Tensor, ...], hyper: tuple[Tensor, ...]
    ) -> Tensor | None:
        """Return the gradient of the step that left the buffers `after`, if they tell it to a few roundings."""

    @property
    def hides_gradient(self) -> bool:
        """Whether what a step leaves does not tell its gradient, so that `departure` needs to be given it."""

    @property
    def coarse(self) -> bool:
        """Whether steps may have been computed in fewer bits than their parameters have: how many is not known."""

    def departure(
        self,
        state: Tensor,
        after: Tensor,
        hyper: tuple[Tensor, ...],
        gradient: Tensor | None,
        read: Tensor | None = None,
    ) -> tuple[str, float] | None:
        """Return what of the step that was taken departs from this update, and by how much; None where nothing does."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a training, as the adjoint takes it.

    rows : positions of the rows of all its micro-batches [B]; a row may occur more than once.
    batch : their fields, for `Tape.step_loss`, whose mean is the loss that the step descends.
    hyper : the optimiser's numbers [H].
    seed : seeds torch's generator for the step; None where the loss draws nothing or `batch` itself says how.
    shares : p_i = c_i/Σc [B], or None where all rows of the step count alike.
    total : Σc, 1 where the step descends a mean.
    """

    rows: Tensor
    batch: Batch
    hyper: Tensor
    seed: int | None
    shares: Tensor | None = None
    total: float = 1.0

    @property
    def size(self) -> int | float:
        """Rows of an equally weighed batch of the same noise: 1/Σp², the number of rows where all count alike."""
        return len(self.rows) if self.shares is None else float(1 / (self.shares**2).sum())

    def unweighted(self, slopes: Tensor) -> Tensor:
        """Return Σc·x_i [Q, B] from the slopes of `batch` [Q, B], where rows carry the weight B·c_i."""
        if self.shares is None:
            return slopes if self.total == 1.0 else slopes * self.total
        return slopes / (len(self.rows) * self.shares.to(slopes))

    def centred(self, slopes: Tensor) -> Tensor:
        """Return values [Q, M] whose plain online terms are those of the weighed slopes [Q, M].

        A row's unbiased term is p_i·(Σ_j p_j x_j − x_i)/(1 − Σp²); with equal shares, (mean x − x_i)/(B − 1).

        Returns
        -------
        Tensor
        """
        if self.shares is None or len(self.rows) == 1:
            return slopes
        p = self.shares.to(slopes)
        apart = p * (slopes - (slopes * p).sum(1, keepdim=True))
        return apart * ((len(p) - 1) / (1 - (p**2).sum()))


class Steps(Protocol):
    """A training whose every step can be taken again from the state before it."""

    @property
    def rows(self) -> RowSource:
        """The training rows."""

    @property
    def loss(self) -> RowLoss:
        """The loss of each row."""

    @property
    def model(self) -> nn.Module:
        """A copy of the model in the training's mode, whose parameters are overwritten at every use."""

    @property
    def layout(self) -> Layout:
        """Where the trained parameters lie in θ."""

    @property
    def optimizer(self) -> Update:
        """The functional update of a step."""

    @property
    def width(self) -> int:
        """Numbers of a state."""

    @property
    def graphs(self) -> Graphs:
        """Where traced graphs of the steps are kept: runs of one training have them in common."""

    @property
    def untraced(self) -> bool:
        """Whether a step's loss is to be evaluated as it is, under its own random state, not from a traced graph."""

    @property
    def reshuffled(self) -> bool:
        """Whether no row is drawn twice within an epoch."""

    @property
    def order(self) -> Sequence[Tensor]:
        """Row positions of every step."""

    @property
    def batch_size(self) -> int:
        """Rows of an ordinary step."""

    @property
    def sizes(self) -> Sequence[float]:
        """`Step.size` of every step."""

    @property
    def count(self) -> int:
        """Number of steps T."""

    @property
    def epochs(self) -> Sequence[range]:
        """The steps of each pass over the rows, in order; they may differ in length."""

    @property
    def noise(self) -> tuple[float, ...]:
        """Σ of squared learning rates of each epoch, up to one common factor."""

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rate of every step, averaged over parameters where groups differ."""

    @property
    def last_losses(self) -> Tensor | None:
        """Row losses [B], as of `step_loss`, of the last step taken, before it; None where its rows are weighed."""

    @property
    def notes(self) -> list[str]:
        """What a reader of results should know of the run."""

    def at(self, t: int) -> Step:
        """Return step t."""

    def step_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return row losses [B] of a batch of `at` or `batch`: `loss`, scaled as the step weighs its rows."""

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return any rows on the parameters' device, with the random state of step t if one is named."""

    def run_step(self, t: int) -> Tensor:
        """Take step t from the state set; return the mean loss before it."""

    def set_state(self, t: int, state: Tensor) -> None:
        """Set parameters and optimiser to `state`, as they were before step t."""

    def get_state(self, out: Tensor) -> None:
        """Copy the current state into `out` [width]."""

    def initial_model(self) -> nn.Module:
        """Return a fresh copy of the model as it was before the first step."""

    def check_unchanged(self, initial: Tensor) -> None:
        """Raise if model or data are no longer those of the run, whose state before its first step was `initial`."""

    def describe(self) -> dict[str, Any]:
        """Return what every run of this training has in common, as plain values."""

    def identity(self) -> dict[str, Any]:
        """Return what tells this run from others of the same training."""

    def uncovered(self) -> list[str]:
        """Name the randomness of training that one run does not show."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on `device`; itself if that is the CPU."""
    return batch if device.type == "cpu" else {k: v.to(device) for k, v in batch.items()}
