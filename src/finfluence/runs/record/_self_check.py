"""Before a recorded loop is replayed: take some of its steps again and compare.

The gradient that the optimiser got is compared with the gradient of the given loss on the given rows, and the
parameters after the step with those after the same step taken again, at up to 4,096 coordinates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, TrainingError, explain
from finfluence.runs.record._causes import TOLERANCE, Comparison, cause_of, relative
from finfluence.runs.record._not_finite import check_finite, check_loss
from finfluence.runs.record._recorder import Recorder, ReferenceSample
from finfluence.runs.steps import RECAST, RecordedSteps

MOVED, ROUNDING = 10.0, 100


@dataclass(frozen=True)
class Difference:
    """How a step differs when it is taken again (relative size), and what that looks like."""

    size: float
    what: str
    cause: str
    next_step: str


def check_recording(steps: RecordedSteps, recorder: Recorder) -> str:
    """Take the steps of which there is a reference sample again; return what was checked, in words.

    Returns
    -------
    str

    Raises
    ------
    TrainingError
        Something is not finite, and the message names the first step; or a step cannot be reproduced, and it names
        the step, by how much, and what usually causes it.
    NotSupportedError
        The optimiser moved the parameters otherwise than its known update.
    """
    comparison = Comparison(steps, recorder)
    check_finite(comparison)
    for t in comparison.checked:
        again = _Again.of(comparison, t)
        check_loss(again.loss, t)
        difference = _difference(comparison, t, again) or _recast(comparison, t)
        if difference is not None:
            raise TrainingError(
                explain(
                    "a loop that can be taken again from what was recorded",
                    f"{difference.what} at step {t} that differs by {difference.size:.1%}{_since(comparison, t)}",
                    difference.cause,
                    difference.next_step,
                )
            )
        _check_update(comparison, t, again)
    what = f"steps {', '.join(map(str, comparison.checked))} of {steps.count} taken again"
    if steps.recording.precision is None:
        return f"self-check: {what}, with the same result"
    kind = str(steps.recording.precision).removeprefix("torch.")
    said = f"self-check: {what}; gradients differ by up to {comparison.apart:.1%}, as sums in {kind} may"
    if steps.loss is steps.recording.loss:
        return said
    return f"{said}. Derivatives are taken without autocast: gradients there differ by up to {comparison.recast:.1%}"


@dataclass(frozen=True)
class _Again:
    """A step taken again, by one backward pass: its gradient [P] before clipping, where there is one, and θ after."""

    gradient: Tensor
    has_grad: Tensor
    after: Tensor
    loss: float

    @classmethod
    def of(cls, comparison: Comparison, t: int) -> "_Again":
        steps = comparison.steps
        steps.set_state(t, comparison.state(t))
        loss = float(steps.backward(t))
        gradient = steps.held_gradient()
        has_grad = torch.cat([torch.full((p.numel(),), p.grad is not None) for p in steps.parameters])
        steps.apply(t)
        after = torch.cat([p.detach().reshape(-1) for p in steps.parameters])
        return cls(gradient, has_grad.to(after.device), after, loss)


def _difference(comparison: Comparison, t: int, again: _Again) -> Difference | None:
    steps, chosen, tolerance = comparison.steps, comparison.coordinates, comparison.tolerance
    reference: ReferenceSample = comparison.references[t]
    aside = None
    if reference.later is not None and not torch.equal(reference.later, reference.after):
        aside = Difference(
            relative(reference.later, reference.after), "parameters that move after the optimiser's step, a move",
            "averaged weights are swapped in, weights are clipped or reset, a forward pass writes on them (an "
            "embedding with max_norm), or other code does",
            "let only the optimiser move the parameters while the recording lasts",
        )  # fmt: skip
        if aside.size > tolerance:
            return aside
    size = relative(comparison.clipped(again.gradient), reference.gradient)
    comparison.apart = max(comparison.apart, size)
    if size > tolerance:
        return Difference(size, "a gradient", *cause_of(comparison, t))
    state = comparison.state(t)
    theta = again.after[chosen]
    moved = (reference.after - state[: steps.layout.size][chosen]).norm()
    size = float((theta - reference.after).norm() / moved.clamp_min(1e-30)) if moved > 0 else 0.0
    if size > MOVED * tolerance:
        return Difference(
            size, "a move of the parameters", "the gradient is the same, but the optimiser's options are not: "
            "they were changed inside the step, or the optimiser had a history that its state does not show",
            "make a new optimiser, and change options between steps only",
        )  # fmt: skip
    return aside


def _since(comparison: Comparison, t: int) -> str:
    """Say from which step on moves differ, where that is between the last step that was looked at before and t."""
    steps, tolerance = comparison.steps, MOVED * comparison.tolerance
    size, kept = steps.layout.size, set(comparison.kept)
    for u in range(max((c for c in comparison.checked if c < t), default=t) + 1, t):
        if not {u, u + 1} <= kept:
            continue
        before, after = comparison.state(u)[:size], comparison.state(u + 1)[:size]
        off = (_Again.of(comparison, u).after - after).norm()
        if off > tolerance * (after - before).norm() + ROUNDING * torch.finfo(after.dtype).eps * after.norm():
            return f", and from step {u} on"
    return ""


def _recast(comparison: Comparison, t: int) -> Difference | None:
    """Compare with the gradient of the loss that derivatives are taken of, where that is another one."""
    steps = comparison.steps
    if steps.loss is steps.recording.loss:
        return None
    steps.set_state(t, comparison.state(t))
    steps.backward(t, steps.loss)
    size = relative(comparison.clipped(steps.gradient()), comparison.references[t].gradient)
    comparison.recast = max(comparison.recast, size)
    if size <= RECAST:
        return None
    return Difference(
        size, "a gradient without autocast",
        f"{steps.recording.precision} is too coarse for this model at this step: its gradient is mostly rounding",
        "train in float32 (bf16=False)",
    )  # fmt: skip


def _check_update(comparison: Comparison, t: int, again: _Again) -> None:
    """Raise unless the functional update makes the optimiser's step."""
    steps, state, has_grad, want = comparison.steps, comparison.state(t), again.has_grad, again.after
    theta, *slots = state.view(-1, steps.layout.size).unbind()
    new, _ = steps.optimizer.update(theta, tuple(slots), again.gradient, steps.optimizer.hyper[t].unbind())
    moved = ((want - theta) * has_grad).norm()
    rule = steps.recording.optimizer.rule
    tolerance = MOVED * TOLERANCE[steps.layout.dtype] if rule.tolerance is None else rule.tolerance
    off = float(((new - want) * has_grad).norm() / moved.clamp_min(1e-30))
    if off > tolerance and moved > 1e-6 * want.norm():
        raise NotSupportedError(
            explain(
                f"torch.optim.{rule.name} to move the parameters as its formula says",
                f"a move at step {t} that differs by {off:.1%}",
                "an option that is not known here, or a version of torch with another formula",
                "leave out unusual options of the optimiser",
            )
        )
