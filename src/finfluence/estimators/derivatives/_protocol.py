"""What a step adjoint does, however it differentiates."""

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from finfluence.grads import Batch, RowLosses
from finfluence.runs import Update


@dataclass(frozen=True, eq=False)
class Known:
    """What training left of a step.

    Parameters
    ----------
    after : Tensor [(1+S)·P] or None
        The state after it.
    losses : Tensor [B] or None
        Its row losses, if they were kept.
    gradient : Tensor [P] or None
        Its gradient, where it was read off the buffers.
    t : int or None
        Its number, to be named where something is wrong with it.
    """

    after: Tensor | None = None
    losses: Tensor | None = None
    gradient: Tensor | None = None
    t: int | None = None

    def read(self, optimizer: Update, state: Tensor, hyper: Tensor) -> "Known":
        """Return the same with the gradient that the buffers before and after the step tell, if they do."""
        if self.after is None or self.gradient is not None:
            return self
        count = 1 + len(optimizer.slots)
        (theta, *slots), (_, *kept) = (s.view(count, -1).unbind() for s in (state, self.after))
        found = optimizer.gradient(theta, tuple(slots), tuple(kept), hyper.unbind())
        return replace(self, gradient=found)


class StepAdjoint(Protocol):
    """Steps of one training backwards, for many queries at once.

    Forward: s_{t+1} = U_t(s_t, g_t) with s = (θ, slots), and g_t the gradient of the mean loss of the step's rows.
    Backward, for λ = ∂q/∂s:

        u_t = (∂U_t/∂g)ᵀ λ_{t+1},   x_{t,i} = ⟨u_t, g_{t,i}⟩,   λ_t = (∂U_t/∂s)ᵀ λ_{t+1} + [(∂g_t/∂θ)ᵀ u_t ; 0].
    """

    moves: Tensor | None
    """What one step takes over from the one before [Q]; set to None before a pass, or to what it was."""

    @property
    def gradient(self) -> Tensor | None:
        """Of the last step [P], as it was computed for it, where the optimiser hides what it got (`hides_gradient`)."""

    @property
    def differentiation(self) -> str:
        """How derivatives are taken, in a word."""

    @property
    def engine(self) -> str:
        """How the functions ran: "traced", or "eager" with the reason."""

    @property
    def losses(self) -> RowLosses:
        """The row losses whose gradient the step descends."""

    @property
    def optimizer(self) -> Update:
        """The update U, which is differentiated."""

    def step(
        self,
        state: Tensor,
        hyper: Tensor,
        batch: Batch,
        adjoint: Tensor,
        seed: int | None = None,
        known: Known | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step backwards.

        Parameters
        ----------
        state : Tensor [(1+S)·P]
            s_t, before the step.
        hyper : Tensor [H]
            The optimiser's numbers at step t.
        batch : dict
            The rows of the step.
        adjoint : Tensor [Q, 1+S, P]
            λ_{t+1}.
        seed : int, optional
            Of the step's random numbers.
        known : Known, optional
            What need not be computed again.

        Returns
        -------
        adjoint [Q, 1+S, P], row derivatives x [Q, B], direction u [Q, P]
        """

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, g_i(θ)⟩ [Q, B] of any rows along directions u [Q, P]."""

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (∂g/∂θ)ᵀu [Q, P] and x [Q, B] along directions u [Q, P]."""
