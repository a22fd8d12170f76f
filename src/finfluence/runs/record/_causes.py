"""Why the gradient that an optimiser got is not that of the given loss: the first explanation that fits.

An explanation is a function of the comparison and the step; it returns what the difference looks like and what to do,
or None.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from finfluence.runs.describe import values_read
from finfluence.runs.record._recorder import Recorder
from finfluence.runs.steps import RecordedSteps, tolerance_of

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
Explanation = tuple[str, str]


class Comparison:
    """Steps as they were, and as they are when taken again."""

    def __init__(self, steps: RecordedSteps, recorder: Recorder) -> None:
        self.steps, self.coordinates, self.references = steps, recorder.coordinates, recorder.references
        self.tolerance = tolerance_of(TOLERANCE[steps.layout.dtype], steps.recording.precision)
        self.apart = self.recast = 0.0
        self._states, self.hooked = recorder.states, recorder.hooked
        self.modes, self.read, self.now = recorder.modes, recorder.read, recorder.model
        self.kept = [t for t in recorder.states.steps if t <= steps.count]
        self.checked = [t for t in sorted(recorder.references) if t < steps.count and t in recorder.states]

    def state(self, t: int) -> Tensor:
        """Return the state before step t."""
        return self._states[t].to(self.steps.layout.device)

    def again(
        self, t: int, rows_of: int | None = None, backward: Callable[[int], Tensor] | None = None
    ) -> Tensor:
        """Return the gradient of step t, clipped as recorded, at the coordinates; on the rows of another step."""
        self.steps.set_state(t, self.state(t))
        (backward or self.steps.backward)(t if rows_of is None else rows_of)
        return self.clipped(self.steps.gradient())

    def clipped(self, gradient: Tensor) -> Tensor:
        """Return a gradient [P], clipped as recorded, at the coordinates."""
        clipping = self.steps.recording.clipping
        if clipping.norm is not None:
            gradient = gradient * (clipping.norm / (gradient.norm() + 1e-6)).clamp(max=1.0)
        if clipping.value is not None:
            gradient = gradient.clamp(-clipping.value, clipping.value)
        return gradient[self.coordinates]

    def fits(self, gradient: Tensor, t: int) -> bool:
        """Whether the optimiser got this gradient at step t."""
        return relative(gradient, self.references[t].gradient) <= self.tolerance

    def scale(self, t: int) -> float | None:
        """Return by what the gradient of step t was multiplied, if by a number above 0."""
        ours, used = self.again(t), self.references[t].gradient
        scale = float((ours @ used) / (ours @ ours).clamp_min(1e-30))
        return scale if scale > 0 and self.fits(scale * ours, t) else None


def cause_of(comparison: Comparison, t: int) -> Explanation:
    """Return what the difference at step t looks like, and what to do."""
    found = (explanation(comparison, t) for explanation in _EXPLANATIONS)
    first = next((explanation for explanation in found if explanation is not None), _ANY_OF_MANY)
    return _unsteady(comparison, t) or first


def relative(a: Tensor, b: Tensor) -> float:
    """Return ‖a − b‖/‖b‖; without b, whether there is an a."""
    return (
        float((a - b).norm() / b.norm().clamp_min(1e-30)) if bool(b.norm() > 0) else float((a - b).norm() > 0)
    )


def _unsteady(c: Comparison, t: int) -> Explanation | None:
    if not c.fits(c.again(t), t):
        return None
    return (
        "the gradient is another one each time it is asked for: model or loss counts its calls, or reads what an "
        "earlier call left",
        "let losses depend on weights, rows and torch's default generator alone",
    )


def _by_their_rows(c: Comparison, t: int) -> Explanation | None:
    entry = c.steps.recording.entries[t]
    if len(entry.rows) == 1 or len(entry.shares):
        return None
    given, sizes = entry.weights, [len(rows) for rows in entry.rows]
    entry.weights = tuple(n / sum(sizes) for n in sizes)
    fits = c.fits(c.again(t), t)
    entry.weights = given
    if not fits:
        return None
    return (
        "micro-batches count by their rows, as in one mean over the rows of the step",
        "pass weights=[len(part) / rows of the step for each part] to tape.step",
    )


def _modes_changed(c: Comparison, t: int) -> Explanation | None:
    first, now = c.steps.recording.module_modes, c.modes.get(t)
    if first is None or now is None or first == now:
        return None
    k = next(k for k, (a, b) in enumerate(zip(first, now, strict=True)) if a != b)
    name = [name for name, _ in c.steps.model.named_modules()][k] or "the model"
    modes = ("evaluation", "training") if first[k] else ("training", "evaluation")
    return (
        f"'{name}' was in {modes[0]} mode at this step, and in {modes[1]} mode at the first",
        "set the modes before the first step, and leave them there during optimiser steps",
    )


def _moved_beside(c: Comparison, t: int) -> Explanation | None:
    recorded, now = (dict(model.named_parameters()) for model in (c.steps.recording.model, c.now))
    beside = [name for name in recorded if name not in set(c.steps.layout.names)]
    name = next((n for n in beside if not torch.equal(recorded[n].cpu(), now[n].cpu())), None)
    if name is None:
        return None
    return (
        f"'{name}' is not trained by the optimiser recorded, and has other values now: another optimiser or the loop "
        "itself moves it",
        "train all parameters by one optimiser, or freeze the others",
    )


def _read_changed(c: Comparison, t: int) -> Explanation | None:
    now = values_read(c.steps.recording.loss)
    name = next((n for n, value in c.read.items() if n in now and now[n] != value), None)
    if name is None:
        return None
    return (
        f"'{name}', which the loss reads, has other values than when the recording began: a counter, a schedule, a "
        "moving average or a teacher that changes along the training",
        "let the loss depend on model and batch alone: give what changes with the steps as a field of the batch, "
        "tape.step(…, batch=batch), or record each phase by itself",
    )


def _hooked(c: Comparison, t: int) -> Explanation | None:
    if c.hooked is None:
        return None
    return (
        f"a hook on '{c.hooked}' (register_hook or register_post_accumulate_grad_hook) changes its gradient, and the "
        "loss is given without it",
        "write what the hook does into the loss or model, where it can be differentiated",
    )


def _scaled(c: Comparison, t: int) -> Explanation | None:
    scale, norm = c.scale(t), float(c.references[t].norm)
    if scale is None:
        return None
    if c.steps.recording.clipping.norm is not None:
        return (
            f"it is the given loss's gradient, clipped to a norm of {norm:.4g}",
            f"pass clip_norm={norm:.4g} to Tape.record",
        )
    scales = {u: c.scale(u) for u in c.checked}
    known = {u: s for u, s in scales.items() if s is not None}
    if len(known) == 1:
        return _scaled_once(scale, norm)
    off = [s for s in known.values() if not _alike(c, [1.0, s])]
    if len(off) == len(known) and _alike(c, off):
        return _scaled_alike(scale)
    clipped = [u for u, s in known.items() if s < 1 - 10 * c.tolerance]
    others = [u for u in known if u not in clipped]
    norms = [float(c.references[u].norm) for u in clipped]
    whole = _alike(c, [1.0, *(known[u] for u in others)])
    below = all(
        float(c.references[u].norm) <= max(norms, default=0.0) * (1 + 10 * c.tolerance) for u in others
    )
    if norms and _alike(c, norms) and whole and below:
        return (
            f"it is the given loss's gradient, never longer than {norm:.4g}: the loop clips the norm of the gradient",
            f"pass clip_norm={norm:.4g} to Tape.record",
        )
    return _scaled_once(scale, norm) if _alike(c, off) else _of_one_size(c, known)


def _of_one_size(c: Comparison, scales: dict[int, float]) -> Explanation | None:
    """Gradients of one size at several steps, by another measure than a limit on the norm: clipped, or normalised."""
    if len(c.coordinates) < c.steps.layout.size:
        return None
    scaled = [u for u, s in scales.items() if not _alike(c, [1.0, s])]
    measures = {1.0: "sum of absolute entries", 2.0: "norm", torch.inf: "largest entry"}
    for order, name in measures.items():
        sizes = [float(c.references[u].gradient.norm(order)) for u in scaled]
        if len(sizes) > 1 and _alike(c, sizes):
            return (
                f"it is the given loss's gradient, scaled so that its {name} is {sizes[0]:.4g}: the loop clips by that "
                "measure, or normalises gradients",
                "clip by the 2-norm and pass clip_norm= to Tape.record, or clip by value and pass clip_value=; as "
                "weights= the scale would count as a constant, which it is not",
            )
    return None


def _scaled_unlike(c: Comparison, t: int) -> Explanation | None:
    if c.scale(t) is None:
        return None
    known = {u: s for u in c.checked if (s := c.scale(u)) is not None}
    shown = ", ".join(f"{s:.4g} at step {u}" for u, s in list(known.items())[:3])
    return (
        f"it is the given loss's gradient times another number at every step ({shown}): the loop's mean is not that of "
        "the batch's rows, but is divided by the sum of their class weights, or by their tokens",
        "pass to each tape.step what the loop multiplies the mean of loss(model, batch) by: weights=[len(ids) / "
        "w[y].sum()] for class weights w, weights=[len(ids) / tokens] for a loss summed over each row's tokens",
    )


def _scaled_once(scale: float, norm: float) -> Explanation:
    if scale < 1:
        return (
            f"it is the given loss's gradient times {scale:.4g}, with norm {norm:.4g}: the loop clips the norm of the "
            "gradient, divides the loss, or divides by the sum of class weights",
            f"pass clip_norm={norm:.4g} to Tape.record if the loop clips there, weights=[{scale:.4g}] to tape.step if "
            "it scales the loss, or weights=[len(ids) / w[y].sum()] for class weights w",
        )
    return _scaled_alike(scale)


def _scaled_alike(scale: float) -> Explanation:
    if scale < 1:
        return (
            f"it is the given loss's gradient times {scale:.4g}, at every step that was looked at: the loop divides "
            "the loss",
            f"pass weights=[{scale:.4g}] to tape.step",
        )
    return (
        f"it is the given loss's gradient times {scale:.4g}: the loop sums over rows, counts gradients of earlier "
        "batches, or does not unscale them before the step",
        f"pass weights=[{scale:.4g}] to tape.step, all ids of accumulated batches, or scaler.unscale_(optimizer)",
    )


def _alike(c: Comparison, numbers: list[float]) -> bool:
    return max(numbers) <= min(numbers) * (1 + 10 * c.tolerance)


def _clipped_by_value(c: Comparison, t: int) -> Explanation | None:
    used = c.references[t].gradient
    largest = used.abs().max()
    if c.steps.recording.clipping.value is not None or not c.fits(c.again(t).clamp(-largest, largest), t):
        return None
    return (
        f"no entry exceeds {float(largest):.4g}, and the others are the same: the loop clips the gradient by value",
        f"pass clip_value={float(largest):.4g} to Tape.record",
    )


def _other_rows(c: Comparison, t: int) -> Explanation | None:
    for other in (t - 1, t + 1):
        if 0 <= other < c.steps.count and c.fits(c.again(t, other), t):
            where = "before" if other < t else "after"
            return (
                f"it is the gradient on the rows named at the step {where}: ids are not the batch's",
                "call tape.step with the ids of the batch that the optimiser has just used",
            )
    return None


def _autocast(c: Comparison, t: int) -> Explanation | None:
    device = c.steps.layout.device.type
    for dtype in (torch.bfloat16, torch.float16):

        def mixed(step: int, dtype: torch.dtype = dtype) -> Tensor:
            with torch.autocast(device, dtype):
                return c.steps.backward(step)

        if (dtype is torch.bfloat16 or device == "cuda") and c.fits(c.again(t, backward=mixed), t):
            return (
                f"it is the gradient under autocast in {dtype}: the loop has autocast outside the loss",
                "put the autocast block inside the loss that is given to Tape.record",
            )
    return None


def _other_mode(c: Comparison, t: int) -> Explanation | None:
    model, training = c.steps.model, c.steps.model.training
    model.train(not training)
    fits = c.fits(c.again(t), t)
    model.train(training)
    if not fits:
        return None
    return (
        f"it is the gradient of the model in {'evaluation' if training else 'training'} mode",
        "set the mode before the first step, and leave it there during optimiser steps",
    )


_ANY_OF_MANY = (
    "another loss than the one given (such as class weights in one of them), ids that are not the batch's, "
    "augmentation of the batch, clipping, a gradient scaler, gradients that the loop edits (masks, noise, clipping "
    "of some layers), or random numbers drawn outside the model's forward pass",
    "compare loss(model, batch) with what the loop descends; pass batch=… to tape.step if rows are augmented, and "
    "clip_norm= or clip_value= to Tape.record if gradients are clipped",
)
_EXPLANATIONS = (
    _hooked, _scaled, _clipped_by_value, _other_rows, _by_their_rows, _autocast, _other_mode, _modes_changed,
    _moved_beside, _read_changed, _scaled_unlike,
)  # fmt: skip
