"""The update of a recorded loop as a function: clipping, then the optimiser's own step."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.grads import Layout
from finfluence.runs.describe.optimizers import adam_step, clip_norm, muon_step, numbers_at, sgd_step


class RecordedUpdate:
    """U_t of a recorded loop, elementwise options expanded to parameters where groups differ.

    Parameters
    ----------
    name, flags : kind of the torch optimiser and its fixed options.
    slots : names of its buffers.
    recorded : array [T, G, N]
        Numeric options of each step and group.
    taken : int
        Steps taken before the first.
    group_of : list of int
        The group of each parameter of the layout.
    norm, value : float or None
        Clipping between the backward pass and the step.
    reached : list of bool, optional
        Which parameters have a gradient; torch leaves the others alone, weight decay and all.
    """

    def __init__(
        self,
        name: str,
        flags: dict[str, Any],
        slots: tuple[str, ...],
        recorded: np.ndarray,
        taken: int,
        layout: Layout,
        group_of: list[int],
        norm: float | None,
        value: float | None,
        reached: list[bool] | None,
    ) -> None:
        self.name, self.slots = name, slots
        self._flags, self._norm, self._value, self._shapes = flags, norm, value, layout.shapes
        sizes = torch.tensor(layout.sizes)
        several = recorded.shape[1] > 1
        numbers = numbers_at(name, recorded, taken)
        constant = {k: v for k, v in numbers.items() if (v == v[:1]).all()}
        self._fixed = {k: float(v[0, 0]) for k, v in constant.items() if (v[0] == v[0, 0]).all()}
        self._varying = [k for k in numbers if k not in self._fixed]
        columns = [v if several else v[:, 0] for k, v in numbers.items() if k in self._varying]
        shape = (len(recorded), 0, recorded.shape[1]) if several else (len(recorded), 0)
        table = np.stack(columns, 1) if columns else np.empty(shape)
        self.hyper = torch.tensor(table, dtype=layout.dtype, device=layout.device)
        still = None if reached is None or all(reached) else torch.tensor(reached)
        self._moves = None if still is None else still.repeat_interleave(sizes).to(layout.device)
        index = torch.repeat_interleave(torch.tensor(group_of), sizes)
        self._groups = index.to(layout.device) if several else None

    def update(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (θ_{t+1}, slots_{t+1})."""
        new, held = self._step(theta, slots, grad, hyper)
        if self._moves is None:
            return new, held
        still = (torch.where(self._moves, a, b) for a, b in zip(held, slots, strict=True))
        return torch.where(self._moves, new, theta), tuple(still)

    def _step(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, hyper: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        found = dict(zip(self._varying, hyper, strict=True))
        if self._groups is not None:
            found = {k: v[self._groups] for k, v in found.items()}
        options: dict[str, Any] = {**self._fixed, **found}
        if self._value is not None:
            grad = grad.clamp(-self._value, self._value)
        if self._norm is not None:
            grad = clip_norm(grad, self._norm)
        if self._flags.get("maximize"):
            grad = -grad
        if self.name == "SGD":
            return sgd_step(theta, slots, grad, nesterov=self._flags["nesterov"], **options)
        if self.name == "Muon":
            return muon_step(
                theta, slots, grad, shapes=self._shapes, eps=self._flags["eps"], nesterov=self._flags["nesterov"],
                coefficients=tuple(self._flags["ns_coefficients"]), iterations=self._flags["ns_steps"],
                adjust=self._flags["adjust_lr_fn"], **options,
            )  # fmt: skip
        return adam_step(
            theta, slots, grad, decoupled=self._flags["decoupled_weight_decay"] or self.name == "AdamW",
            amsgrad=self._flags["amsgrad"], **options,
        )  # fmt: skip
