"""Open the recording of a training loop that a folder holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from finfluence.errors import ConfigError, StorageError, explain
from finfluence.grads import Layout, RowLoss
from finfluence.runs.checkpoints import ThinningCheckpoints, read_tensors
from finfluence.runs.describe import RowSource, loss_options, rows_checksums, varies
from finfluence.runs.describe.optimizers import rule_named
from finfluence.runs.record._finish import keep_last, notes
from finfluence.runs.record._header import data_hash, read_header
from finfluence.runs.record._start import rows_of
from finfluence.runs.record.sharded import refuse_sharded
from finfluence.runs.steps import (
    Clipping,
    Entry,
    RecordedOptimizer,
    RecordedSteps,
    Recording,
    Sampling,
    copied,
    fingerprint,
    frozen_checksums,
    precision_named,
    read_entries,
    untouched,
)


def reopen(
    folder: Path,
    model: nn.Module,
    loss: RowLoss,
    data: Any,
    collate: Callable[[list[Any]], Any] | None,
    partial: bool,
) -> tuple[RecordedSteps, ThinningCheckpoints]:
    """Return the steps and states of the recording in `folder`; see `Tape.open`."""
    head = read_header(folder)
    refuse_sharded(model)
    with untouched(0):
        rows = rows_of(data, collate)
        twin = _copied_for(model, head, folder)
        _check_same(head, twin, rows, folder)
        _check_loss(head, loss, folder)
        layout = Layout(twin)
        groups = head["groups"]
        optimizer = RecordedOptimizer(rule_named(head["kind"]), groups, head["group_of"], head["taken"])
        width = (1 + len(optimizer.slots)) * layout.size
        states = ThinningCheckpoints(width, layout.dtype, layout.device, folder, 2**62)
        broken = states.reopen()
        entries, flags, gap = read_entries(folder)
        whole = head["steps"] is not None and len(entries) == head["steps"] and not broken
        if 0 not in states or not entries or (not whole and not partial):
            raise _not_whole(folder, entries if 0 in states else [], [*broken, *([gap] if gap else [])])
        layout.assign(twin, states[0][: layout.size])
        if whole and (folder / "buffers.safetensors").exists():
            kept = read_tensors(folder / "buffers.safetensors")
            for name, buffer in twin.named_buffers():
                buffer.copy_(kept[name])
        recording = Recording(
            twin, head["names"], loss, rows, head["data_hash"], optimizer,
            Clipping(head["clip_norm"], head["clip_value"]), Sampling(head["sampling"], head["steps_per_epoch"]),
            head["random"], {"frozen": frozen_checksums(twin), "data": rows_checksums(rows)}, flags.module_modes,
            flags.has_grad, entries, head["notes"], precision=precision_named(head.get("precision")),
        )  # fmt: skip
        steps = RecordedSteps(recording)
        if not whole:
            recording.notes = [
                *notes(steps, 0, None),
                f"the recording was not finished: the tape is read up to step {len(entries)}, and was not checked",
            ]
        states.forget_after(len(entries))
        keep_last(steps, states)
    return steps, states


def _check_same(head: dict[str, Any], twin: nn.Module, rows: RowSource, folder: Path) -> None:
    """Raise unless model and rows are those of the recording."""
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


def _check_loss(head: dict[str, Any], loss: RowLoss, folder: Path) -> None:
    """Raise if the loss, or what it was recorded with, is known to have other numbers."""
    then, now = head.get("loss"), loss_options(loss)
    if "loss" in head and then != now:
        raise StorageError(
            explain(
                f"the loss that the tape in {folder} was recorded with ({then or 'one without options'})",
                now or "one without options",
                "options of the training that change its loss are not those of the recording",
                "pass the same loss as to Tape.record, or make the trainer with the same arguments",
            )
        )


def _not_whole(folder: Path, entries: list[Entry], broken: list[str]) -> StorageError:
    return StorageError(
        explain(
            f"a whole tape in {folder}",
            f"one of {len(entries)} whole steps"
            + (f"; cannot be read: {', '.join(broken)}" if broken else ""),
            "the training was interrupted before tape.finish(), or files were cut short or removed",
            "pass partial=True to read it up to its last whole step"
            if entries
            else "record the training again",
        )
    )


def _copied_for(model: nn.Module, head: dict[str, Any], folder: Path) -> nn.Module:
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
