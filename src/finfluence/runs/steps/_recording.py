"""All that a recorded loop left, but for its states."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from finfluence.grads import RowLoss
from finfluence.runs.describe import RowSource
from finfluence.runs.describe.optimizers import Group, Rule, clip_norm
from finfluence.runs.steps._step_log import Entry


@dataclass(frozen=True)
class RecordedOptimizer:
    """The optimiser of a recorded loop.

    Attributes
    ----------
    rule : Rule
        What is known of its class.
    groups : list of dict
        The options of each parameter group at the start.
    group_of : list of int
        The group of each trained parameter.
    steps_done : int
        Steps that it had taken before the first recorded one.
    """

    rule: Rule
    groups: list[Group]
    group_of: list[int]
    steps_done: int

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of its buffers."""
        return self.rule.slots(self.groups)


@dataclass(frozen=True)
class Clipping:
    """What a loop does to the gradient between the backward pass and the step: nothing, or one of the two.

    Attributes
    ----------
    norm, value : float or None
        The largest norm of the whole gradient, the largest absolute value of its entries.
    """

    norm: float | None = None
    value: float | None = None

    def clip(self, grad: Tensor) -> Tensor:
        """Return the gradient [P] as the optimiser gets it; differentiable."""
        if self.value is not None:
            grad = grad.clamp(-self.value, self.value)
        return grad if self.norm is None else clip_norm(grad, self.norm)


@dataclass(frozen=True)
class Sampling:
    """How the loop draws rows: read off the ids ("detect"), once an epoch ("reshuffle"), or "independent".

    Attributes
    ----------
    kind : str
    steps_per_epoch : int or None
        For loops that leave epochs early.
    """

    kind: str = "detect"
    steps_per_epoch: int | None = None


@dataclass(eq=False)
class Recording:
    """All that a recorded loop left, but for its states.

    Attributes
    ----------
    model : nn.Module
        A copy of ours with the weights of the start (and the buffers of the end). Frozen parameters share the memory
        of the user's.
    names : list of str
        Of the trained parameters.
    loss, rows
        As given to `Tape.record`.
    data : str or None
        Hash of the rows; None if they change at every reading.
    optimizer, clipping, sampling
        What the loop does between the backward pass and the next one.
    random : bool
        Whether the loss may draw random numbers.
    checksums : dict
        Of frozen parameters and data, as they were at the start (`describe.checksums`).
    module_modes : list of bool or None
        Training flag of each module; None before the first step.
    has_grad : list of bool or None
        Which trained parameters have a gradient; None before the first step.
    entries : list of Entry
        The steps.
    notes : list of str
        What a reader of results should know.
    precision : torch.dtype or None
        In which the loss is computed, where that is coarser than what is trained.
    """

    model: nn.Module
    names: list[str]
    loss: RowLoss
    rows: RowSource
    data: str | None
    optimizer: RecordedOptimizer
    clipping: Clipping
    sampling: Sampling
    random: bool
    checksums: dict[str, dict[str, tuple[str, int]]]
    module_modes: list[bool] | None = None
    has_grad: list[bool] | None = None
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: torch.dtype | None = None
