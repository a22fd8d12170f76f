"""End the recording of a training loop: check it, and keep what replay needs."""

from collections.abc import Sequence

import torch
from safetensors.torch import save_file

from finfluence import _files
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.runs.checkpoints import ThinningCheckpoints
from finfluence.runs.record._header import write_header
from finfluence.runs.record._irregular_options import irregular_options
from finfluence.runs.record._recorder import Recorder
from finfluence.runs.record._self_check import check_recording
from finfluence.runs.steps import RecordedOptimizer, RecordedSteps, untouched


def finish(recorder: Recorder) -> RecordedSteps:
    """End the recording, check it, keep the final state; return its steps.

    Returns
    -------
    RecordedSteps

    Raises
    ------
    ConfigError
        Nothing was recorded, or frozen parameters were written on meanwhile.
    TrainingError, DataError, NotSupportedError
        The loop cannot be replayed; the message says where and why.
    """
    recording = recorder.recording
    with untouched(0):
        as_left = recorder.finish()
        if not recorder.steps:
            raise ConfigError(
                explain(
                    "a recorded training step",
                    "none",
                    "tape.step was never called",
                    "call tape.step(ids=…) after each optimizer.step()",
                )
            )
        last = list(recorder.model.buffers()) if recorder.last_buffers is None else recorder.last_buffers
        for ours, theirs in zip(recording.model.buffers(), last, strict=True):
            ours.copy_(theirs)
        recorder.write()
        check_options(recording.optimizer, [entry.numbers for entry in recording.entries])
        steps = RecordedSteps(recording)
        steps.check_unchanged(recorder.states[0])
        checked = check_recording(steps, recorder)
        if not as_left:
            keep_last(steps, recorder.states)
        recording.notes = notes(steps, recorder.skipped, checked)
        if not as_left and _moved_since(steps, recorder):
            recording.notes.append(
                "the model's weights were changed after the last step (averaged or earlier ones were loaded, for "
                "instance): queries are asked of the weights that the last step left"
            )
        if recorder.folder is not None:
            _write_end(recorder, steps)
    return steps


def notes(steps: RecordedSteps, skipped: int, checked: str | None) -> list[str]:
    """Return what a reader of the result should know of the recording."""
    lines = [] if checked is None else [checked]
    if steps.batch_dependent:
        lines.append(
            f"batch normalisation in training mode at '{steps.batch_dependent[0]}' couples the rows of a batch: the "
            "effect of a row is that of its own loss with the statistics of its batch; what it does to other rows "
            "through the statistics, and to the running statistics of evaluation, is left out"
        )
    if skipped:
        lines.append(f"{skipped} steps that the gradient scaler skipped are left out")
    irregular = irregular_options(steps.recording.optimizer.rule.numbers, steps.numbers)
    return lines if irregular is None else [*lines, irregular]


def check_options(optimizer: RecordedOptimizer, numbers: Sequence[Sequence[Sequence[float]]]) -> None:
    """Raise unless the options of all steps ask for the buffers that the optimiser had at the start.

    Raises
    ------
    NotSupportedError
    """
    rule, before = optimizer.rule, None
    for t, groups in enumerate(numbers):
        if groups is before:
            continue
        before = groups
        given = [
            {**group, **dict(zip(rule.numbers, values, strict=True))}
            for group, values in zip(optimizer.groups, groups, strict=True)
        ]
        missing = set(rule.slots(given)) - set(optimizer.slots)
        if missing:
            raise NotSupportedError(
                explain(
                    "an optimiser that keeps the same buffers from the first recorded step to the last",
                    f"'{missing.pop()}' from step {t} on",
                    "momentum was 0 at the start and was turned on later",
                    "start with a small momentum instead of 0, or record each phase by itself",
                )
            )


def _moved_since(steps: RecordedSteps, recorder: Recorder) -> bool:
    """Whether the model has other weights now than the last step left."""
    if recorder.shards is not None:
        return False
    named = dict(recorder.model.named_parameters())
    now = torch.cat([named[name].detach().reshape(-1) for name in recorder.recording.names])
    left = recorder.states[steps.count].to(now.device)[: len(now)]
    return not torch.allclose(now.to(left.dtype), left, rtol=1e-4, atol=1e-6)


def keep_last(steps: RecordedSteps, states: ThinningCheckpoints) -> None:
    """Keep the state after the last step, recomputed from the last one kept."""
    if steps.count in states:
        return
    first, _ = states.before(steps.count)
    steps.set_state(first, states[first].to(steps.layout.device))
    for t in range(first, steps.count):
        steps.run_step(t)
    state = torch.empty(steps.width, dtype=steps.layout.dtype)
    steps.get_state(state)
    states.keep(steps.count, state, last=True)


def _write_end(recorder: Recorder, steps: RecordedSteps) -> None:
    assert recorder.folder is not None
    recorder.states.flush()
    buffers = {k: v.detach().cpu().contiguous().clone() for k, v in steps.recording.model.named_buffers()}
    if buffers:
        with _files.atomic(recorder.folder / "buffers.safetensors") as part:
            save_file(buffers, part)
    write_header(recorder.folder, steps.recording, steps.count)
