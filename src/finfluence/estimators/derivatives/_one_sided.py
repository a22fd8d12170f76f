"""One training step backwards for the price of one plain step: the losses and the gradient a little way along u.

    H u = (g(θ + εu) − g(θ))/ε          x_i = (ℓ_i(θ + εu) − ℓ_i(θ))/ε

What belongs to θ itself is known, where training left it: the gradient in the optimiser's buffers, the row losses
beside the states. Else it is computed again.

ε is steered: the truncation error grows with how far the gradient moves, ‖g(θ + εu) − g(θ)‖/‖g(θ)‖, and rounding with
its inverse, so ‖εu‖ is set, for each query, from the step before so that it moves by κ. A fixed ‖εu‖ would do badly
where much of u lies in directions that the loss does not see.

ReLU, max pooling, |x|, clamps and comparisons are held on the side that they are on at θ: on it, the derivative is the
exact one almost everywhere.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from finfluence.estimators.derivatives._exact import pulled_back
from finfluence.estimators.derivatives._plain_pass import PlainPass
from finfluence.estimators.derivatives._protocol import Known
from finfluence.grads import Batch, Frozen, Pieces, RowLosses, kinks
from finfluence.runs import Update

MOVE = {torch.float64: 1e-7, torch.float32: 3e-4}  # κ
COARSE = 1e-2
START = 1e-3 / 3e-4  # ‖εu‖ over ‖θ‖ at first, in κ
FARTHEST = 1e3  # ‖εu‖ over ‖θ‖ at most, in κ
CHANGE = 3.0  # of ‖εu‖ from one step to the next, at most
WRONG, TRIES = 10.0, 5  # how far off κ a move may be before it is made again, and how often


@dataclass(frozen=True, eq=False)
class _At:
    """What is known at θ: gradient [P], row losses [B], and the pieces that operations are on."""

    gradient: Tensor
    losses: Tensor
    pieces: Pieces | None


class OneSided:
    """Steps backwards and row derivatives by one-sided differences.

    Parameters
    ----------
    losses : RowLosses
        Made with `fused=True`: the kernels that training uses.
    optimizer : Update
        Its functional `update` is differentiated; its `gradient` gives g(θ) where it can.

    Attributes
    ----------
    moves : Tensor [Q] or None
        ‖εu‖ of each query for the next step, in float64; None before the first.
    kappa : float
        κ, the relative move of the gradient that is aimed at.
    plain : PlainPass
        What evaluates losses and gradients.
    least_bytes : int
        Below this much saved for a step's backward pass, Python's own time decides, and the traced exact pass has less.
    """

    least_bytes: ClassVar[int] = 2**18
    differentiation = "finite-difference"
    engine = "plain passes"
    gradient: Tensor | None = None

    def __init__(self, losses: RowLosses, optimizer: Update) -> None:
        self.losses = losses
        self.optimizer = optimizer
        self.moves: Tensor | None = None
        self.plain = PlainPass(losses)
        self.kappa = MOVE.get(losses.layout.dtype, COARSE)
        self._smooth: bool | None = None

    def step(
        self,
        state: Tensor,
        hyper: Tensor,
        batch: Batch,
        adjoint: Tensor,
        seed: int | None = None,
        known: Known | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step backwards; arguments and returns as those of `StepAdjoint.step`."""
        theta = state[: self.losses.layout.size]
        known = Known() if known is None else known.read(self.optimizer, state, hyper)
        at = self._at(theta, batch, seed, known.gradient, known.losses)
        self.gradient = at.gradient if self.optimizer.hides_gradient else None
        before, direction = pulled_back(self.optimizer, state, at.gradient, hyper, adjoint)
        if self.moves is not None and len(self.moves) != len(direction):
            self.moves = self.moves[-len(direction) :] if len(self.moves) > len(direction) else None
        curved, of_rows, self.moves = self._differences(theta, direction, batch, seed, at, self.moves)
        before[:, 0] += curved
        return before, of_rows, direction

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, ∇ℓ_i(θ)⟩ [Q, B] for directions u [Q, P]: a forward pass at θ, and one a query."""
        pieces = None if self._smooth else Pieces()
        here = self.plain.losses(theta, batch, seed, pieces)
        out = here.new_zeros(len(direction), len(here))
        move = self._first(theta) if self.moves is None else float(self.moves.log().mean().exp())
        for k, u in enumerate(direction):
            if length := _norm(u):
                there = self.plain.losses(
                    torch.add(theta, u, alpha=move / length), batch, seed, pieces and Frozen(pieces)
                )
                out[k] = (there - here) / (move / length)
        return out

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return H u [Q, P] and row derivatives x [Q, B] for directions u [Q, P]."""
        at = self._at(theta, batch, seed, None, None)
        return self._differences(theta, direction, batch, seed, at, None)[:2]

    def unfrozen(self, theta: Tensor, batch: Batch, seed: int | None = None) -> list[str]:
        """Name the operations with kinks that cannot be held on their piece."""
        point, pieces = theta.detach().clone().requires_grad_(True), Pieces()
        with torch.enable_grad(), pieces:
            self.losses(point, batch, seed)
        with torch.enable_grad(), Frozen(pieces):
            rows = self.losses(point, batch, seed)
        return kinks(rows)

    def _at(
        self, theta: Tensor, batch: Batch, seed: int | None, gradient: Tensor | None, losses: Tensor | None
    ) -> _At:
        """Compute what is not known at θ."""
        pieces = None if self._smooth else Pieces()
        if gradient is None:
            found, losses = self.plain.gradient(theta, batch, seed, pieces)
            gradient = found.clone()
        elif losses is None or pieces is not None:
            losses = self.plain.losses(theta, batch, seed, pieces)
        if self._smooth is None and pieces is not None:
            self._smooth = not pieces.noted
        return _At(gradient, losses, pieces)

    def _differences(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None, at: _At, moves: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return H u [Q, P], x [Q, B], and ‖εu‖ [Q] for the step to come; a move far off κ is made again."""
        curved, of_rows = torch.zeros_like(direction), at.losses.new_zeros(len(direction), len(at.losses))
        whole, size = _norm(theta), max(_norm(at.gradient), 1e-300)
        farthest = FARTHEST * self.kappa * whole
        following = (
            torch.full((len(direction),), START * self.kappa * (whole or 1.0), dtype=torch.float64)
            if moves is None
            else moves.clone()
        )
        wrong = CHANGE if moves is None else WRONG
        for k, u in enumerate(direction):
            length = _norm(u)
            if not length or not length < torch.inf:
                curved[k], of_rows[k] = (u, torch.nan) if length else (0.0, 0.0)
                continue
            move = float(following[k])
            for left in reversed(range(TRIES)):
                epsilon = move / length
                gradient, losses = self.plain.gradient(
                    torch.add(theta, u, alpha=epsilon), batch, seed, at.pieces and Frozen(at.pieces)
                )
                apart = gradient - at.gradient
                off = self.kappa / max(_norm(apart) / size, 1e-300)
                again = move * min(max(off, 1e-3), 1e3)
                again = min(again, farthest)
                if not left or 1 / wrong < off < wrong or again == move:
                    break
                move = again
            torch.div(apart, epsilon, out=curved[k])
            of_rows[k] = (losses - at.losses) / epsilon
            following[k] = min(move * min(max(off, 1 / CHANGE), CHANGE), farthest)
        return curved, of_rows, following

    def _first(self, theta: Tensor) -> float:
        return START * self.kappa * (_norm(theta) or 1.0)


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))
