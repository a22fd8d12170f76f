"""Which pass walks a tape backwards: exact derivatives or finite differences."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from finfluence._files import digest
from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._exact import adjoint_of
from finfluence.estimators.derivatives._finite_difference import COARSE, RELATIVE, FiniteDifference
from finfluence.estimators.derivatives._protocol import StepAdjoint
from finfluence.grads import RowLosses, kinks, operations
from finfluence.runs import Step, Tape, seeded
from finfluence.runs.tape import Key

Differentiation = Literal["auto", "exact", "finite-difference"]
DIFFERENTIATIONS = ("auto", "exact", "finite-difference")
TOLERANCE = 0.1
FEW_ROWS = 8
QUERIES_CHECKED = 2


@dataclass(frozen=True)
class Choice:
    """A pass, why it was taken, and how far it was from another way to the same numbers.

    error : largest relative difference of slopes and of H u over the checked steps; None where nothing was checked.
    against : what they were compared with.
    """

    adjoint: StepAdjoint
    reason: str
    error: float | None = None
    against: str | None = None

    @property
    def name(self) -> str:
        """Name of the pass: "exact" or "finite-difference"."""
        return self.adjoint.differentiation

    @property
    def findings(self) -> list[str]:
        """What a reader of the result should know."""
        if self.name == "exact":
            return []
        return [
            f"derivatives were taken by finite differences: {self.reason}; "
            f"on a few steps they agree with {self.against} to {self.error:.1g}"
        ]


@dataclass(frozen=True)
class _ChoiceFor(Key[Choice]):
    """What a choice depends on beside the tape; `queries` is a digest of the gradients it was checked along."""

    differentiation: str
    memory_bytes: float
    queries: str


def choose_adjoint(
    tape: Tape, start: Tensor, differentiation: Differentiation = "auto", memory_bytes: float = 2**30
) -> Choice:
    """Choose and check the pass for a tape.

    *auto* takes the exact pass if the model has forward-over-reverse derivatives, unless one query's tangents exceed
    `memory_bytes` and the activations of training itself do not (fused attention over long sequences); else finite
    differences, if no kink lies on the way. Nothing depends on a clock: the same tape gets the same pass everywhere.

    Parameters
    ----------
    start : Tensor [Q, P]
        Gradients of the queries at the end of training.

    Returns
    -------
    Choice

    Raises
    ------
    NotSupportedError
        Neither pass can be used, or the one asked for cannot; the operation is named.
    """
    checked = start[:QUERIES_CHECKED]
    content = checked.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()

    def choose() -> Choice:
        with seeded(0):
            return _choose(tape, checked, differentiation, memory_bytes)

    return tape.cache.get(_ChoiceFor(differentiation, memory_bytes, digest(content)), choose)


def _choose(tape: Tape, start: Tensor, differentiation: str, memory_bytes: float) -> Choice:
    if differentiation == "finite-difference":
        return _differences(tape, start, "as asked")
    exact = adjoint_of(tape)
    if differentiation == "exact":
        return Choice(exact, "as asked")
    needed = 4 * _saved_bytes(tape, fused=False)
    if needed > memory_bytes >= _saved_bytes(tape, fused=True):
        reason = f"the exact pass would need {needed / 2**30:.2g} GiB a query"
        try:
            return _differences(tape, start, reason)
        except NotSupportedError:
            return Choice(exact, f"finite differences cannot be used, though {reason}")
    try:
        _products(tape, exact, start, tape.steps - 1)
    except NotSupportedError as error:
        got = str(error).partition("got: ")[2].splitlines()[0]
        return _differences(tape, start, f"the model has no forward-over-reverse derivative ({got[:150]})")
    return Choice(exact, "model and loss can be differentiated forward over reverse")


def _differences(tape: Tape, start: Tensor, reason: str) -> Choice:
    """Return finite differences, checked, or raise with what forbids them."""
    names = _operations(tape)
    if names.kinks:
        raise NotSupportedError(
            explain(
                "smooth operations only, for finite differences",
                f"{', '.join(names.kinks[:4])} in the model or loss ({reason})",
                "where a derivative jumps, gradients at θ ± εu lie on two sides of the kink "
                "and their difference is wrong for any ε",
                "use differentiation='exact', or a smooth activation such as GELU, SiLU or tanh",
            )
        )
    losses = RowLosses(tape.working, tape.step_loss, tape.layout, fused=True)
    adjoint = FiniteDifference(losses, tape.optimizer, tape.stochastic, looped=names.looped)
    coarse = max(2 * adjoint.relative, 2e-3)
    wide = FiniteDifference(losses, tape.optimizer, tape.stochastic, coarse, looped=names.looped)
    try:
        error, against = _disagreement(tape, adjoint, adjoint_of(tape), start), "the exact pass"
    except NotSupportedError:
        error, against = _disagreement(tape, adjoint, wide, start), f"differences at ρ = {coarse:.0e}"
    if not error <= TOLERANCE:
        raise NotSupportedError(
            explain(
                f"finite differences that agree with {against} to {TOLERANCE:.0%} on a few steps",
                f"a relative difference of {error:.2g}",
                "the loss bends within the step (a kink or a jump in its code), "
                "or is computed in too low a precision",
                "use differentiation='exact', smooth activations, or float32 throughout",
            )
        )
    return Choice(adjoint, reason, error, against)


def _disagreement(tape: Tape, adjoint: StepAdjoint, other: StepAdjoint, start: Tensor) -> float:
    """Return the largest relative difference of slopes and H u at the first, middle and last step."""
    worst = 0.0
    for t in sorted({0, tape.steps // 2, tape.steps - 1}):
        got, want = _products(tape, adjoint, start, t), _products(tape, other, start, t)
        for mine, theirs, rounding in zip(got, want, _rounding(tape, t), strict=True):
            apart = (mine.double() - theirs.double()).norm(dim=1)
            size = theirs.double().norm(dim=1).clamp_min(rounding)
            worst = max(worst, float((apart / size).nan_to_num(float("inf")).max()))
    return worst


def _rounding(tape: Tape, t: int) -> tuple[float, float]:
    """Return sizes of H u and of slopes, along a unit direction, below which differences see only rounding."""
    step, theta = tape.at(t), tape.state(t)[: tape.layout.size].to(tape.layout.device).requires_grad_(True)
    with torch.enable_grad():
        losses = RowLosses(tape.working, tape.step_loss, tape.layout, fused=True)(
            theta, _few(step), step.seed
        )
        (gradient,) = torch.autograd.grad(losses.mean(), theta)
    unit = (
        100
        * torch.finfo(theta.dtype).eps
        / (RELATIVE.get(theta.dtype, COARSE) * float(theta.detach().norm()) + 1e-30)
    )
    return unit * float(gradient.norm()) + 1e-30, unit * float(losses.detach().norm()) + 1e-30


def _products(tape: Tape, adjoint: StepAdjoint, start: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Return H u and slopes of a few rows at step t, along the gradients of the queries scaled to length 1."""
    step, theta = tape.at(t), tape.state(t)[: tape.layout.size].to(tape.layout.device)
    length = start.norm(dim=1, keepdim=True)
    direction = start / torch.where(length > 0, length, torch.ones_like(length))
    return adjoint.products(theta, direction, _few(step), step.seed)


def _few(step: Step) -> dict[str, Tensor]:
    count = len(step.rows)
    return {k: v[:FEW_ROWS] if len(v) == count else v for k, v in step.batch.items()}


@dataclass(frozen=True)
class _Operations:
    """Kinks of a loss, and whether points had better be taken one by one.

    vmap has no rule for fused attention, and on a CPU batches convolutions with different weights badly.
    """

    kinks: list[str]
    looped: bool


def _operations(tape: Tape) -> _Operations:
    """Look at the graph of one step's losses."""
    step, losses = tape.at(tape.steps - 1), RowLosses(tape.working, tape.step_loss, tape.layout, fused=True)
    theta = tape.state()[: tape.layout.size].to(tape.layout.device).requires_grad_(True)
    with torch.enable_grad():
        rows = losses(theta, step.batch, step.seed)
    names = operations(rows)
    fused = any(name.startswith("ScaledDotProduct") for name in names)
    slow = tape.layout.device.type == "cpu" and "Convolution" in names
    return _Operations(kinks(rows), fused or slow)


def _saved_bytes(tape: Tape, fused: bool) -> float:
    """Return what autograd saves for one step, each tensor once."""
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        held[tensor.data_ptr()] = tensor.numel() * tensor.itemsize
        return tensor

    step, losses = tape.at(0), RowLosses(tape.working, tape.step_loss, tape.layout, fused=fused)
    theta = tape.layout.theta(tape.working).requires_grad_(True)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        rows = losses(theta, step.batch, step.seed)
    del rows
    return float(sum(held.values()))
