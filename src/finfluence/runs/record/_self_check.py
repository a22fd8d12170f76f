"""Before a recorded loop is replayed: take some of its steps again and compare.

The gradient that the optimiser got is compared with the gradient of the given loss on the given rows, and the
parameters after the step with those after the same step taken again, at up to 4,096 coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, TrainingError, explain
from finfluence.runs.record._recorder import Recorder, Witness
from finfluence.runs.steps import RecordedSteps

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
MOVED = 10.0


@dataclass(frozen=True)
class Difference:
    """The first step that cannot be taken again: by how much it differs (relative), and what that looks like."""

    step: int
    size: float
    what: str
    cause: str
    next_step: str


def check_recording(steps: RecordedSteps, recorder: Recorder) -> list[int]:
    """Take the witnessed steps again; return which.

    Raises
    ------
    TrainingError
        A step cannot be reproduced; the message names it, by how much, and what usually causes it.
    NotSupportedError
        The optimiser moved the parameters otherwise than its known update.
    """
    done = []
    for t, witness in sorted(recorder.witnesses.items()):
        if t >= steps.count or t not in recorder.states:
            continue
        found = _difference(steps, recorder, t, witness)
        if found is not None:
            raise TrainingError(
                explain(
                    "a loop that can be taken again from what was recorded",
                    f"{found.what} at step {found.step} that differs by {found.size:.1%}",
                    found.cause,
                    found.next_step,
                )
            )
        _check_update(steps, recorder, t)
        done.append(t)
    return done


def _difference(steps: RecordedSteps, recorder: Recorder, t: int, witness: Witness) -> Difference | None:
    chosen, tolerance = recorder.coordinates, TOLERANCE[steps.layout.dtype]
    state = recorder.states[t].to(steps.layout.device)
    if not bool(torch.isfinite(witness.gradient).all() & torch.isfinite(witness.after).all()):
        return Difference(
            t, torch.nan, "a gradient with NaN or infinite values", "the training diverged, or the loss is undefined",
            "lower the learning rate, clip the gradient, or look at the batch of that step",
        )  # fmt: skip
    if witness.later is not None and not torch.equal(witness.later, witness.after):
        return Difference(
            t, _relative(witness.later, witness.after), "parameters that move after the optimiser's step, a move",
            "averaged weights are swapped in, weights are clipped or reset, or other code writes on them",
            "let only the optimiser move the parameters while the recording lasts",
        )  # fmt: skip
    norm, value = steps.recording.clip_norm, steps.recording.clip_value

    def as_used(gradient: Tensor) -> Tensor:
        if norm is not None:
            gradient = gradient * (norm / (gradient.norm() + 1e-6)).clamp(max=1.0)
        return gradient if value is None else gradient.clamp(-value, value)

    def again(rows_of: int = t, run: Callable[[int], Tensor] = steps.backward) -> Tensor:
        steps.load(t, state)
        run(rows_of)
        return as_used(steps.gradient())[chosen]

    ours = again()
    size = _relative(ours, witness.gradient)
    if size > tolerance:
        cause, next_step = _gradient_cause(steps, again, ours, witness, t, tolerance)
        return Difference(t, size, "a gradient", cause, next_step)
    steps.load(t, state)
    steps.take(t)
    theta = torch.cat([p.detach().reshape(-1) for p in steps.parameters])[chosen]
    moved = (witness.after - state[: steps.layout.size][chosen]).norm()
    size = float((theta - witness.after).norm() / moved.clamp_min(1e-30)) if moved > 0 else 0.0
    if size > MOVED * tolerance:
        return Difference(
            t, size, "a move of the parameters", "the gradient is the same, but the optimiser's options are not: "
            "they were changed inside the step, or the optimiser had a history that its state does not show",
            "make a new optimiser, and change options between steps only",
        )  # fmt: skip
    return None


def _gradient_cause(
    steps: RecordedSteps,
    again: Callable[..., Tensor],
    ours: Tensor,
    witness: Witness,
    t: int,
    tolerance: float,
) -> tuple[str, str]:
    """Return what the difference looks like, and what to do: the first explanation that fits."""
    used, recording = witness.gradient, steps.recording
    scale = float((ours @ used) / (ours @ ours).clamp_min(1e-30))
    if scale > 0 and _relative(scale * ours, used) <= tolerance:
        if scale < 1 and recording.clip_norm is None:
            return (
                f"it is the given loss's gradient times {scale:.4g}, with norm {float(witness.norm):.4g}: the loop "
                "clips the norm of the gradient, or divides the loss",
                f"pass clip_norm={float(witness.norm):.4g} to Tape.record if the loop clips there, or "
                f"weights=[{scale:.4g}] to tape.step if it scales the loss",
            )
        if recording.clip_norm is not None:
            return (
                f"it is the given loss's gradient, clipped to a norm of {float(witness.norm):.4g}",
                f"pass clip_norm={float(witness.norm):.4g} to Tape.record",
            )
        return (
            f"it is the given loss's gradient times {scale:.4g}: the loop sums over rows, counts gradients of earlier "
            "batches, or does not unscale them before the step",
            f"pass weights=[{scale:.4g}] to tape.step, all ids of accumulated batches, or scaler.unscale_(optimizer)",
        )
    largest = used.abs().max()
    if recording.clip_value is None and _relative(ours.clamp(-largest, largest), used) <= tolerance:
        return (
            f"no entry exceeds {float(largest):.4g}, and the others are the same: the loop clips the gradient by value",
            f"pass clip_value={float(largest):.4g} to Tape.record",
        )
    for other in (t - 1, t + 1):
        if 0 <= other < steps.count and _relative(again(other), used) <= tolerance:
            where = "before" if other < t else "after"
            return (
                f"it is the gradient on the rows named at the step {where}: ids are not the batch's",
                "call tape.step with the ids of the batch that the optimiser has just used",
            )
    for dtype in (torch.bfloat16, torch.float16):

        def mixed(t: int, dtype: torch.dtype = dtype) -> Tensor:
            with torch.autocast(steps.layout.device.type, dtype):
                return steps.backward(t)

        possible = dtype is torch.bfloat16 or steps.layout.device.type == "cuda"
        if possible and _relative(again(t, mixed), used) <= tolerance:
            return (
                f"it is the gradient under autocast in {dtype}: the loop has autocast outside the loss",
                "put the autocast block inside the loss that is given to Tape.record",
            )
    training = steps.model.training
    steps.model.train(not training)
    other_mode = _relative(again(), used)
    steps.model.train(training)
    if other_mode <= tolerance:
        return (
            f"it is the gradient of the model in {'evaluation' if training else 'training'} mode",
            "set the mode before the first step, and leave it there during optimiser steps",
        )
    return (
        "another loss than the one given, ids that are not the batch's, augmentation of the batch, clipping, a "
        "gradient scaler, or random numbers drawn outside the model's forward pass",
        "compare loss(model, batch) with what the loop descends; pass batch=… to tape.step if rows are augmented, and "
        "clip_norm= or clip_value= to Tape.record if gradients are clipped",
    )


def _check_update(steps: RecordedSteps, recorder: Recorder, t: int) -> None:
    """Raise unless the functional update makes the optimiser's step."""
    size, state = steps.layout.size, recorder.states[t].to(steps.layout.device)
    steps.load(t, state)
    steps.backward(t)
    theta, *slots = state.view(-1, size).unbind()
    reached = torch.cat([torch.full((p.numel(),), p.grad is not None) for p in steps.parameters]).to(
        theta.device
    )
    new, _ = steps.optimizer.update(theta, tuple(slots), steps.gradient(), steps.optimizer.hyper[t].unbind())
    steps.load(t, state)
    steps.take(t)
    want = torch.cat([p.detach().reshape(-1) for p in steps.parameters])
    moved = ((want - theta) * reached).norm()
    tolerance = MOVED * TOLERANCE[steps.layout.dtype] if steps.recording.kind != "Muon" else 0.5
    off = float(((new - want) * reached).norm() / moved.clamp_min(1e-30))
    if off > tolerance and moved > 1e-6 * want.norm():
        raise NotSupportedError(
            explain(
                f"torch.optim.{steps.recording.kind} to move the parameters as its formula says",
                f"a move at step {t} that differs by {off:.1%}",
                "an option that is not known here, or a version of torch with another formula",
                "leave out unusual options of the optimiser",
            )
        )


def _relative(a: Tensor, b: Tensor) -> float:
    return (
        float((a - b).norm() / b.norm().clamp_min(1e-30)) if bool(b.norm() > 0) else float((a - b).norm() > 0)
    )
