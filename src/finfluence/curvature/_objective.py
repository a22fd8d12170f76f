"""The mean loss of the training rows at fixed parameters, and what is differentiated of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from finfluence.curvature._outputs import loss_of_outputs, outputs_of
from finfluence.errors import NotSupportedError, explain
from finfluence.grads import (
    Batch,
    InDouble,
    Layout,
    RowLoss,
    RowLosses,
    check_forward_writes_nothing,
    check_rows_have_gradients,
    in_double,
    never_moved,
    no_checkpointing,
    without_graph,
)

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2}
ROWS_CHECKED = 4
HELD = 2**25  # numbers of row gradients held at once
WIDTHS = (1e-5, 1e-7)
_ALONG = "finfluence: along"


@dataclass(frozen=True)
class RowsAtHand:
    """Training rows as a curvature reads them.

    Parameters
    ----------
    count : int
        Rows n.
    batch : callable
        `batch(positions) -> dict`: their fields, on the device of the parameters.
    at_once : int
        Rows evaluated together; nothing but memory and time depends on it.
    order : Tensor [n], optional
        Positions in the order in which random numbers are dealt out to rows; as they stand unless given.
    """

    count: int
    batch: Callable[[Tensor], Batch]
    at_once: int = 256
    order: Tensor | None = None

    def chunks(self) -> Iterator[tuple[Tensor, Batch]]:
        """Yield positions and fields of all rows, a chunk at a time."""
        for positions in torch.arange(self.count).split(self.at_once):
            yield positions, self.batch(positions)

    def dealt(self, numbers: Tensor) -> Tensor:
        """Return numbers [n, …], which were drawn in `order`, in the order in which the rows stand."""
        if self.order is None:
            return numbers
        placed = torch.empty_like(numbers)
        placed[self.order] = numbers
        return placed


class Objective:
    """L(θ) = (1/n) Σ ℓ_i(θ) over the training rows, in evaluation mode, at one θ.

    Padding entries of embeddings, which no gradient moves, are constants.

    Parameters
    ----------
    model : nn.Module
        A copy owned by the caller, at θ; it is put in evaluation mode.
    loss : callable
        `loss(model, batch) -> Tensor[B]`, one loss for each row.
    layout : Layout
        Where the trained parameters lie in θ.
    rows : RowsAtHand

    Attributes
    ----------
    theta : Tensor [P]
        The parameters.

    Raises
    ------
    NotSupportedError
        An embedding writes on its weight in the forward pass, or its gradient is not that of rows.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> rows = RowsAtHand(2, lambda p: {"x": x[p]})
    >>> objective = Objective(model, lambda m, b: m(b["x"])[:, 0], Layout(model), rows)
    >>> objective.gradient().tolist(), objective.row_derivatives(torch.tensor([[2.0]])).tolist()
    ([1.5], [[2.0, 4.0]])
    """

    def __init__(self, model: nn.Module, loss: RowLoss, layout: Layout, rows: RowsAtHand) -> None:
        self.model, self.loss, self.layout, self.rows = model.eval(), loss, layout, rows
        check_forward_writes_nothing(model)
        check_rows_have_gradients(model)
        self.theta = layout.theta(model)
        self._still = never_moved(model, layout)
        self.losses = RowLosses(model, loss, layout).holding(self._still, self.theta)
        self.outputs = RowLosses(model, outputs_of(loss), layout).holding(self._still, self.theta)

    @property
    def size(self) -> int:
        """Trained parameters P."""
        return self.layout.size

    def of_outputs(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the losses [B] as a function of the model's outputs."""
        return loss_of_outputs(self.loss, self.model, outputs, batch)

    def gradient(self) -> Tensor:
        """Return ∇L [P]."""
        total = torch.zeros_like(self.theta)
        for _, batch in self.rows.chunks():
            total += self.gradient_of(batch)
        return total / self.rows.count

    def gradient_of(self, batch: Batch) -> Tensor:
        """Return Σ ∇ℓ_i [P] over a batch, as autograd gives it."""
        parameters = self.layout.parameters(self.model)
        with torch.enable_grad(), no_checkpointing():
            parts = torch.autograd.grad(self.loss(self.model, batch).sum(), parameters, allow_unused=True)
        return self._flat(parts)

    def row_derivatives(self, directions: Tensor) -> Tensor:
        """Return ⟨u, ∇ℓ_i⟩ [K, n] along directions u [K, P], without forming a row's gradient."""
        with forward_derivatives():
            parts = [each(self._along(batch), directions) for _, batch in self.rows.chunks()]
        return torch.cat(parts, 1)

    def row_gradients(self) -> Iterator[Tensor]:
        """Yield ∇ℓ_i [B, P] of every row, some rows at a time, in the order of the rows.

        One `vmap` over the rows where the loss allows it, else row by row: both are right for every model whose rows
        do not mix.

        Yields
        ------
        Tensor [B, P]
        """
        at_once = min(self.rows.at_once, max(1, HELD // self.size))
        for positions in torch.arange(self.rows.count).split(at_once):
            yield self.gradients_of_rows(self.rows.batch(positions))

    def gradients_of_rows(self, batch: Batch, along: Tensor | None = None) -> Tensor:
        """Return ∇ℓ_i [B, P] of a batch, or ∇⟨e_i, o_i⟩ of the model's outputs o, for `along` e [B, …].

        Returns
        -------
        Tensor [B, P]
        """
        if along is not None:
            batch = {**batch, _ALONG: along}
        if self._rows_map:
            with forward_derivatives():
                found: Tensor = vmap(self._of_one_row, in_dims=(None, 0), randomness="same")(
                    self.theta, batch
                )
                return found.detach()
        return torch.stack(
            [self._of_one_row(self.theta, _row(batch, i)) for i in range(len(next(iter(batch.values()))))]
        ).detach()

    def check(self) -> None:
        """Compare the gradient that autograd gives for a few rows with differences of their losses.

        Raises
        ------
        NotSupportedError
            They differ: the loss or the model stops or changes gradients.
        """
        positions = torch.arange(min(ROWS_CHECKED, self.rows.count))
        gradients = torch.stack([self.gradient_of(self.rows.batch(p[None])) for p in positions]).double()
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(self.size, generator=generator, dtype=torch.float64).to(self.theta.device)
        if self._still is not None:
            direction = torch.where(self._still, 0.0, direction)
        scale = float(gradients.norm(dim=1).max() * direction.norm())
        backward = gradients @ direction
        error = min(self._apart(backward, direction, positions, width) for width in WIDTHS) / (scale or 1.0)
        if not error <= TOLERANCE.get(self.theta.dtype, 5e-2):
            raise NotSupportedError(
                explain(
                    "a loss whose gradient is the derivative of its value",
                    f"derivatives that differ by {error:.2g} of the gradient's size",
                    "the loss or model stops or changes gradients (detach, a custom backward, a hook), or a row's loss "
                    "depends on the other rows of its batch, so that training did not minimise it, and no curvature "
                    "describes what training did",
                    "use method='replay', which follows the steps that were taken",
                )
            )

    def _apart(self, derivatives: Tensor, direction: Tensor, positions: Tensor, width: float) -> float:
        """Return how far derivatives [B] are from differences of the losses themselves, in double precision."""
        model = in_double(self.model)
        batch, values = self.rows.batch(positions), []
        theta = self.theta.double()
        step = width * float(theta.norm() + 1.0) / float(direction.norm())
        for side in (1.0, -1.0):
            self.layout.assign(model, theta + side * step * direction)
            with InDouble(), no_checkpointing():
                values.append(without_graph(lambda: self.loss(model, batch)))
        return float((derivatives - (values[0] - values[1]) / (2 * step)).abs().max())

    def _along(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        def derivative(u: Tensor) -> Tensor:
            found: Tensor = jvp(lambda p: self.losses(p, batch), (self.theta,), (u,))[1]
            return found

        return derivative

    def _of_one_row(self, theta: Tensor, row: Batch) -> Tensor:
        batch = {name: value.unsqueeze(0) for name, value in row.items()}
        along = batch.pop(_ALONG, None)

        def value(p: Tensor) -> Tensor:
            if along is None:
                return self.losses(p, batch).sum()
            return (self.outputs(p, batch) * along).sum()

        gradient: Tensor = grad(value)(theta)
        return gradient

    @cached_property
    def _rows_map(self) -> bool:
        """Whether the loss can be mapped over rows: it cannot where its code asks for values, such as a maximum."""
        few = self.rows.batch(torch.arange(min(2, self.rows.count)))
        try:
            vmap(self._of_one_row, in_dims=(None, 0), randomness="same")(self.theta, few)
        except Exception:
            return False
        return True

    def _flat(self, parts: tuple[Tensor | None, ...]) -> Tensor:
        shaped = self.layout.parameters(self.model)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, shaped, strict=True)]
        return self.layout.flatten(filled)


class forward_derivatives:
    """Say in words which operation has no derivative of the kind that is needed; other errors stay what they are."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Put an error of function transforms in words.

        Raises
        ------
        NotSupportedError
            An operation has no forward or second derivative.
        """
        text = str(error)
        known = (
            "functorch",
            "vmap",
            "jvp",
            "forward mode",
            "forward AD",
            "forward-mode",
            "saved tensor hooks",
        )
        if isinstance(error, RuntimeError) and any(word in text for word in known):
            raise NotSupportedError(
                explain(
                    "a model and loss that PyTorch can differentiate forward",
                    text.splitlines()[0][:200],
                    "a fused or rarely used operation has no such derivative",
                    "write that part with elementary operations, or use method='grad-dot', which needs gradients only",
                )
            ) from error


def _row(batch: Batch, i: int) -> Batch:
    return {name: value[i] for name, value in batch.items()}


def each(function: Callable[[Tensor], Any], stacked: Tensor) -> Any:
    """Map `function` over the leading axis; one entry is not worth a batched operation."""
    if len(stacked) > 1:
        return vmap(function, randomness="same")(stacked)
    return function(stacked[0]).unsqueeze(0)
