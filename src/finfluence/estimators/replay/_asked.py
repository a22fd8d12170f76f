"""The queries of a replay: values of all of them, gradients of few at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._clock import clock
from finfluence.distributed import Processes
from finfluence.estimators.derivatives import checked_values, query_gradients
from finfluence.estimators.replay._activations import activation_bytes
from finfluence.grads import generator_states
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.tape import Key, final_losses

FEWEST, SHARE, MOST_ROWS = 2, 8, 1024


@dataclass(eq=False)
class AskedQueries:
    """The queries, and what is known of them at the end of training.

    Parameters
    ----------
    tape : Tape
    queries : list of Query
    model : nn.Module
        A working copy, overwritten.
    values : array [Q]
    losses : array [n]
        Of the training rows.
    seconds : float
        What values and gradients of all queries take.
    drawing : list of str
        Names of queries that draw random numbers.
    """

    tape: Tape
    queries: Sequence[AnyQuery]
    model: nn.Module
    values: np.ndarray
    losses: np.ndarray
    seconds: float = 0.0
    drawing: list[str] = field(default_factory=list)
    _unmoved: dict[int, str] = field(default_factory=dict, repr=False)
    _columns: range = field(default=range(0), repr=False)
    _gradients: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, tape: Tape, queries: list[AnyQuery], model: nn.Module, memory_bytes: float) -> "AskedQueries":
        """Ask for all values, and for as many gradients as an eighth of the memory holds, two at least."""
        began = clock(tape.layout.device)
        with seeded(0):
            values, drawing = _values(queries, model, tape)
            losses = _losses(tape, model, memory_bytes)
        asked = cls(tape, queries, model, values, losses, drawing=drawing)
        valued = clock(tape.layout.device)
        count = min(len(values), max(FEWEST, int(memory_bytes / SHARE // gradient_bytes(tape))))
        asked.gradients(range(count))
        ended = clock(tape.layout.device)
        asked.seconds = valued - began + (ended - valued) * len(values) / count
        return asked

    def of_first(self, processes: Processes) -> "AskedQueries":
        """Return the same with the losses that process 0 found: rows are drawn by them."""
        if processes.size == 1:
            return self
        own = {"losses": torch.from_numpy(self.losses)} if processes.rank == 0 else None
        return replace(self, losses=processes.shared(own, 0)["losses"].numpy())

    def __len__(self) -> int:
        return len(self.values)

    @property
    def first(self) -> Tensor:
        """The gradients [2, P] of the first queries, along which derivatives are checked."""
        return self.gradients(range(min(FEWEST, len(self))))

    @property
    def bytes_held(self) -> int:
        """The bytes of the gradients kept."""
        return 0 if self._gradients is None else self._gradients.numel() * self._gradients.itemsize

    def gradients(self, columns: range) -> Tensor:
        """Return the gradients [q, P] of some queries; the last ones asked for are kept."""
        held = self._columns
        if self._gradients is None or not (held.start <= columns.start and columns.stop <= held.stop):
            self._gradients = None
            layout = self.tape.layout
            layout.assign(self.model, self.tape.state()[: layout.size])
            with seeded(0):
                self._columns, self._gradients = (
                    columns,
                    query_gradients(self.queries, self.model, self.tape, columns)[1],
                )
            self._note_unmoved()
        first = self._columns.start
        return self._gradients[columns.start - first : columns.stop - first]

    def _note_unmoved(self) -> None:
        names = [name for query in self.queries for name in query.names]
        assert self._gradients is not None
        for column, gradient in zip(self._columns, self._gradients, strict=True):
            if not bool(gradient.any()):
                self._unmoved[column] = names[column]

    @property
    def findings(self) -> list[str]:
        """What a reader should know of the queries asked so far."""
        found = []
        if self.drawing:
            found.append(
                f"random numbers are drawn by the query {_some(self.drawing)}: its value and effects are those of "
                "single draws"
            )
        if self._unmoved:
            found.append(
                f"the query {_some(list(self._unmoved.values()))} does not change with any trained parameter where "
                "training ended, so that all of its effects are 0: it rounds, cancels or saturates"
            )
        return found

    def take(self, columns: range) -> Tensor:
        """Return the gradients [q, P] of some queries, and keep none."""
        found = self.gradients(columns)
        self._columns, self._gradients = range(0), None
        return found


def _values(queries: Sequence[AnyQuery], model: nn.Module, tape: Tape) -> tuple[np.ndarray, list[str]]:
    """Return the values [Q], and the names of queries that draw random numbers."""
    values, drawing = [], []
    for query in queries:
        before = generator_states(tape.layout.device)
        values.append(checked_values([query], model, tape))
        after = generator_states(tape.layout.device)
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            drawing += list(query.names)
    return np.concatenate(values), drawing


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:4]) + (" …" if len(names) > 4 else "")


@dataclass(frozen=True)
class _Losses(Key[np.ndarray]):
    """The tape alone: of its rows, at the end of training."""


def _losses(tape: Tape, model: nn.Module, memory_bytes: float) -> np.ndarray:
    """Return the final losses of the rows [n], found once for a tape; as many together as there is memory for."""
    batch = len(tape.at(0).rows)
    each = max(1.0, activation_bytes(tape) / batch)
    rows_at_once = int(min(MOST_ROWS, max(batch, memory_bytes / SHARE // each)))
    return tape.cache.get(_Losses(), lambda: final_losses(tape, model, rows_at_once))


def gradient_bytes(tape: Tape) -> int:
    """Return the bytes of one query's gradient."""
    return tape.layout.size * tape.layout.dtype.itemsize
