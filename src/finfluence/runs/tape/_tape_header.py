"""What a tape of `train` says of itself on disk."""

import json
from pathlib import Path
from typing import Any

import torch

from finfluence import _files
from finfluence.errors import StorageError, explain
from finfluence.runs.steps import RecipeSteps

FORMAT = "finfluence-tape"
VERSION = 1


def header_of(run: RecipeSteps, interval: int) -> dict[str, Any]:
    """Return what identifies the run of a recipe."""
    initial = run.layout.theta(run.initial_model()).cpu()
    return {
        "format": FORMAT,
        "version": VERSION,
        "recipe": run.recipe.describe(),
        "initial_weights": _files.digest(initial.view(torch.uint8).numpy().tobytes()),
        "init_seed": run.init_seed,
        "order_seed": run.order_seed,
        "every": interval,
        "steps": run.count,
    }


def read_header(folder: Path) -> dict[str, Any]:
    """Return the header of the tape in `folder`.

    Returns
    -------
    dict[str, Any]

    Raises
    ------
    StorageError
        There is none, or one of another program or of a later version.
    """  # noqa: DOC501 - caught here
    path = folder / "tape.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["format"] != FORMAT or header["version"] > VERSION:
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            explain(
                f"a tape in {folder} (a file tape.json)",
                "no such file"
                if isinstance(error, FileNotFoundError)
                else "a file of another program or version",
                "the path is mistyped, or the training never started",
                "check the path, or make a tape with fi.train(recipe, out=…)",
            )
        ) from error
    return header


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what differs between two headers, in words."""
    flat_was = {**was, **was["recipe"]}
    flat_now = {**now, **now["recipe"]}
    skip = {"recipe", "version", "loss", "model"}
    return [
        f"{k}: {flat_was.get(k)!r} then, {flat_now[k]!r} now"
        for k in flat_now
        if k not in skip and flat_was.get(k) != flat_now[k]
    ]
