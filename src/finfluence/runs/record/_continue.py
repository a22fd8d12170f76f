"""Go on with a recording where the loop had saved its own checkpoint: marks in the folder, and the way back to one."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from finfluence import _files
from finfluence.errors import ConfigError, NotSupportedError, StorageError, explain
from finfluence.runs.checkpoints import read_tensors
from finfluence.runs.describe.optimizers import rule_named
from finfluence.runs.record._header import header, read_header, write_header
from finfluence.runs.record._recorder import Recorder, ReferenceSample
from finfluence.runs.steps import RecordedOptimizer, cut_entries, read_entries

_MARKS, _SAMPLES = "marks.json", "samples.safetensors"
_FIELDS = ("gradient", "norm", "after", "later")
_SAME = {
    "names": "trained parameters", "kind": "optimiser", "group_of": "parameter groups", "clip_norm": "clip_norm",
    "clip_value": "clip_value", "sampling": "sampling", "steps_per_epoch": "steps_per_epoch", "random": "dropout",
    "rows": "data", "data_hash": "data", "model": "model",
    "loss": "loss",
}  # fmt: skip


def save(recorder: Recorder) -> None:
    """Write all that is recorded, and mark the step, so that the recording can go on from it.

    Raises
    ------
    ConfigError
        No folder, or no step yet.
    TrainingError
        A step whose rows have not been named.
    """
    folder = recorder.folder
    if folder is None or not recorder.steps:
        raise ConfigError(
            explain(
                "a recording with out=, and a step of it, before tape.save()",
                "no folder" if folder is None else "no step",
                "the tape is kept in memory"
                if folder is None
                else "tape.save() comes before the first tape.step()",
                'pass Tape.record(…, out="folder")'
                if folder is None
                else "call it where the loop saves a checkpoint",
            )
        )
    recorder.between_steps()
    recorder.write()
    samples = {
        f"{name}/{t}": value.cpu()
        for t, sample in recorder.references.items()
        for name in _FIELDS
        if (value := getattr(sample, name)) is not None
    }
    with _files.atomic(folder / _SAMPLES) as part:
        save_file(samples, part)
    every, pinned = recorder.states.plan
    mark = {
        "step": recorder.steps, "state": _digest(recorder), "every": every, "pinned": pinned,
        "skipped": recorder.skipped,
    }  # fmt: skip
    marks = [m for m in _marks(folder) if m["step"] < recorder.steps]
    _files.write_json(folder / _MARKS, [*marks, mark])


def go_on(recorder: Recorder, step: int) -> None:
    """Take up what the folder holds of the steps before `step`; later ones are removed from it.

    Raises
    ------
    StorageError
        Another recording, none that was saved at this step, or a loop whose state is another one.
    ConfigError
        No folder.
    """  # noqa: DOC501 - made by a function
    folder = recorder.folder
    if folder is None:
        raise ConfigError(
            explain(
                "a folder, to go on with the tape in it",
                f"resume_at={step} without out=",
                "the tape of the steps before was kept in memory, or not at all",
                "pass the folder that was given when the recording began, Tape.record(…, out=…, resume_at=…)",
            )
        )
    head = read_header(folder)
    _check_same(recorder, head, folder)
    mark = next((m for m in _marks(folder) if m["step"] == step), None)
    if mark is None:
        raise _unmarked(folder, step)
    if mark["state"] != _digest(recorder):
        raise StorageError(
            explain(
                f"model and optimiser as they were when the tape in {folder} was saved at step {step}",
                "others",
                "the checkpoint is of another training, its weights were rounded when they were saved, or the "
                "optimiser's state was not loaded",
                "resume from the checkpoint that was saved with the tape, with the optimiser's state; or record a new "
                "training into another folder",
            )
        )
    entries, flags, _ = read_entries(folder)
    broken = recorder.states.go_on(step, mark["every"], mark["pinned"])
    if len(entries) < step or 0 not in recorder.states:
        raise _unmarked(folder, step, *broken)
    cut_entries(folder, step)
    recording = recorder.recording
    recording.entries = entries[:step]
    recording.module_modes, recording.has_grad = flags.module_modes, flags.has_grad
    recording.optimizer = RecordedOptimizer(
        rule_named(head["kind"]), head["groups"], head["group_of"], head["taken"]
    )
    recorder.layout.assign(recording.model, recorder.states[0][: recorder.layout.size])
    recorder.skipped, recorder.written = mark["skipped"], step
    recorder.references = _samples(folder, step, recorder.layout.device)
    write_header(folder, recording, None)
    _files.write_json(folder / _MARKS, [m for m in _marks(folder) if m["step"] <= step])


def check_alone(processes: int, sharded: bool) -> None:
    """Raise unless the loop runs in one process.

    Raises
    ------
    NotSupportedError
    """
    if processes > 1 or sharded:
        raise NotSupportedError(
            explain(
                "one process, to save a recording and go on with it",
                f"{processes} processes" if processes > 1 else "a sharded model",
                "rows and states of the other processes are not in the folder before tape.gather()",
                "record such a training from its first step to its last",
            )
        )


def _digest(recorder: Recorder) -> str:
    state = recorder.state()
    if isinstance(state, torch.Tensor):
        state = bytearray(state.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return _files.digest(bytes(state))


def _marks(folder: Path) -> list[dict[str, Any]]:
    path = folder / _MARKS
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def _samples(folder: Path, step: int, device: torch.device) -> dict[int, ReferenceSample]:
    tensors = {k: v.to(device) for k, v in read_tensors(folder / _SAMPLES).items()}
    steps = sorted({int(name.split("/")[1]) for name in tensors})
    return {
        t: ReferenceSample(*(tensors.get(f"{name}/{t}") for name in _FIELDS))  # type: ignore[arg-type]
        for t in steps
        if t < step
    }


def _check_same(recorder: Recorder, head: dict[str, Any], folder: Path) -> None:
    now = json.loads(json.dumps(header(recorder.recording, None)))
    differing = [word for key, word in _SAME.items() if now[key] != head.get(key, now[key])]
    if differing:
        raise StorageError(
            explain(
                f"the loop that the tape in {folder} was recorded of",
                f"one with another {differing[0]}",
                "data, model, optimiser or options changed since, or the folder is of another training",
                "resume with what the recording began with, or record a new training into another folder",
            )
        )


def _unmarked(folder: Path, step: int, *broken: str) -> StorageError:
    at = [str(m["step"]) for m in _marks(folder)]
    return StorageError(
        explain(
            f"a tape in {folder} that was saved at step {step}",
            f"files that cannot be read: {', '.join(broken)}"
            if broken
            else f"one saved at {', '.join(at[-5:]) or 'no step'}",
            "the checkpoint was saved without the tape (TapeCallback's folder, tape.save()), or the folder is of "
            "another training",
            "resume from a checkpoint that was saved with the tape, or record a new training into another folder",
        )
    )
