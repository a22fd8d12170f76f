"""A trained head in a file: tensors as safetensors, what it is in their metadata."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from finfluence._files import atomic
from finfluence.errors import StorageError, explain
from finfluence.mitigate._heads import HEADS, Head, untrained

_FORMAT, _VERSION, _KEY = "finfluence-head", 1, "head"


def save_head(head: Head, path: str | os.PathLike[str]) -> None:
    """Write a head as one safetensors file, atomically.

    Parameters
    ----------
    head : Head
    path : path

    Raises
    ------
    StorageError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from finfluence.mitigate import nmtune
    >>> rng = np.random.default_rng(0)
    >>> head = nmtune(rng.normal(size=(40, 3)), ["a", "b"] * 20, kind="linear")
    >>> path = Path(tempfile.mkdtemp()) / "head.safetensors"
    >>> save_head(head, path)
    >>> bool((load_head(path).predict_proba([[0, 0, 1.0]]) == head.predict_proba([[0, 0, 1.0]])).all())
    True
    """
    tensors = {f"module.{name}": value.contiguous() for name, value in head.module.state_dict().items()}
    tensors |= {"mean": head.mean, "scale": head.scale, "losses": torch.from_numpy(head.losses.copy())}
    classes = [value.item() if isinstance(value, np.generic) else value for value in head.classes]
    about = {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": head.kind,
        "classes": classes,
        "dtype": head.classes.dtype.str,
    }
    with atomic(Path(path)) as part:
        save_file(tensors, part, metadata={_KEY: json.dumps(about)})  # one key: their order is not fixed


def load_head(path: str | os.PathLike[str]) -> Head:
    """Return the head that `save_head` wrote.

    Returns
    -------
    Head
        With the same predictions, bit for bit.

    Raises
    ------
    StorageError
        No such file, or not one of a head.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        kind = _kind(about)
        classes = np.array(about["classes"], dtype=np.dtype(about["dtype"]))
        mean, scale, losses = (tensors.pop(name) for name in ("mean", "scale", "losses"))
        module = untrained(kind, len(mean), len(classes), 0)
        module.load_state_dict({name.removeprefix("module."): value for name, value in tensors.items()})
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise StorageError(
            explain(
                f"a head of finfluence at {path}",
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'nothing'}",
                "another file, a later version, or a copy that was cut short",
                "name the head.safetensors that finfluence mitigate or save_head wrote",
            )
        ) from error
    module.eval()
    return Head(kind, classes, module, mean, scale, losses.numpy())


def _kind(about: dict[str, Any]) -> str:
    """Return the kind of head that metadata tell of; KeyError if they do not."""
    if (about["format"], about["version"]) != (_FORMAT, _VERSION) or about["kind"] not in HEADS:
        raise KeyError(f"another format: {about}")
    return str(about["kind"])
