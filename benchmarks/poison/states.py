"""Gradients of all rows and of what is asked, at states along one recorded run: their products, which scores need."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import finfluence as fi
from finfluence.curvature import Objective, RowsAtHand
from finfluence.runs import gradients, seeded

ASIDE = 1e-8


@dataclass(frozen=True, eq=False)
class States:
    """Products of gradients at C states: of n rows, then of the behaviour and its controls, m vectors in all.

    Attributes
    ----------
    steps : array [C]
    rates : array [C]
        Learning rate of the step before each.
    adam : array [C, m, m]
        Cosines of the vectors after division by √v + 10⁻⁸, v Adam's second moments there.
    less : array [C, n, m − n]
        Cosines of Adam's own step on each row, its momentum in it, with the gradients of what is asked.
    plain : array [C, n, m − n]
        Products of the gradients as they are.
    sizes : array [C, m]
        Their norms.
    """

    steps: np.ndarray
    rates: np.ndarray
    adam: np.ndarray
    less: np.ndarray
    plain: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, tape: fi.Tape, queries: list[fi.Query], counts: Sequence[int]) -> "States":
        """Differentiate every row and query at the ends of so many equal parts of the run, for each of `counts`."""
        steps = sorted({step for count in counts for step in _ends(tape.steps, count)})
        found = [_at(tape, queries, step) for step in steps]
        rates = [tape.rates[step - 1] for step in steps]
        return cls(np.array(steps), np.array(rates), *(np.stack(part) for part in zip(*found, strict=True)))

    def save(self, path: Path) -> None:
        """Write all arrays to one file."""
        np.savez_compressed(path, **{k: v.astype(np.float32) for k, v in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> "States":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            return cls(**{k: kept[k] for k in kept.files})

    def every(self, count: int) -> "States":
        """Return the states at the ends of `count` equal parts alone."""
        taken = np.isin(self.steps, _ends(int(self.steps[-1]), count))
        return States(**{k: v[taken] for k, v in vars(self).items()})

    def kernel(self, ridge: float, *, centred: bool = False) -> np.ndarray:
        """Return (K + λ)⁻¹ k [n, m − n], of rows less their mean if `centred`."""
        whole = self.adam.astype(float).mean(0)
        rows = self.plain.shape[1]
        if centred:
            take = np.eye(len(whole))
            take[:, :rows] -= 1 / rows
            whole = take @ whole @ take.T
        return np.linalg.solve(whole[:rows, :rows] + ridge * np.eye(rows), whole[:rows, rows:])

    def cosines(self) -> np.ndarray:
        """Return the mean over states of the cosines of Adam-scaled gradients [n, m − n]."""
        rows = self.plain.shape[1]
        return self.adam[:, :rows, rows:].astype(float).mean(0)

    def standardised(self) -> np.ndarray:
        """Return the mean of the same cosines, standardised over the rows of each state."""
        rows = self.plain.shape[1]
        found = self.adam[:, :rows, rows:].astype(float)
        return ((found - found.mean(1, keepdims=True)) / found.std(1, keepdims=True)).mean(0)


def residual(scores: np.ndarray) -> np.ndarray:
    """Return the first column [n] less its regression on the others and a constant: what controls do not explain."""
    others = np.column_stack([np.ones(len(scores)), scores[:, 1:]])
    return scores[:, 0] - others @ np.linalg.lstsq(others, scores[:, 0], rcond=None)[0]


def _ends(steps: int, count: int) -> list[int]:
    return [-(-(k + 1) * steps // count) for k in range(count)]


def _by_length(tape: fi.Tape) -> Tensor:
    """Return the rows in the order of their learned tokens: less is padded."""
    counts = [int(tape.batch(torch.tensor([k]))["counts"]) for k in range(len(tape.rows))]
    return torch.tensor(counts).argsort(stable=True)


def _at(tape: fi.Tape, queries: list[fi.Query], step: int) -> tuple[np.ndarray, ...]:
    model, layout = tape.model(step).eval(), tape.layout
    with seeded(0):
        asked = gradients(queries, model, tape, list[Tensor](layout.parameters(model)))[1]
        order = _by_length(tape)
        at_hand = RowsAtHand(len(order), lambda places: tape.batch(order[places]), tape.batch_size)
        found = torch.cat(list(Objective(model, tape.loss, layout, at_hand).row_gradients()))
        rows = found[torch.argsort(order)]
    parts = tape.state(step).view(-1, layout.size)
    slots = list(tape.optimizer.slots)
    mean, square = (parts[1 + slots.index(name)] for name in ("exp_avg", "exp_avg_sq"))
    first, second = tape.describe()["optimizer"]["betas"]
    scaled = normalize(torch.cat([rows, asked]) / (square.sqrt() + ASIDE), dim=1)
    plain, sizes = rows @ asked.T, torch.cat([rows, asked]).norm(dim=1)
    square = second * square + (1 - second) * rows**2
    taken = (first * mean + (1 - first) * rows) / square.add_(ASIDE).sqrt_()
    less = normalize(taken, dim=1) @ normalize(asked, dim=1).T
    return tuple(one.numpy() for one in (scaled @ scaled.T, less, plain, sizes))
