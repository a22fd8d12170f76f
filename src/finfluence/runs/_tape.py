"""Tape: what one training run leaves behind, enough to walk it backwards."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence import _files
from finfluence.errors import StorageError, explain
from finfluence.grads import Batch
from finfluence.runs._recipe import Recipe
from finfluence.runs._recipe_steps import RecipeSteps
from finfluence.runs._snapshots import Snapshots
from finfluence.runs._stepper import Stepper, seeded
from finfluence.runs._steps import Step

FORMAT = "finfluence-tape"
VERSION = 1


class Tape:
    """The states of one run: some are kept, the others are recomputed bit for bit.

    A state is the flat vector [θ | optimiser slots] before a step. Made by `train`; read by `replay`.

    Attributes
    ----------
    rows, loss : training rows and the loss of each, `loss(model, batch) -> Tensor[B]`
    layout : Layout
        Where the trained parameters lie in θ.
    optimizer : Update
        The functional update of a step.
    epochs : sequence of range
        The steps of each pass over the rows; they may differ in length.
    noise : tuple of float
        Σ of squared learning rates of each epoch, up to one common factor.
    reshuffled : bool
        Within an epoch no row is drawn twice; otherwise every batch is drawn anew from all rows.
    stochastic : bool
        The loss draws random numbers (dropout).
    seed : int
        Where estimators take their own randomness from, unless told otherwise.
    memo : dict
        What estimators work out once for this tape, such as traced graphs; never saved.
    """

    def __init__(self, run: RecipeSteps, every: int, folder: Path | None) -> None:
        self._run = run
        self.every = every
        self.folder = folder
        self.memo: dict[str, Any] = {}
        self.snapshots = Snapshots(run.width, run.layout.dtype, folder)
        self.rows, self.loss, self.step_loss = run.rows, run.loss, run.step_loss
        self.working, self.layout, self.optimizer = run.model, run.layout, run.optimizer
        self.stochastic, self.reshuffled = run.stochastic, run.reshuffled
        self.seed = run.order_seed

    @property
    def steps(self) -> int:
        """Number of optimiser steps T."""
        return self._run.count

    @property
    def batch_size(self) -> int:
        """Rows of an ordinary step."""
        return self._run.batch_size

    @property
    def epochs(self) -> Sequence[range]:
        """The steps of each epoch."""
        return self._run.epochs

    @property
    def noise(self) -> tuple[float, ...]:
        """Σ of squared learning rates of each epoch, up to one common factor."""
        return self._run.noise

    def at(self, t: int) -> Step:
        """Return step t: its rows, their batch, the optimiser's numbers and the random state."""
        return self._run.at(t)

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return the rows at these positions on the parameters' device, with the random state of step t."""
        return self._run.batch(positions, t)

    def describe(self) -> dict[str, Any]:
        """Return what every run of this training has in common, as plain values."""
        return self._run.describe()

    def digest(self) -> str:
        """Return a hash of `describe()`."""
        return self._run.digest()

    def identity(self) -> dict[str, Any]:
        """Return what tells this run from others of the same training, such as its seeds."""
        return self._run.identity()

    def uncovered(self) -> list[str]:
        """Name the randomness of training that this run does not show."""
        return self._run.uncovered()

    @property
    def recipe(self) -> Recipe:
        """The recipe that `train` followed."""
        return self._run.recipe

    @property
    def stepper(self) -> Stepper:
        """What takes the recipe's steps."""
        return self._run.stepper

    @property
    def order(self) -> list[Tensor]:
        """Row positions of each step."""
        return self._run.order

    @property
    def init_seed(self) -> int:
        """Seed of the initialisation."""
        return self._run.init_seed

    @property
    def order_seed(self) -> int:
        """Seed of the batch order."""
        return self._run.order_seed

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
        states = torch.empty(count, self._run.width, dtype=self.layout.dtype)
        states[0] = start
        self._run.load(first, start.to(self.layout.device))
        with seeded(0):
            for offset in range(1, count):
                self._run.take(first + offset - 1)
                self._run.read_into(states[offset])
        return first, states

    def segment_of(self, t: int) -> tuple[int, Tensor]:
        """Return (first step, states) of the segment that holds step t."""
        return self.segment(t // self.every)

    def model(self, step: int | None = None) -> nn.Module:
        """Return a fresh copy of the model as it was before `step` (default: after the last)."""
        model = self._run.initial_model()
        self.layout.assign(model, self.state(step)[: self.layout.size])
        return model

    def state(self, step: int | None = None) -> Tensor:
        """Return the state before `step` (default: the final one)."""
        if step is None or step == self.steps:
            return self.final_state()
        first, states = self.segment_of(step)
        return states[step - first]

    def header(self) -> dict[str, Any]:
        """Return what identifies the run."""
        initial = self.layout.theta(self._run.initial_model()).cpu()
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
    run = RecipeSteps(recipe, header["init_seed"], header["order_seed"])
    tape = Tape(run, header["every"], folder)
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
