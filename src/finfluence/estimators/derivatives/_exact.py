"""One training step backwards, for many queries at once.

Forward: s_{t+1} = U_t(s_t, g_t) with s = (θ, slots) and g_t = mean_{i∈B_t} ∇ℓ_i(θ_t). Backward, for λ = ∂q/∂s:

    u_t       = (∂U_t/∂g)ᵀ λ_{t+1}
    x_{t,i}   = ⟨u_t, ∇ℓ_i(θ_t)⟩
    λ_t       = (∂U_t/∂s)ᵀ λ_{t+1} + [H_{B_t}(θ_t) u_t ; 0]

Row derivatives x and the product H u come out of one forward-over-reverse pass, `jvp` over `grad`, with the row losses
as a second output; no per-row gradient is formed. Queries share the primal pass through `vmap`. This is the adjoint of
a step that descends the gradient of the given loss: H is symmetric then.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._protocol import Known
from finfluence.grads import Batch, Graphs, RowLosses, Traces
from finfluence.grads.tracing import split_short_rows
from finfluence.runs import Tape, Update
from finfluence.runs.tape import Key

_UNSUPPORTED = re.compile(
    r"torch\.func|functorch|vmap|jvp|forward.mode|forward AD|saved tensor hooks|does not require grad|inference tensor|"
    r"doesn't have storage"
)
_INSIDE = "does not require grad"
_MIXED = re.compile(r"expected scalar type|same dtype|must have the same (d)?type|[Mm]ixed dtype")


class Adjoint:
    """Steps backwards and row derivatives for one model, loss and optimiser; graphs are traced once per shape.

    Parameters
    ----------
    losses : RowLosses
    optimizer : Optimizer
        Its functional `update` is differentiated.
    stochastic : bool
        The loss draws random numbers (dropout): it is evaluated untraced under the step's own seed.
    graphs : Graphs, optional
        Shared with other runs of the same model, loss and optimiser.
    """

    differentiation = "exact"

    moves: Tensor | None = None
    gradient: Tensor | None = None

    def __init__(
        self, losses: RowLosses, optimizer: Update, stochastic: bool = False, graphs: Graphs | None = None
    ) -> None:
        self.losses = losses
        self.optimizer = optimizer
        self._slots = len(optimizer.slots)
        self._differentiates = False  # in the loss itself, by torch.autograd.grad: it needs a graph
        self._traces = Traces(stochastic, split_short_rows, graphs, "exact")

    @property
    def engine(self) -> str:
        """How the functions ran: "traced", or "eager" with the reason."""
        return self._traces.engine

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
        adjoint : Tensor [Q, 1+S, P]
            λ_{t+1}.

        Returns
        -------
        adjoint [Q, 1+S, P], row derivatives x [Q, B], direction u [Q, P]

        Raises
        ------
        NotSupportedError
            An operation of the model or loss has no forward-over-reverse derivative.
        """
        keys = sorted(batch)

        def function(
            merged: bool, state: Tensor, hyper: Tensor, adjoint: Tensor, *fields: Tensor
        ) -> tuple[Tensor, ...]:
            return self._backward(state, hyper, dict(zip(keys, fields, strict=True)), adjoint, seed, merged)

        out = self._run("step", function, state, hyper, adjoint, *(batch[k] for k in keys))
        self.gradient = out[3] if len(out) > 3 else None
        return out[0], out[1], out[2]

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, ∇ℓ_i(θ)⟩ [Q, B] for directions u [Q, P], by forward differentiation only."""
        keys = sorted(batch)

        def function(merged: bool, theta: Tensor, direction: Tensor, *fields: Tensor) -> Tensor:
            rows = dict(zip(keys, fields, strict=True))
            return each(lambda u: jvp(lambda p: self.losses(p, rows, seed), (theta,), (u,))[1], direction)

        if self._differentiates:
            return self.products(theta, direction, batch, seed)[1]
        try:
            result: Tensor = self._run(
                "row derivatives", function, theta, direction, *(batch[k] for k in keys)
            )
        except NotSupportedError as error:
            if _INSIDE not in str(error):
                raise
            self._differentiates = True
            return self.products(theta, direction, batch, seed)[1]
        return result

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return H u [Q, P] and row derivatives x [Q, B] for directions u [Q, P], untraced: for a few checks."""
        gradient = self._gradient(batch, seed)
        with _supported():
            out = each(lambda u: jvp(gradient, (theta,), (u,))[1], direction)
        return out[0], out[1]

    def _gradient(self, batch: Batch, seed: int | None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return the map θ to (∇ mean loss, row losses)."""

        def gradient(point: Tensor) -> tuple[Tensor, Tensor]:
            def mean(p: Tensor) -> tuple[Tensor, Tensor]:
                losses = self.losses(p, batch, seed)
                return losses.mean(), losses

            return grad(mean, has_aux=True)(point)

        return gradient

    def _backward(
        self, state: Tensor, hyper: Tensor, batch: Batch, adjoint: Tensor, seed: int | None, merged: bool
    ) -> tuple[Tensor, ...]:
        """Return the step, and its gradient if the optimiser hides it; `merged`: for the tracer to merge operations."""
        theta, *slots = state.view(1 + self._slots, -1).unbind()
        gradient = self._gradient(batch, seed)
        primal = jvp(gradient, (theta,), (theta,))[0][0] if merged else gradient(theta)[0]
        pull = pull_back(self.optimizer, theta, tuple(slots), primal, hyper)

        def one(after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            before, direction = pull(after)
            _, (curved, of_rows), *_ = jvp(gradient, (theta,), (direction,))
            return torch.cat([before[:1] + curved, before[1:]]), of_rows, direction

        found: tuple[Tensor, ...] = each(one, adjoint)
        return (*found, primal) if self.optimizer.hides_gradient else found

    def _run(self, kind: str, function: Callable[..., Any], *tensors: Tensor) -> Any:
        with _supported():
            return self._traces.run(
                kind, partial(function, True), *tensors, otherwise=partial(function, False)
            )


@contextmanager
def _supported() -> Iterator[None]:
    """Say in words which operation has no forward-over-reverse derivative; every other error stays what it is."""
    try:
        yield
    except RuntimeError as error:
        if _MIXED.search(str(error)):
            raise _mixed(error) from error
        if not isinstance(error, NotImplementedError) and not _UNSUPPORTED.search(str(error)):
            raise
        raise NotSupportedError(
            explain(
                "a model and loss of operations that PyTorch can differentiate forward over reverse",
                str(error).splitlines()[0][:200],
                "a fused or rarely used operation has no second derivative there",
                "write that part with elementary operations (a Huber loss with torch.where, for instance), "
                "or, with smooth activations, ask for differentiation='finite-difference'",
            )
        ) from error


def _mixed(error: RuntimeError) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a model and loss that PyTorch can differentiate forward over reverse",
            str(error).splitlines()[0][:200],
            "the loss computes under torch.autocast, or casts by itself: PyTorch does not cast the tangents along",
            "train in one precision; in float32 for instance, with the autocast block taken out of the loss",
        )
    )


@dataclass(frozen=True)
class _AdjointOf(Key[Adjoint]):
    """The tape alone, whose cache it is."""


def adjoint_of(tape: Tape) -> Adjoint:
    """Return the tape's adjoint, its graphs traced once for all replays of the tape."""

    def make() -> Adjoint:
        losses = RowLosses(tape.working, tape.step_loss, tape.layout)
        return Adjoint(losses, tape.optimizer, tape.stochastic, tape.graphs)

    return tape.cache.get(_AdjointOf(), make)


def pull_back(
    optimizer: Update, theta: Tensor, slots: tuple[Tensor, ...], gradient: Tensor, hyper: Tensor
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the map λ_{t+1} [1+S, P] to (∂U/∂s)ᵀλ [1+S, P] and u = (∂U/∂g)ᵀλ [P]: in closed form, if there is one."""
    written = optimizer.pull_back(theta, slots, gradient, hyper.unbind())
    if written is not None:
        return written

    def update(theta: Tensor, slots: tuple[Tensor, ...], g: Tensor) -> Tensor:
        new_theta, new_slots = optimizer.update(theta, slots, g, hyper.unbind())
        return torch.stack([new_theta, *new_slots])

    _, pull, *_ = vjp(update, theta, slots, gradient)

    def one(after: Tensor) -> tuple[Tensor, Tensor]:
        to_theta, to_slots, direction = pull(after)
        return torch.stack([to_theta, *to_slots]), direction

    return one


def pulled_back(
    optimizer: Update, state: Tensor, gradient: Tensor, hyper: Tensor, adjoint: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (∂U/∂s)ᵀλ [Q, 1+S, P] and u = (∂U/∂g)ᵀλ [Q, P] of all λ [Q, 1+S, P]; written out, all in one go."""
    theta, *slots = state.view(1 + len(optimizer.slots), -1).unbind()
    written = optimizer.pull_back(theta, tuple(slots), gradient, hyper.unbind())
    if written is not None:
        return written(adjoint)
    result: tuple[Tensor, Tensor] = each(pull_back(optimizer, theta, tuple(slots), gradient, hyper), adjoint)
    return result


def each(function: Callable[[Tensor], Any], stacked: Tensor) -> Any:
    """Map `function` over the leading axis; one entry is not worth a batched operation."""
    if len(stacked) > 1:
        return vmap(function, randomness="same")(stacked)
    out = function(stacked[0])
    return tuple(o.unsqueeze(0) for o in out) if isinstance(out, tuple) else out.unsqueeze(0)
