"""Unlearning: steps from the end of a run that raise a loss."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._seeds import stream
from finfluence.errors import TrainingError, explain
from finfluence.estimators._base import check_choice, check_number, check_whole
from finfluence.estimators._one_run import id_order
from finfluence.runs import Tape, seeded

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True, kw_only=True)
class AscentOptions:
    """Options of an estimator that unlearns.

    Parameters
    ----------
    steps : int, optional
        Of ascent; unless given, one pass over the rows to be unlearnt, and one step for a query.
    rate : float, optional
        Learning rate of the ascent; the mean of the run's unless given.
    optimizer : {"sgd", "adam"}
        What takes the steps, with a fresh state; of Adam, all steps are about as long as the rate.
    controls : int
        Sets of as many random rows, whose ascents are compared with.
    seed : int
        Of batches and controls.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    steps: int | None = None
    rate: float | None = None
    optimizer: str = "sgd"
    controls: int = 8
    seed: int = 0
    rows_at_once: int = 1024

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_whole("steps", self.steps)
        if self.rate is not None:
            check_number("rate", self.rate, above=0.0)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_whole("controls", self.controls, 2)
        check_whole("seed", self.seed, 0)
        check_whole("rows_at_once", self.rows_at_once)


class Ascent:
    """Ascents from the end of one run.

    Parameters
    ----------
    tape : Tape
    options : AscentOptions
    """

    def __init__(self, tape: Tape, options: AscentOptions) -> None:
        self.tape, self.options = tape, options
        self.model: nn.Module = tape.model().eval()
        self.start = tape.layout.theta(self.model)
        self.rate = float(np.mean(tape.rates)) if options.rate is None else options.rate
        self._order = id_order(tape)
        self._rank = np.empty(len(self._order), dtype=np.int64)
        self._rank[self._order] = np.arange(len(self._order))

    def steps_for(self, rows: int) -> int:
        """Return how many steps unlearn so many rows: as asked, or one pass over them."""
        return self.options.steps or -(-rows // self.tape.batch_size)

    def climb(self, gradient: Callable[[int], Tensor], steps: int) -> nn.Module:
        """Return the model after so many steps along `gradient(step)` [P] at the model's parameters; one model for all.

        Returns
        -------
        nn.Module

        Raises
        ------
        TrainingError
            The parameters are no longer finite.
        """
        theta = self.start.clone().requires_grad_()
        made = torch.optim.SGD if self.options.optimizer == "sgd" else torch.optim.Adam
        optimizer = made([theta], lr=self.rate, maximize=True)
        for step in range(steps):
            self.tape.layout.assign(self.model, theta.detach())
            with seeded(0):
                theta.grad = gradient(step)
            optimizer.step()
        if not bool(torch.isfinite(theta).all()):
            raise TrainingError(
                explain(
                    "parameters that stay finite while a loss is raised",
                    f"infinite ones after {steps} steps of rate {self.rate:g}",
                    "a loss without a bound was raised too far",
                    f"pass rate={self.rate / 10:g}, or fewer steps",
                )
            )
        self.tape.layout.assign(self.model, theta.detach())
        return self.model

    def unlearn(self, rows: np.ndarray) -> nn.Module:
        """Return the model after steps that raise the mean loss of batches of these rows, in evaluation mode."""
        ranked = self._order[np.sort(self._rank[rows])]
        size, steps = min(len(ranked), self.tape.batch_size), self.steps_for(len(ranked))
        rng = stream(self.options.seed, "unlearning", len(ranked))
        turns = [rng.permutation(len(ranked)) for _ in range(-(-steps * size // len(ranked)))]
        batches = ranked[np.concatenate(turns)]

        def gradient(step: int) -> Tensor:
            positions = torch.from_numpy(batches[step * size : (step + 1) * size].copy())
            parameters = self.tape.layout.parameters(self.model)
            with torch.enable_grad():
                loss = self.tape.loss(self.model, self.tape.batch(positions)).mean()
                parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
            return self.tape.layout.flatten(filled)

        return self.climb(gradient, steps)

    def control_rows(self, size: int) -> list[np.ndarray]:
        """Return sets of `size` random rows, by position; they do not depend on where rows stand."""
        return [
            self._order[stream(self.options.seed, "controls", size, k).permutation(len(self._order))[:size]]
            for k in range(self.options.controls)
        ]

    def control_ids(self) -> list[object]:
        """Return the ids of as many different random rows; they do not depend on where rows stand."""
        drawn = stream(self.options.seed, "control rows").permutation(len(self._order))[
            : self.options.controls
        ]
        found: list[object] = self.tape.rows.ids[self._order[drawn]].tolist()
        return found
