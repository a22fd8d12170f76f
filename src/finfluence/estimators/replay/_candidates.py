"""Rows that training never saw, evaluated along a backward pass: what adding each of them would do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import DataError, explain
from finfluence.estimators.replay._schedule import ROWS_AT_ONCE
from finfluence.grads import Batch, RowLoss, without_graph
from finfluence.runs import Rows, RowSource, Tape


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidate rows, checked against the training rows.

    Parameters
    ----------
    rows : RowSource
        The candidates; in a batch their "id" is −1, as that of any row from outside the training data.
    loss : callable
        The training's.
    device : torch.device
        The parameters'.
    rows_at_once : int
        Evaluated in one batch, as memory allows.
    """

    rows: RowSource
    loss: RowLoss
    device: torch.device
    rows_at_once: int = ROWS_AT_ONCE

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, tape: Tape, t: int) -> Iterator[Batch]:
        """Yield the candidates in batches, under the random state of step t."""
        random = _random_state(tape, t) if tape.stochastic else {}
        for positions in torch.arange(len(self.rows)).split(self.rows_at_once):
            yield {**self._batch(positions), **random}

    def final_losses(self, model: nn.Module) -> np.ndarray:
        """Return each candidate's loss under `model` [m], in evaluation mode."""
        model.eval()
        positions = torch.arange(len(self.rows)).split(self.rows_at_once)
        parts = [without_graph(lambda p=p: self.loss(model, self._batch(p))) for p in positions]  # type: ignore[misc]
        return torch.cat(parts).double().cpu().numpy()

    def _batch(self, positions: Tensor) -> Batch:
        found = {k: v.to(self.device) for k, v in self.rows.batch(positions).items()}
        return {**found, "id": torch.full_like(found["id"], -1)}


def check_candidates(candidates: RowSource, training: RowSource) -> None:
    """Refuse candidates that could not be rows of this training.

    Raises
    ------
    DataError
        None at all, other fields, shapes or types than the training rows have, or an id that one of them has.
    """
    if not len(candidates):
        raise DataError(
            explain(
                "at least one candidate row",
                "none",
                "a selection came out empty",
                "pass the rows that you think of adding, as candidates=fi.Rows(x=…, y=…, ids=…)",
            )
        )
    there, here = _fields(training), _fields(candidates)
    if sorted(there) != sorted(here):
        raise DataError(
            explain(
                f"candidates with the fields of the training rows: {', '.join(sorted(there))}",
                f"{', '.join(sorted(here))}",
                "the candidates were prepared in another way than the training data",
                "prepare them by the same code, and name the fields alike",
            )
        )
    same_shapes = isinstance(training, Rows) and isinstance(candidates, Rows)
    for name, field in sorted(there.items()):
        wanted, found = _kind(field, same_shapes), _kind(here[name], same_shapes)
        if wanted != found:
            raise DataError(
                explain(
                    f"field '{name}' of the candidates like that of the training rows: {wanted}",
                    found,
                    "the candidates were scaled, cut or encoded in another way, or have another precision",
                    "prepare them by the same code; tensors keep their type, NumPy floats become float32",
                )
            )
    twice = np.intersect1d(np.asarray(candidates.ids, dtype=str), np.asarray(training.ids, dtype=str))
    if len(twice):
        raise DataError(
            explain(
                "ids of candidates that no training row has",
                f"{len(twice)} that some have, such as {str(twice[0])!r}",
                "rows without ids are numbered from 0 in both, or candidates are in the training data already",
                "name the candidates: fi.Rows(x=…, y=…, ids=[f'new {k}' for k in range(m)])",
            )
        )


def _fields(rows: RowSource) -> dict[str, Tensor]:
    """Return the fields of the first row, without its position."""
    return {k: v for k, v in rows.batch(torch.zeros(1, dtype=torch.int64)).items() if k != "id"}


def _kind(field: Any, with_shape: bool) -> str:
    shape = f"shape {tuple(field.shape[1:])}" if with_shape else f"{field.ndim - 1} axes"
    return f"{str(field.dtype).removeprefix('torch.')} of {shape}"


def _random_state(tape: Tape, t: int) -> Batch:
    """Return the fields by which a recorded loop tells the random state of step t; none of a recipe's."""
    first = torch.zeros(1, dtype=torch.int64)
    fields = tape.rows.batch(first)
    return {k: v for k, v in tape.batch(first, t).items() if k not in fields}
