"""What a recorded loop on disk says of itself, and what tells its data from others."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finfluence import _files
from finfluence.errors import StorageError, explain
from finfluence.runs.describe import Rows, RowSource, loss_options
from finfluence.runs.steps import Recording, fingerprint

FORMAT = "finfluence-recording"
VERSION = 1
_HASHED = 64


def header(recording: Recording, steps: int | None) -> dict[str, Any]:
    """Return what a tape on disk says of itself; `steps` is None while it is recorded."""
    r, o = recording, recording.optimizer
    return {
        "format": FORMAT, "version": VERSION, "steps": steps, "names": r.names, "kind": o.rule.name,
        "groups": o.groups, "group_of": o.group_of, "taken": o.steps_done, "clip_norm": r.clipping.norm,
        "clip_value": r.clipping.value, "sampling": r.sampling.kind, "steps_per_epoch": r.sampling.steps_per_epoch,
        "random": r.random, "rows": len(r.rows), "data_hash": r.data, "model": fingerprint(r.model, r.names),
        "loss": loss_options(r.loss), "notes": r.notes, "precision": None if r.precision is None else str(r.precision),
    }  # fmt: skip


def write_header(folder: Path, recording: Recording, steps: int | None) -> None:
    """Write the header into `folder`."""
    _files.write_json(folder / "tape.json", header(recording, steps))


def check_new(folder: Path | None) -> None:
    """Raise if `folder` holds a tape.

    Raises
    ------
    StorageError
    """
    if folder is not None and (folder / "tape.json").exists():
        raise StorageError(
            explain(
                f"an empty or new folder at {folder}",
                "the tape of another run",
                "the folder was used before",
                "choose another folder, or open that tape with fi.Tape.open",
            )
        )


def read_header(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of the recording in `folder`.

    Returns
    -------
    dict[str, Any]

    Raises
    ------
    StorageError
        There is none, or one of a later version.
    """
    path = Path(folder) / "tape.json"
    if _is_recording(path):
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
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            parts.append(name.encode() + content.numpy().tobytes())
    return _files.digest(*parts)


def _is_recording(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False
