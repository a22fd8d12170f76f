"""One training step backwards where the gradient is not that of the loss: reverse over reverse.

What training descends is the gradient that autograd returned, g(θ, v) = Σ_i v_i ∇̃ℓ_i(θ), at v_i = 1/B. With stopped
gradients, custom backward functions or hooks it is no derivative of the loss's value, and ∂g/∂θ need not be symmetric.
What goes backwards is its transpose; both things needed come from one vector–Jacobian product along u,

    (∂g/∂θ)ᵀu   and   x_i = ∂⟨u, g(θ, v)⟩/∂v_i = ⟨u, ∇̃ℓ_i(θ)⟩,

of the operations that autograd ran, written out as a graph: derivatives go through stopped values, and through the
values, not the backward functions, of custom functions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import vjp, vmap

from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._exact import pull_back
from finfluence.estimators.derivatives._finite_difference import no_fallback
from finfluence.estimators.derivatives._protocol import Known
from finfluence.grads import Batch, RowLosses, Traces, trace_gradient, without_graph
from finfluence.runs import Update


class TransposedAdjoint:
    """Steps backwards and row derivatives of the gradient that autograd returns.

    Parameters
    ----------
    losses : RowLosses
    optimizer : Update
        Its functional `update` is differentiated.
    """

    differentiation = "reverse-over-reverse"

    moves: Tensor | None = None
    gradient: Tensor | None = None

    def __init__(self, losses: RowLosses, optimizer: Update) -> None:
        self.losses = losses
        self.optimizer = optimizer
        self._slots = len(optimizer.slots)
        self._looped = False
        self._gradients: dict[Any, tuple[fx.GraphModule, int]] = {}
        self._traces = Traces()

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
        """Take one step backwards; arguments as those of `StepAdjoint.step`.

        Returns
        -------
        adjoint [Q, 1+S, P], row derivatives x [Q, B], direction u [Q, P]

        Raises
        ------
        NotSupportedError
            The gradient cannot be traced, or an operation of it has no derivative.
        """
        size = self.losses.layout.size
        gradient, cotangent, fields = self._gradient(state[:size], batch)

        def function(
            state: Tensor, hyper: Tensor, adjoint: Tensor, cotangent: Tensor, *fields: Tensor
        ) -> tuple[Tensor, ...]:
            theta, *slots = state.view(1 + self._slots, -1).unbind()
            value, back, *_ = vjp(lambda p, v: gradient(p, v, *fields), theta, cotangent)
            pull = pull_back(self.optimizer, theta, tuple(slots), value, hyper)

            def one(after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                before, direction = pull(after)
                curved, of_rows = back(direction)
                return torch.cat([before[:1] + curved, before[1:]]), of_rows, direction

            found = self._each(one, adjoint)
            return (*found, value) if self.optimizer.hides_gradient else found

        out = self._run("step", function, state, hyper, adjoint, cotangent, *fields)
        self.gradient = out[3] if len(out) > 3 else None
        return out[0], out[1], out[2]

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, ∇̃ℓ_i(θ)⟩ [Q, B] of any rows along directions u [Q, P]."""
        gradient, cotangent, fields = self._gradient(theta, batch)

        def function(
            theta: Tensor, direction: Tensor, cotangent: Tensor, *fields: Tensor
        ) -> tuple[Tensor, ...]:
            _, back, *_ = vjp(lambda v: gradient(theta, v, *fields), cotangent)
            return self._each(lambda u: (back(u)[0],), direction)

        found: Tensor = self._run("row derivatives", function, theta, direction, cotangent, *fields)[0]
        return found

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (∂g/∂θ)ᵀu [Q, P] and x [Q, B] along directions u [Q, P]."""
        gradient, cotangent, fields = self._gradient(theta, batch)

        def function(
            theta: Tensor, direction: Tensor, cotangent: Tensor, *fields: Tensor
        ) -> tuple[Tensor, ...]:
            _, back, *_ = vjp(lambda p, v: gradient(p, v, *fields), theta, cotangent)
            return self._each(back, direction)

        out = self._run("products", function, theta, direction, cotangent, *fields)
        return out[0], out[1]

    def _gradient(self, theta: Tensor, batch: Batch) -> tuple[fx.GraphModule, Tensor, list[Tensor]]:
        """Return the traced map g of (θ, v, *fields), v_i = 1/B, and the batch's fields."""
        keys = sorted(batch)
        fields = [batch[k] for k in keys]
        key = tuple((k, tuple(f.shape), f.dtype) for k, f in zip(keys, fields, strict=True))
        if key not in self._gradients:

            def losses(point: Tensor, *fields: Tensor) -> Tensor:
                return self.losses(point, dict(zip(keys, fields, strict=True)))

            point = theta.detach().requires_grad_(True)
            rows = len(without_graph(lambda: losses(point, *fields)))
            traced = trace_gradient(losses, theta, theta.new_full((rows,), 1 / rows), *fields)
            if traced.graph is None:
                raise refused(traced.reason or "")
            self._gradients[key] = traced.graph, rows
        graph, rows = self._gradients[key]
        return graph, theta.new_full((rows,), 1 / rows), fields

    def _each(self, function: Callable[[Tensor], tuple[Tensor, ...]], stacked: Tensor) -> tuple[Tensor, ...]:
        """Map `function` over the leading axis: together, or one after the other where vmap has no rule."""
        if len(stacked) > 1 and not self._looped:
            try:
                with no_fallback():
                    together: tuple[Tensor, ...] = vmap(function)(stacked)
                return together
            except RuntimeError:
                self._looped = True
        parts = [function(one) for one in stacked.unbind()]
        return tuple(torch.stack(part) for part in zip(*parts, strict=True))

    def _run(self, kind: str, function: Callable[..., Any], *tensors: Tensor) -> Any:
        try:
            return self._traces.run(kind, function, *tensors)
        except RuntimeError as error:
            raise refused(str(error).splitlines()[0][:200]) from error


def refused(reason: str) -> NotSupportedError:
    """Return the error that says why the derivative of a gradient cannot be taken."""
    return NotSupportedError(
        explain(
            "a gradient whose own derivative can be taken",
            reason,
            "the gradient that training got is not that of the loss with a symmetric derivative (a stopped gradient, a "
            "custom backward, a hook), and its operations cannot be written out and differentiated",
            "write the loss with PyTorch operations alone, without values taken out of tensors (item, numpy) and "
            "without random numbers, or leave out what stops or changes gradients",
        )
    )
