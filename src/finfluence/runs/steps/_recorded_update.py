"""The update of a recorded loop as a function: clipping, then the optimiser's own step."""

from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.grads import Layout
from finfluence.runs.describe.optimizers import Pull
from finfluence.runs.steps._precision import RECAST, exact, tolerance_of
from finfluence.runs.steps._recording import Recording

LOOKED_AT = 2**14  # coordinates of a step, at least, of which the move is compared
AGREES = {
    torch.float64: 1e-6,
    torch.float32: 2e-3,
}  # relative difference of gradients, and a tenth of that of moves
COARSE, MOVED, ROUNDING = 5e-2, 10.0, 100


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
        self._precision, self._recast = recording.precision, recording.loss is not exact(recording.loss)
        self._moves = None if moving is None else moving.repeat_interleave(sizes).to(layout.device)
        index = torch.repeat_interleave(torch.tensor(optimizer.group_of), sizes)
        self._groups = index.to(layout.device) if several else None
        clipped = recording.clipping.norm is not None or recording.clipping.value is not None
        self.hides_gradient = clipped or not self._rule.tells_gradient(needed)
        full_precision = layout.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
        self.coarse = not full_precision or self._recast or recording.precision is not None
        self._turn = 0

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

    @property
    def translates(self) -> bool:
        """Whether what a gradient does to θ and the slots is the same at every θ, as without decay in the gradient."""
        return self._rule.translates({**self._flags, **self._fixed})

    def part(self, some: slice) -> "RecordedUpdate | None":
        """Return the update of some coordinates alone; None where a norm, or all of a matrix, is in it."""
        if self._clipping.norm is not None or not self._rule.elementwise:
            return None
        twin = copy(self)
        twin._moves = None if self._moves is None else self._moves[some]
        twin._groups = None if self._groups is None else self._groups[some]
        return twin

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

    def departure(
        self,
        state: Tensor,
        after: Tensor,
        hyper: tuple[Tensor, ...],
        gradient: Tensor | None,
        read: Tensor | None = None,
    ) -> tuple[str, float] | None:
        """Return what of the recorded step departs from this update, and by how much, relative to the step.

        The gradient that the buffers tell is compared with the one given, clipped, and θ_{t+1} with what that gradient
        makes of the state; where buffers do not tell it, the whole step. Of large models every k-th coordinate is
        looked at, others at every step.

        Parameters
        ----------
        state, after : Tensor [(1+S)·P]
            Before and after the step.
        hyper : tuple of Tensor
        gradient : Tensor [P] or None
            Of the loss on the step's rows, before clipping.
        read : Tensor [P] or None
            What `gradient` returned for the step, if it was asked.

        Returns
        -------
        (str, float) or None
            "gradient" or "parameters"; None where nothing departs, or nothing tells.
        """
        count, known = 1 + len(self.slots), AGREES.get(state.dtype, COARSE)
        tolerance = RECAST if self._recast else tolerance_of(known, self._precision)
        (theta, *slots), (reached, *kept) = (s.view(count, -1).unbind() for s in (state, after))
        eps, loose = (
            ROUNDING * torch.finfo(state.dtype).eps,
            self._rule.tolerance or max(MOVED * known, tolerance),
        )
        wanted = None if gradient is None else self._received(gradient)
        if read is not None:
            got: Tensor | None = -read if self._flags.get("maximize") else read
        else:
            got = (
                self._rule.gradient(theta, tuple(slots), tuple(kept), self._options(hyper)) if kept else None
            )
        if got is None:
            if gradient is None:
                return None
            new, held = self.update(theta, tuple(slots), gradient, hyper)
            pairs = zip((reached, *kept), (new, *held), (theta, *slots), strict=True)
            off = max(_apart(a, b, (b - c).norm(), loose, eps * c.norm()) for a, b, c in pairs)
            return ("parameters", off) if off > loose else None
        if wanted is not None:
            got = got if self._moves is None else torch.where(self._moves, got, 0.0)
            rounding = eps * (slots[0].norm() + theta.norm() + got.norm())
            off = _apart(got, wanted, wanted.norm(), tolerance, rounding)
            if off > tolerance:
                return "gradient", off
        part = self._part(len(theta))
        options, some = self._options(hyper, part), tuple(s[part] for s in slots)
        new, _ = self._rule.step(theta[part], some, got[part], options, self._shapes)
        if self._moves is not None:
            new = torch.where(self._moves[part], new, theta[part])
        move = (new - theta[part]).norm()
        off = _apart(reached[part], new, move, loose, eps * theta[part].norm())
        return ("parameters", off) if off > loose else None

    def _received(self, gradient: Tensor) -> Tensor:
        """Return the gradient [P] as the optimiser's formula takes it: clipped, its sign turned to be maximised."""
        clipped = self._clipping.clip(gradient)
        signed = -clipped if self._flags.get("maximize") else clipped
        return signed if self._moves is None else torch.where(self._moves, signed, 0.0)

    def _part(self, size: int) -> slice:
        """Return the coordinates to look at: all, or every k-th, the next ones at every call."""
        every = size // LOOKED_AT if self._rule.elementwise else 1
        self._turn += 1
        return slice(None) if every < 2 else slice(self._turn % every, None, every)

    def _options(self, hyper: tuple[Tensor, ...], part: slice = slice(None)) -> dict[str, Any]:
        named = dict(zip(self._varying, hyper, strict=True))
        if self._groups is not None:
            index = self._groups[part]
            named = {k: v[index] for k, v in named.items()}
        return {**self._flags, **self._fixed, **named}


def _apart(a: Tensor, b: Tensor, scale: Tensor, tolerance: float, rounding: Tensor) -> float:
    """Return ‖a − b‖ relative to `scale`, or 0 where it is below rounding or not a number."""
    off = (a - b).norm()
    if not bool(off > tolerance * scale + rounding):  # NaN is none: a training that diverged
        return 0.0
    return float(off / scale.clamp_min(1e-30))
