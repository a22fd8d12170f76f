"""Before a recorded loop is replayed: take some of its steps again and compare.

The gradient that the optimiser got is compared with the gradient of the given loss on the given rows, and the
parameters after the step with those after the same step taken again, at up to 4,096 coordinates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, TrainingError, explain
from finfluence.runs.record._causes import TOLERANCE, Comparison, cause_of, relative
from finfluence.runs.record._recorder import Recorder, ReferenceSample
from finfluence.runs.steps import RecordedSteps

MOVED = 10.0


@dataclass(frozen=True)
class Difference:
    """How a step differs when it is taken again (relative size), and what that looks like."""

    size: float
    what: str
    cause: str
    next_step: str


def check_recording(steps: RecordedSteps, recorder: Recorder) -> list[int]:
    """Take the steps of which there is a reference sample again; return which.

    Returns
    -------
    list[int]

    Raises
    ------
    TrainingError
        A step cannot be reproduced; the message names it, by how much, and what usually causes it.
    NotSupportedError
        The optimiser moved the parameters otherwise than its known update.
    """
    comparison = Comparison(steps, recorder)
    for t in comparison.checked:
        difference = _difference(comparison, t)
        if difference is not None:
            raise TrainingError(
                explain(
                    "a loop that can be taken again from what was recorded",
                    f"{difference.what} at step {t} that differs by {difference.size:.1%}",
                    difference.cause,
                    difference.next_step,
                )
            )
        _check_update(comparison, t)
    return comparison.checked


def _difference(comparison: Comparison, t: int) -> Difference | None:
    steps, chosen, tolerance = comparison.steps, comparison.coordinates, comparison.tolerance
    reference: ReferenceSample = comparison.references[t]
    if not bool(torch.isfinite(reference.gradient).all() & torch.isfinite(reference.after).all()):
        return Difference(
            torch.nan, "a gradient with NaN or infinite values", "the training diverged, or the loss is undefined",
            "lower the learning rate, clip the gradient, or look at the batch of that step",
        )  # fmt: skip
    if reference.later is not None and not torch.equal(reference.later, reference.after):
        return Difference(
            relative(reference.later, reference.after), "parameters that move after the optimiser's step, a move",
            "averaged weights are swapped in, weights are clipped or reset, or other code writes on them",
            "let only the optimiser move the parameters while the recording lasts",
        )  # fmt: skip
    size = relative(comparison.again(t), reference.gradient)
    if size > tolerance:
        return Difference(size, "a gradient", *cause_of(comparison, t))
    state = comparison.state(t)
    theta = _stepped(steps, t, state)[chosen]
    moved = (reference.after - state[: steps.layout.size][chosen]).norm()
    size = float((theta - reference.after).norm() / moved.clamp_min(1e-30)) if moved > 0 else 0.0
    if size > MOVED * tolerance:
        return Difference(
            size, "a move of the parameters", "the gradient is the same, but the optimiser's options are not: "
            "they were changed inside the step, or the optimiser had a history that its state does not show",
            "make a new optimiser, and change options between steps only",
        )  # fmt: skip
    return None


def _check_update(comparison: Comparison, t: int) -> None:
    """Raise unless the functional update makes the optimiser's step."""
    steps, state = comparison.steps, comparison.state(t)
    steps.set_state(t, state)
    steps.backward(t)
    theta, *slots = state.view(-1, steps.layout.size).unbind()
    has_grad = torch.cat([torch.full((p.numel(),), p.grad is not None) for p in steps.parameters]).to(
        theta.device
    )
    new, _ = steps.optimizer.update(theta, tuple(slots), steps.gradient(), steps.optimizer.hyper[t].unbind())
    want = _stepped(steps, t, state)
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


def _stepped(steps: RecordedSteps, t: int, state: Tensor) -> Tensor:
    """Return θ after step t."""
    steps.set_state(t, state)
    steps.run_step(t)
    return torch.cat([p.detach().reshape(-1) for p in steps.parameters])
