"""Tape: what one training run leaves behind, enough to walk it backwards."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence import _files
from finfluence.errors import StorageError, explain
from finfluence.runs._recipe import Recipe
from finfluence.runs._snapshots import Snapshots
from finfluence.runs._stepper import Stepper, initial_model, seeded

FORMAT = "finfluence-tape"
VERSION = 1


class Tape:
    """The states of one run: every k-th is kept, the others are recomputed bit for bit.

    A state is the flat vector [θ | optimiser slots] before a step. Made by `train`; read by `replay`.

    Attributes
    ----------
    recipe : Recipe
    init_seed, order_seed : int
    every : int
        k, the spacing of kept states.
    order : list of Tensor
        Row positions of each step.
    memo : dict
        What estimators work out once for this tape, such as traced graphs; never saved.
    """

    def __init__(
        self, recipe: Recipe, init_seed: int, order_seed: int, every: int, folder: Path | None
    ) -> None:
        self.recipe = recipe
        self.init_seed = init_seed
        self.order_seed = order_seed
        self.every = every
        self.folder = folder
        self.order = recipe.order(order_seed)
        self.stepper = Stepper(recipe, initial_model(recipe, init_seed), order_seed)
        self.memo: dict[str, Any] = {}
        self.snapshots = Snapshots(self.stepper.width, self.stepper.layout.dtype, folder)

    @property
    def steps(self) -> int:
        """Number of optimiser steps T."""
        return len(self.order)

    @property
    def finished(self) -> bool:
        """Whether the run has reached its last step."""
        return len(self.snapshots) == self.kept_steps

    @property
    def kept_steps(self) -> int:
        """Number of states a whole tape keeps: s_0, s_k, … and the final s_T."""
        return -(-self.steps // self.every) + 1

    @property
    def losses(self) -> np.ndarray:
        """Mean batch loss before each step [T]."""
        return torch.stack(self.snapshots.losses).double().numpy()

    def final_state(self) -> Tensor:
        """Return s_T."""
        return self.snapshots[self.kept_steps - 1]

    def segment(self, index: int) -> tuple[int, Tensor]:
        """Return (first step, states [m, width] before each of the m steps) of the index-th segment."""
        first = index * self.every
        count = min(self.every, self.steps - first)
        start = self.snapshots[index]
        if count == 1:
            return first, start.unsqueeze(0)
        states = torch.empty(count, self.stepper.width, dtype=self.stepper.layout.dtype)
        states[0] = start
        self.stepper.load(first, start.to(self.stepper.layout.device))
        with seeded(0):
            for offset in range(1, count):
                self.stepper.step(first + offset - 1, self.order[first + offset - 1])
                self.stepper.read_into(states[offset])
        return first, states

    def model(self, step: int | None = None) -> nn.Module:
        """Return a fresh copy of the model as it was before `step` (default: after the last)."""
        model = initial_model(self.recipe, self.init_seed)
        self.stepper.layout.assign(model, self.state(step)[: self.stepper.layout.size])
        return model

    def state(self, step: int | None = None) -> Tensor:
        """Return the state before `step` (default: the final one)."""
        if step is None or step == self.steps:
            return self.final_state()
        first, states = self.segment(step // self.every)
        return states[step - first]

    def header(self) -> dict[str, Any]:
        """Return what identifies the run."""
        initial = self.stepper.layout.theta(initial_model(self.recipe, self.init_seed)).cpu()
        return {
            "format": FORMAT,
            "version": VERSION,
            "recipe": self.recipe.describe(),
            "initial_weights": _files.digest(initial.view(torch.uint8).numpy().tobytes()),
            "init_seed": self.init_seed,
            "order_seed": self.order_seed,
            "every": self.every,
            "steps": self.steps,
        }

    @classmethod
    def open(cls, folder: str | os.PathLike[str], recipe: Recipe) -> "Tape":
        """Open the tape in `folder`, made from `recipe`.

        Raises
        ------
        StorageError
            No tape there, a tape of another recipe, or an unfinished one.
        """
        tape = resume(Path(folder), recipe)
        if not tape.finished:
            done = max(0, len(tape.snapshots) - 1) * tape.every
            raise StorageError(
                explain(
                    f"a finished tape in {folder}",
                    f"one that ends after {done} of {tape.steps} steps",
                    "the training was interrupted, or files of the tape were removed",
                    "finish it: fi.train(recipe, out=…, resume=True) goes on where it stopped",
                )
            )
        return tape


def resume(folder: Path, recipe: Recipe) -> Tape:
    """Return the tape in `folder` as far as it got."""
    header = read_header(folder)
    tape = Tape(recipe, header["init_seed"], header["order_seed"], header["every"], folder)
    differing = differences(header, tape.header())
    if differing:
        raise StorageError(
            explain(
                f"the recipe that made the tape in {folder}",
                f"another one: {'; '.join(differing)}",
                "data, model or options changed since the tape was made",
                "use the original recipe, or train into a new folder",
            )
        )
    tape.snapshots.reopen()
    return tape


def read_header(folder: Path) -> dict[str, Any]:
    """Return the header of the tape in `folder`, or raise StorageError."""
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
