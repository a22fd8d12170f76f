"""One training step backwards without double differentiation: losses and gradients at θ ± εu.

    x_i = (ℓ_i(θ + εu) − ℓ_i(θ − εu)) / 2ε          H u = (g(θ + εu) − g(θ − εu)) / 2ε

ε is set for each query so that ‖εu‖ = ρ‖θ‖. Truncation grows as ρ², rounding as 1/ρ; the differences are taken in
float64. The model runs as in training: fused attention, and operations without a forward derivative, included.
At a kink (ReLU, max pooling) g jumps between the two points, and the difference is wrong for any ε.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from finfluence.estimators.derivatives._exact import each, pull_back
from finfluence.estimators.derivatives._protocol import Known
from finfluence.grads import Batch, RowLosses, Traced, Traces, without_graph
from finfluence.runs import Update

RELATIVE = {torch.float64: 1e-5, torch.float32: 1e-3}
COARSE = 1e-2


class FiniteDifference:
    """Steps backwards and row derivatives by central differences: the twin of `Adjoint`.

    Parameters
    ----------
    losses : RowLosses
        Made with `fused=True`: the kernels that training uses.
    optimizer : Update
        Its functional `update` is differentiated, once.
    stochastic : bool
        The loss draws random numbers: all points of a step are evaluated under the step's own seed.
    relative : float, optional
        ρ = ‖εu‖/‖θ‖; default 1e-3 in float32, 1e-5 in float64, 1e-2 in half precision.
    looped : bool
        Evaluate one point after the other instead of all together.
    """

    differentiation = "finite-difference"

    moves: Tensor | None = None
    gradient: Tensor | None = None

    def __init__(
        self,
        losses: RowLosses,
        optimizer: Update,
        stochastic: bool = False,
        relative: float | None = None,
        looped: bool = False,
    ) -> None:
        self.losses = losses
        self.optimizer = optimizer
        self._slots = len(optimizer.slots)
        self._looped = looped
        self._traces = Traces(stochastic)
        self.relative = RELATIVE.get(losses.layout.dtype, COARSE) if relative is None else relative

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
        """Take one step backwards; arguments and returns as those of `StepAdjoint.step`."""
        theta = state[: self.losses.layout.size]
        pull = self.pull(state, hyper, adjoint)
        hidden = self.optimizer.hides_gradient
        if hidden or reads(pull, 2):
            gradient = self.gradients(theta.unsqueeze(0), batch, seed)[0][0]
        else:
            gradient = torch.zeros_like(theta)
        self.gradient = gradient if hidden else None
        before, direction = pull(state, hyper, gradient, adjoint)
        curved, of_rows = self.products(theta, direction, batch, seed)
        before[:, 0] += curved
        return before, of_rows, direction

    def row_derivatives(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> Tensor:
        """Return x_i = ⟨u, ∇ℓ_i(θ)⟩ [Q, B] for directions u [Q, P]: two forward passes a query."""
        points, width = self._points(theta, direction)
        return _difference(self._losses_at(points, batch, seed), width)

    def products(
        self, theta: Tensor, direction: Tensor, batch: Batch, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return H u [Q, P] and row derivatives x [Q, B] for directions u [Q, P]."""
        points, width = self._points(theta, direction)
        gradients, losses = self.gradients(points, batch, seed)
        return _difference(gradients, width), _difference(losses, width)

    def _points(self, theta: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return θ + εu and θ − εu for all queries, one after the other [2Q, P], and 2ε [Q] in float64."""
        size = theta.double().norm()
        size = torch.where(size > 0, size, torch.ones_like(size))
        length = direction.double().norm(dim=1)
        epsilon = self.relative * size / torch.where(length > 0, length, torch.ones_like(length))
        shift = (epsilon[:, None] * direction).to(theta.dtype)
        return torch.cat([theta + shift, theta - shift]), 2 * epsilon

    def pull(self, state: Tensor, hyper: Tensor, adjoint: Tensor) -> Traced:
        """Return the traced map (state, hyper, gradient, λ) to ((∂U/∂s)ᵀλ, (∂U/∂g)ᵀλ)."""

        def function(state: Tensor, hyper: Tensor, gradient: Tensor, adjoint: Tensor) -> tuple[Tensor, ...]:
            theta, *slots = state.view(1 + self._slots, -1).unbind()
            result: tuple[Tensor, ...] = each(
                pull_back(self.optimizer, theta, tuple(slots), gradient, hyper), adjoint
            )
            return result

        return self._traces.of("pull", function, state, hyper, state[: self.losses.layout.size], adjoint)

    def gradients(self, points: Tensor, batch: Batch, seed: int | None) -> tuple[Tensor, Tensor]:
        """Return the mean loss's gradients [K, P] and the row losses [K, B] at K points."""

        def together(points: Tensor, rows: Batch) -> tuple[Tensor, Tensor]:
            def mean(p: Tensor) -> tuple[Tensor, Tensor]:
                losses = self.losses(p, rows, seed)
                return losses.mean(), losses

            gradients, (_, losses) = vmap(grad_and_value(mean, has_aux=True), randomness="same")(points)
            return gradients, losses

        def alone(point: Tensor, rows: Batch) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                point = point.detach().requires_grad_(True)
                losses = self.losses(point, rows, seed)
                (gradient,) = torch.autograd.grad(losses.mean(), point)
            return gradient, losses.detach()

        gradients, losses = self._at("gradients", together, alone, points, batch)
        return gradients, losses

    def _losses_at(self, points: Tensor, batch: Batch, seed: int | None) -> Tensor:
        """Return the row losses [K, B] at K points."""

        def together(points: Tensor, rows: Batch) -> tuple[Tensor, ...]:
            return (vmap(lambda p: self.losses(p, rows, seed), randomness="same")(points),)

        def alone(point: Tensor, rows: Batch) -> tuple[Tensor, ...]:
            return (without_graph(lambda: self.losses(point, rows, seed)),)

        (losses,) = self._at("losses", together, alone, points, batch)
        return losses

    def _at(
        self, kind: str, together: Callable[..., Any], alone: Callable[..., Any], points: Tensor, batch: Batch
    ) -> tuple[Tensor, ...]:
        if not self._looped and len(points) > 1:
            try:
                with no_fallback():
                    return self._run(kind, together, points, batch)
            except RuntimeError:
                self._looped = True  # an operation that vmap cannot batch
        each_point = [self._run(f"{kind} of one", alone, p, batch) for p in points.unbind()]
        return tuple(torch.stack(part) for part in zip(*each_point, strict=True))

    def _run(
        self, kind: str, function: Callable[..., Any], points: Tensor, batch: Batch
    ) -> tuple[Tensor, ...]:
        keys = sorted(batch)
        fields = [batch[k] for k in keys]

        def flat(points: Tensor, *fields: Tensor) -> Any:
            return function(points, dict(zip(keys, fields, strict=True)))

        found: tuple[Tensor, ...] = self._traces.run(kind, flat, points, *fields)
        return found


@contextmanager
def no_fallback() -> Iterator[None]:
    """Let vmap fail where it would take one entry after the other, copying: a plain loop is quicker."""
    functorch: Any = torch._C._functorch
    allowed = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(allowed)


def _difference(values: Tensor, width: Tensor) -> Tensor:
    """Return (v⁺ − v⁻)/2ε [Q, …] from v⁺ and v⁻ one after the other [2Q, …], subtracted in float64."""
    plus, minus = values.double().chunk(2)
    return ((plus - minus) / width[:, None]).to(values.dtype)


def reads(traced: Traced, argument: int) -> bool:
    """Return whether a traced function uses its `argument`-th input; yes if it could not be traced."""
    if traced.graph is None:
        return True
    inputs = [node for node in traced.graph.graph.nodes if node.op == "placeholder"]
    return bool(inputs[argument].users)
