"""Begin, end and reopen the recording of a training loop."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from finfluence import _files
from finfluence.distributed import Processes
from finfluence.errors import ConfigError, StorageError, explain
from finfluence.grads import Layout, RowLoss
from finfluence.runs.checkpoints import KeptStates, read_tensors
from finfluence.runs.describe import DatasetRows, Rows, RowSource, as_rows
from finfluence.runs.describe.optimizers import KNOWN, kind_of, options_of, steps_taken
from finfluence.runs.record._recorder import Recorder
from finfluence.runs.record._recording_checks import check_clipping, try_out, varies
from finfluence.runs.record._self_check import check_recording
from finfluence.runs.record.sharded import (
    Shards,
    check_sharding,
    is_sharded,
    made_whole,
    refuse_sharded,
    unsharded,
)
from finfluence.runs.steps import (
    Parameters,
    RecordedSteps,
    Recording,
    check_sampling,
    copied,
    fingerprint,
    read_entries,
    trained_names,
    untouched,
)

FORMAT = "finfluence-recording"
VERSION = 1
_HASHED = 64


def start(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: RowLoss,
    data: Any,
    folder: Path | None,
    parameters: Parameters,
    *,
    collate: Callable[[list[Any]], Any] | None,
    clip_norm: float | None,
    clip_value: float | None,
    scaler: object,
    sampling: str,
    steps_per_epoch: int | None,
    snapshot_bytes: int,
    processes: Processes,
) -> Recorder:
    """Return a recorder that watches `optimizer`; see `Tape.record`."""
    check_sampling(sampling, steps_per_epoch)
    check_clipping(clip_norm, clip_value)
    kind, known = kind_of(optimizer)
    check_sharding(model, optimizer, processes)
    names = trained_names(model, optimizer, parameters)
    if folder is not None and (folder / "tape.json").exists():
        raise StorageError(
            explain(
                f"an empty or new folder at {folder}",
                "the tape of another run",
                "the folder was used before",
                "choose another folder, or open that tape with fi.Tape.open",
            )
        )
    sharded = any(map(is_sharded, model.parameters()))
    with untouched(0):
        rows = rows_of(data, collate)
        plain = unsharded(model, made_whole(model, processes)) if sharded else model
        twin = copied(plain, names)
        layout = Layout(twin)
        varying = varies(rows)
        random = try_out(copied(plain, names), loss, rows, layout, varying)
        hashed = data_hash(rows, varying)
    groups = [options_of(g) for g in optimizer.param_groups]
    place = {id(p): k for k, g in enumerate(optimizer.param_groups) for p in g["params"]}
    named = dict(model.named_parameters())
    recording = Recording(
        model=twin, names=names, loss=loss, rows=rows, data=hashed, kind=kind, groups=groups,
        group_of=[place[id(named[name])] for name in names], taken=steps_taken(optimizer), clip_norm=clip_norm,
        clip_value=clip_value, sampling=sampling, steps_per_epoch=steps_per_epoch, random=random,
    )  # fmt: skip
    vectors = 1 + len(known.slots(groups))
    shards = Shards(layout, vectors, processes) if sharded else None
    if shards is None:
        states = KeptStates(vectors * layout.size, layout.dtype, layout.device, folder, snapshot_bytes)
    else:
        width, whole = shards.width, shards.whole_width
        states = KeptStates(width, layout.dtype, layout.device, None, snapshot_bytes, whole)
        twin.cpu()  # until `gather`: the loop needs the room
    recorder = Recorder(model, optimizer, recording, layout, states, folder, scaler, varying, shards)
    if folder is not None:
        _files.write_json(folder / "tape.json", header(recording, layout, None))
    return recorder


def finish(recorder: Recorder) -> RecordedSteps:
    """End the recording, check it, keep the final state; return its steps.

    Raises
    ------
    ConfigError
        Nothing was recorded.
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
        if recorder.folder is not None:
            recorder.write()
        steps = RecordedSteps(recording)
        checked = check_recording(steps, recorder)
        if not as_left:
            _keep_last(steps, recorder.states)
        recording.notes = notes(steps, recorder.skipped, recorder.steps, checked)
        if recorder.folder is not None:
            _write_end(recorder, steps)
    return steps


def reopen(
    folder: Path,
    model: nn.Module,
    loss: RowLoss,
    data: Any,
    collate: Callable[[list[Any]], Any] | None,
    partial: bool,
) -> tuple[RecordedSteps, KeptStates]:
    """Return the steps and states of the recording in `folder`; see `Tape.open`."""
    head = read_header(folder)
    refuse_sharded(model)
    with untouched(0):
        rows = rows_of(data, collate)
        twin = copied_for(model, head, folder)
        layout = Layout(twin)
        now = {"model": fingerprint(twin, head["names"]), "rows": len(rows)}
        if head["data_hash"] is not None:
            now["data_hash"] = data_hash(rows, varies(rows))
        differing = [k for k, v in now.items() if head[k] != v]
        if differing:
            word = {"model": "model", "rows": "data", "data_hash": "data"}[differing[0]]
            raise StorageError(
                explain(
                    f"the {word} that the tape in {folder} was recorded with",
                    f"another {word}",
                    "another checkpoint's frozen weights, another architecture, or rows that changed since",
                    f"pass the same {word} as to Tape.record (trained weights may differ: they come from the tape)",
                )
            )
        known = KNOWN[head["kind"]]
        width = (1 + len(known.slots(head["groups"]))) * layout.size
        states = KeptStates(width, layout.dtype, layout.device, folder, 2**62)
        broken = states.reopen()
        entries, marks, gap = read_entries(folder)
        steps_kept = states.steps
        whole = head["steps"] is not None and len(entries) == head["steps"] and not broken
        if not steps_kept or steps_kept[0] != 0 or not entries or (not whole and not partial):
            cut = ", ".join([*broken, *([gap] if gap else [])])
            first = bool(steps_kept) and steps_kept[0] == 0
            raise StorageError(
                explain(
                    f"a whole tape in {folder}",
                    f"one of {len(entries) if first else 0} whole steps"
                    + (f"; cannot be read: {cut}" if cut else ""),
                    "the training was interrupted before tape.finish(), or files were cut short or removed",
                    "pass partial=True to read it up to its last whole step"
                    if first and entries
                    else "record the training again",
                )
            )
        layout.assign(twin, states[0][: layout.size])
        if whole and (folder / "buffers.safetensors").exists():
            kept = read_tensors(folder / "buffers.safetensors")
            for name, buffer in twin.named_buffers():
                buffer.copy_(kept[name])
        recording = Recording(
            model=twin, names=head["names"], loss=loss, rows=rows, data=head["data_hash"], kind=head["kind"],
            groups=head["groups"], group_of=head["group_of"], taken=head["taken"], clip_norm=head["clip_norm"],
            clip_value=head["clip_value"], sampling=head["sampling"], steps_per_epoch=head["steps_per_epoch"],
            random=head["random"], flags=marks["training"], reached=marks["reached"], entries=entries,
            notes=head["notes"],
        )  # fmt: skip
        steps = RecordedSteps(recording)
        if not whole:
            recording.notes = [
                *notes(steps, 0, len(entries), None),
                f"the recording was not finished: the tape is read up to step {len(entries)}, and was not checked",
            ]
        states.forget_after(len(entries))
        _keep_last(steps, states)
    return steps, states


def copied_for(model: nn.Module, head: dict[str, Any], folder: Path) -> nn.Module:
    """Return a copy of `model` that trains what the tape trained."""
    missing = [name for name in head["names"] if name not in dict(model.named_parameters())]
    if missing:
        raise StorageError(
            explain(
                f"the model that the tape in {folder} was recorded with",
                f"one without parameter '{missing[0]}'",
                "another architecture, or a wrapped model",
                "pass the same model as to Tape.record",
            )
        )
    twin = copied(model, head["names"])
    for name, parameter in twin.named_parameters():
        if name in set(head["names"]) and not parameter.requires_grad:
            raise ConfigError(
                explain(
                    f"parameter '{name}' to require a gradient, as when it was recorded",
                    "a frozen one",
                    "the model was frozen for evaluation",
                    "pass a model in which what was trained requires a gradient",
                )
            )
    return twin


def rows_of(data: Any, collate: Callable[[list[Any]], Any] | None) -> RowSource:
    """Return `data` as rows, put together by `collate` if it is a data set."""
    if collate is not None and not isinstance(data, (Rows, DatasetRows, dict)):
        return DatasetRows(data, collate=collate)
    return as_rows(data)


def data_hash(rows: RowSource, varying: bool) -> str | None:
    """Return a hash of ids and content (of a data set: of 64 items), or None if the content changes."""
    if isinstance(rows, Rows):
        return rows.digest()
    if varying:
        return None
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _HASHED)).astype(np.int64))
    parts = [repr(rows.ids.tolist()).encode()]
    for position in some.tolist():
        for name, value in sorted(rows.batch(torch.tensor([position])).items()):
            parts.append(
                name.encode()
                + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return _files.digest(*parts)


def header(recording: Recording, layout: Layout, steps: int | None) -> dict[str, Any]:
    """Return what a tape on disk says of itself."""
    r = recording
    return {
        "format": FORMAT, "version": VERSION, "steps": steps, "names": r.names, "kind": r.kind, "groups": r.groups,
        "group_of": r.group_of, "taken": r.taken, "clip_norm": r.clip_norm, "clip_value": r.clip_value,
        "sampling": r.sampling, "steps_per_epoch": r.steps_per_epoch, "random": r.random,
        "rows": len(r.rows), "data_hash": r.data, "model": fingerprint(r.model, r.names), "notes": r.notes,
    }  # fmt: skip


def is_recording(folder: Path) -> bool:
    """Whether `folder` holds a recorded loop, not a tape of `train`."""
    try:
        return bool(json.loads((folder / "tape.json").read_text(encoding="utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_header(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of the recording in `folder`, or raise StorageError."""
    path = Path(folder) / "tape.json"
    if is_recording(Path(folder)):
        head: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if head["version"] <= VERSION:
            return head
    raise StorageError(
        explain(
            f"a recorded loop in {folder} (a file tape.json)",
            "a file of another program or version" if path.exists() else "no such file",
            "the path is mistyped, or the tape was made by fi.train",
            "check the path; open a tape of fi.train with its recipe, fi.Tape.open(folder, recipe)",
        )
    )


def notes(steps: RecordedSteps, skipped: int, count: int, checked: list[int] | None) -> list[str]:
    """Return what a reader of the result should know of the recording."""
    found = []
    if checked is not None:
        found.append(
            f"self-check: steps {', '.join(map(str, checked))} of {count} taken again, with the same result"
        )
    if steps.coupled:
        found.append(
            f"batch normalisation in training mode at '{steps.coupled[0]}' couples the rows of a batch: the effect of "
            "a row is that of its own loss with the statistics of its batch; what it does to other rows through the "
            "statistics, and to the running statistics of evaluation, is left out"
        )
    if skipped:
        found.append(f"{skipped} steps that the gradient scaler skipped are left out")
    return found


def _keep_last(steps: RecordedSteps, states: KeptStates) -> None:
    """Keep the state after the last step, recomputed from the last one kept."""
    if steps.count in states:
        return
    first, _ = states.before(steps.count)
    steps.load(first, states[first].to(steps.layout.device))
    for t in range(first, steps.count):
        steps.take(t)
    state = torch.empty(steps.width, dtype=steps.layout.dtype)
    steps.read_into(state)
    states.keep(steps.count, state, last=True)


def _write_end(recorder: Recorder, steps: RecordedSteps) -> None:
    assert recorder.folder is not None
    recorder.states.flush()
    buffers = {k: v.detach().cpu().contiguous().clone() for k, v in steps.recording.model.named_buffers()}
    if buffers:
        with _files.atomic(recorder.folder / "buffers.safetensors") as part:
            save_file(buffers, part)
    _files.write_json(recorder.folder / "tape.json", header(steps.recording, steps.layout, steps.count))
