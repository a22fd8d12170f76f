"""Finite differences for a tape, checked, or what forbids them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, explain
from finfluence.estimators.derivatives._check import GradientCheck, few_rows, rows_checked
from finfluence.estimators.derivatives._checked import CheckedAdjoint
from finfluence.estimators.derivatives._choice import Choice
from finfluence.estimators.derivatives._exact import adjoint_of
from finfluence.estimators.derivatives._finite_difference import COARSE, RELATIVE, FiniteDifference
from finfluence.estimators.derivatives._protocol import StepAdjoint
from finfluence.grads import RowLosses, kinks, operations
from finfluence.runs import Tape

TOLERANCE = 0.1
FEW_ROWS = 8


def differences(
    tape: Tape, check: GradientCheck, query_gradients: Tensor, reason: str, is_symmetric: Callable[[], bool]
) -> Choice:
    """Return finite differences, checked.

    Parameters
    ----------
    tape : Tape
    check : GradientCheck
    query_gradients : Tensor [Q, P]
        What their accuracy is measured along.
    reason : str
        Why they are taken.
    is_symmetric : callable
        Whether forward over reverse gives the adjoint, if that is known: for the words of a refusal.

    Returns
    -------
    Choice

    Raises
    ------
    NotSupportedError
        The loss has kinks, its gradient's derivative is not symmetric, or the differences are not accurate.
    """
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

    def make(losses: RowLosses) -> FiniteDifference:
        return FiniteDifference(losses, tape.optimizer, tape.stochastic, looped=names.looped)

    adjoint = make(RowLosses(tape.working, tape.step_loss, tape.layout, fused=True))
    coarse = max(2 * adjoint.relative, 2e-3)
    wide = FiniteDifference(adjoint.losses, tape.optimizer, tape.stochastic, coarse, looped=names.looped)
    try:
        error, against = _disagreement(tape, adjoint, adjoint_of(tape), query_gradients), "the exact pass"
    except NotSupportedError:
        error, against = (
            _disagreement(tape, adjoint, wide, query_gradients),
            f"differences at ρ = {coarse:.0e}",
        )
    agreement = check.of(make, fused=True)
    if not agreement.holds and not is_symmetric():
        raise NotSupportedError(
            explain(
                "a gradient with a symmetric derivative, for finite differences",
                f"{agreement.sentence} ({reason})",
                "differences of gradients give (∂g/∂θ)u, and what goes backwards is (∂g/∂θ)ᵀu: they differ where the "
                "loss stops gradients (detach, no_grad), or changes them (a custom backward, a hook)",
                "use differentiation='auto' or 'exact'",
            )
        )
    if not agreement.holds or not error <= TOLERANCE:
        raise NotSupportedError(
            explain(
                f"finite differences that agree with {against} to {TOLERANCE:.0%} on a few steps",
                f"a relative difference of {error:.2g}",
                "the loss bends within the step (a kink or a jump in its code), "
                "or is computed in too low a precision",
                "use differentiation='exact', smooth activations, or float32 throughout",
            )
        )
    return Choice(CheckedAdjoint(adjoint, tape, make, fused=True), reason, agreement, error, against)


def _disagreement(tape: Tape, adjoint: StepAdjoint, other: StepAdjoint, start: Tensor) -> float:
    """Return the largest relative difference of row derivatives and H u at the first, middle and last step."""
    worst = 0.0
    for t in sorted({0, tape.steps // 2, tape.steps - 1}):
        got, want = _products(tape, adjoint, start, t), _products(tape, other, start, t)
        for mine, theirs, rounding in zip(got, want, _rounding(tape, t), strict=True):
            apart = (mine.double() - theirs.double()).norm(dim=1)
            size = theirs.double().norm(dim=1).clamp_min(rounding)
            worst = max(worst, float((apart / size).nan_to_num(float("inf")).max()))
    return worst


def _rounding(tape: Tape, t: int) -> tuple[float, float]:
    """Return sizes of H u and of row derivatives, along a unit direction, below which differences see only rounding."""
    step, theta = tape.at(t), tape.state(t)[: tape.layout.size].to(tape.layout.device).requires_grad_(True)
    with torch.enable_grad():
        losses = RowLosses(tape.working, tape.step_loss, tape.layout, fused=True)(
            theta, few_rows(step.batch, len(step.rows), rows_checked(tape, FEW_ROWS)), step.seed
        )
        (gradient,) = torch.autograd.grad(losses.mean(), theta)
    unit = (
        100
        * torch.finfo(theta.dtype).eps
        / (RELATIVE.get(theta.dtype, COARSE) * float(theta.detach().norm()) + 1e-30)
    )
    return unit * float(gradient.norm()) + 1e-30, unit * float(losses.detach().norm()) + 1e-30


def _products(tape: Tape, adjoint: StepAdjoint, start: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Return H u and row derivatives of a few rows at step t, along the gradients of the queries scaled to length 1."""
    step, theta = tape.at(t), tape.state(t)[: tape.layout.size].to(tape.layout.device)
    length = start.norm(dim=1, keepdim=True)
    direction = start / torch.where(length > 0, length, torch.ones_like(length))
    return adjoint.products(
        theta, direction, few_rows(step.batch, len(step.rows), rows_checked(tape, FEW_ROWS)), step.seed
    )


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
