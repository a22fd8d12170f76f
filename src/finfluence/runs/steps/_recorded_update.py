"""The update of a recorded loop as a function: clipping, then the optimiser's own step."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.grads import Layout
from finfluence.runs.describe.optimizers import Pull
from finfluence.runs.steps._recording import Recording


class RecordedUpdate:
    """U_t of a recorded loop, elementwise options expanded to parameters where groups differ.

    Parameters
    ----------
    recording : Recording
        Of it: optimiser, clipping, and which parameters have a gradient; torch leaves the others alone, weight decay
        and all.
    numbers : array [T, G, N]
        Numeric options of each step and group.
    layout : Layout
    """

    def __init__(self, recording: Recording, numbers: np.ndarray, layout: Layout) -> None:
        optimizer = recording.optimizer
        self.slots = optimizer.slots
        self._rule, self._clipping, self._shapes = optimizer.rule, recording.clipping, layout.shapes
        self._flags = self._rule.flags_of(optimizer.groups[0])
        sizes = torch.tensor(layout.sizes)
        several = numbers.shape[1] > 1
        t = np.arange(optimizer.steps_done + 1, optimizer.steps_done + 1 + len(numbers))[:, None]
        read = dict(zip(self._rule.numbers, np.moveaxis(numbers, 2, 0), strict=True))
        needed = self._rule.numbers_at(read, t)
        constant = {k: v for k, v in needed.items() if (v == v[:1]).all()}
        self._fixed = {k: float(v[0, 0]) for k, v in constant.items() if (v[0] == v[0, 0]).all()}
        self._varying = [k for k in needed if k not in self._fixed]
        columns = [v if several else v[:, 0] for k, v in needed.items() if k in self._varying]
        shape = (len(numbers), 0, numbers.shape[1]) if several else (len(numbers), 0)
        table = np.stack(columns, 1) if columns else np.empty(shape)
        self.hyper = torch.tensor(table, dtype=layout.dtype, device=layout.device)
        has_grad = recording.has_grad
        moving = None if has_grad is None or all(has_grad) else torch.tensor(has_grad)
        self._moves = None if moving is None else moving.repeat_interleave(sizes).to(layout.device)
        index = torch.repeat_interleave(torch.tensor(optimizer.group_of), sizes)
        self._groups = index.to(layout.device) if several else None

    def update(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (θ_{t+1}, slots_{t+1})."""
        options = self._options(hyper)
        grad = self._clipping.clip(grad)
        if self._flags.get("maximize"):
            grad = -grad
        new, held = self._rule.step(theta, slots, grad, options, self._shapes)
        if self._moves is None:
            return new, held
        still = (torch.where(self._moves, a, b) for a, b in zip(held, slots, strict=True))
        return torch.where(self._moves, new, theta), tuple(still)

    def pull_back(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> Pull | None:
        """Return the map of λ to (∂U/∂s)ᵀλ and (∂U/∂g)ᵀλ; None if gradients are clipped, or it is not written out."""
        if self._clipping.norm is not None or self._clipping.value is not None:
            return None
        sign, moves = -1.0 if self._flags.get("maximize") else 1.0, self._moves
        pull = self._rule.pull_back(theta, slots, sign * grad, self._options(hyper))
        if pull is None or (sign == 1.0 and moves is None):
            return pull

        def own(after: Tensor) -> tuple[Tensor, Tensor]:
            before, direction = pull(after)
            if moves is None:
                return before, sign * direction
            return torch.where(moves, before, after), torch.where(moves, sign * direction, 0.0)

        return own

    def gradient(
        self, theta: Tensor, slots: tuple[Tensor, ...], after: tuple[Tensor, ...], hyper: tuple[Tensor, ...]
    ) -> Tensor | None:
        """Return the gradient of the step that left the buffers `after`; None where it was clipped."""
        if self._clipping.norm is not None or self._clipping.value is not None:
            return None
        found = self._rule.gradient(theta, slots, after, self._options(hyper))
        if found is None:
            return None
        found = -found if self._flags.get("maximize") else found
        return found if self._moves is None else torch.where(self._moves, found, 0.0)

    def _options(self, hyper: tuple[Tensor, ...]) -> dict[str, Any]:
        named = dict(zip(self._varying, hyper, strict=True))
        if self._groups is not None:
            named = {k: v[self._groups] for k, v in named.items()}
        return {**self._flags, **self._fixed, **named}
