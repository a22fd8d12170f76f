"""Products of gradients of training rows with those of queries at one set of parameters, in factors where they can be.

Of a linear layer G_i = Σ_t b_it a_itᵀ, and ⟨G_i, G_q⟩ = Σ_ts (a_it·a_qs)(b_it·b_qs): a row's gradient is not formed.
Parameters whose factors do not give it (of layers without a rule, used outside their layer) take the gradients of rows
written out. Both are exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.estimators._one_run import activation_bytes
from finfluence.estimators.derivatives import query_gradients
from finfluence.grads import (
    Batch,
    Directions,
    Factorised,
    Layout,
    RowLoss,
    WrittenRows,
    check_rows_have_gradients,
)
from finfluence.runs import AnyQuery, RowSource, Tape, seeded
from finfluence.runs.tape import Cache, affordable_rows

HELD = 2**25  # numbers of row gradients written out at once
TRIED = 3
SMALL = 2**22  # parameters of a model whose queries are taken many at a time
AGREE = {torch.float64: 1e-6, torch.float32: 2e-3}


@dataclass(eq=False)
class SourceOfRows:
    """What stands for a tape where there is none: rows, their loss, and where trained parameters lie.

    Attributes
    ----------
    rows : RowSource
        The training rows.
    loss : callable
        `loss(model, batch) -> Tensor[B]`.
    layout : Layout
        Of the trained parameters.
    cache : Cache
        What was found out about queries.
    """

    rows: RowSource
    loss: RowLoss
    layout: Layout
    cache: Cache = field(default_factory=Cache)

    def batch(self, positions: Tensor) -> Batch:
        """Return the fields of rows, on the device of the parameters."""
        return {k: v.to(self.layout.device) for k, v in self.rows.batch(positions).items()}


class RowProducts:
    """Row gradients of a model at its present parameters, in evaluation mode: their products and norms.

    Parameters
    ----------
    model : nn.Module
        Ours.
    source : Tape or SourceOfRows
        Of the rows; factors are tried on the first three.
    covered : set of str, optional
        Parameters with factors, if a copy was tried already: the model is not written on then.

    Attributes
    ----------
    factorised : Factorised
        Which parameters have factors.

    Examples
    --------
    >>> from finfluence.runs import Rows, each_loss
    >>> model = nn.Linear(1, 1, bias=False)
    >>> rows = Rows(x=torch.tensor([[1.0], [2.0]]), y=torch.zeros(2))
    >>> source = SourceOfRows(rows, lambda m, b: m(b["x"])[:, 0], Layout(model))
    >>> made = RowProducts(model, source)
    >>> asked = made.directions([each_loss(torch.tensor([[3.0], [4.0]]), torch.zeros(2))])
    >>> made.products(source.batch(torch.tensor([0, 1])), asked).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """

    def __init__(
        self, model: nn.Module, source: Tape | SourceOfRows, covered: set[str] | None = None
    ) -> None:
        self.model, self.source = model.eval(), source
        check_rows_have_gradients(self.model)
        few = source.batch(torch.arange(min(TRIED, len(source.rows))))
        self.factorised = Factorised(self.model, source.loss, source.layout.names, few, covered)
        self._written: dict[tuple[str, ...], WrittenRows] = {}
        self._held_against: set[int] = set()
        small = sum(p.numel() for p in model.parameters()) <= SMALL
        self._together = 128 if small else 32

    def directions(self, queries: list[AnyQuery]) -> Directions:
        """Return the gradients of the queries: of losses of many rows in factors.

        Returns
        -------
        Directions

        Raises
        ------
        ConfigError, NotSupportedError
            As `query_gradients`.
        """
        found = Directions(sum(len(q.names) for q in queries))
        first = 0
        for k, query in enumerate(queries):
            count = len(query.names)
            if count == 1 or not self._add_factors(found, query, first, k not in self._held_against):
                _, vectors = query_gradients([query], self.model, self._tape)
                for name, part in self.source.layout.split_rows(vectors).items():
                    placed = part.new_zeros(found.count, part.shape[1])
                    placed[first : first + count] = part
                    found.add_written(name, placed)
            elif count > 1:
                self._held_against.add(k)
            first += count
        return found

    def products(self, batch: Batch, directions: Directions) -> Tensor:
        """Return ⟨∇ℓ_i, u_q⟩ [B, Q] of the rows of a batch."""
        terms, left = self.factorised.terms(batch)
        total = terms.products(directions)
        if left:
            total = total + self._of_written(batch, left, directions)
        if isinstance(total, float):
            total = torch.full((terms.rows, directions.count), total)
        return total

    def squared_norms(self, batch: Batch) -> Tensor:
        """Return ‖∇ℓ_i‖² [B] of the rows of a batch."""
        terms, left = self.factorised.terms(batch)
        total = terms.squared_norms()
        if left:
            parts = [(g**2).sum(1) for g in self._gradients(batch, left)]
            total = total + torch.cat(parts)
        return total if isinstance(total, Tensor) else torch.full((terms.rows,), total)

    @property
    def _tape(self) -> Tape:
        return cast(Tape, self.source)  # rows, loss, layout and cache are all that is read

    def _of_written(self, batch: Batch, left: list[str], directions: Directions) -> Tensor | float:
        known = [directions.written(name) for name in left]
        if all(part is None for part in known):
            return 0.0
        sizes = dict(zip(self.source.layout.names, self.source.layout.sizes, strict=True))
        like = next(part for part in known if part is not None)
        full = [
            like.new_zeros(directions.count, sizes[name]) if part is None else part
            for name, part in zip(left, known, strict=True)
        ]
        vectors = torch.cat(full, 1)
        return torch.cat([g @ vectors.T for g in self._gradients(batch, left)])

    def _gradients(self, batch: Batch, left: list[str]) -> Iterator[Tensor]:
        rows = self._written.setdefault(tuple(left), WrittenRows(self.model, self.source.loss, left))
        count = len(next(iter(batch.values())))
        for some in torch.arange(count).split(max(1, HELD // rows.layout.size)):
            part = slice(int(some[0]), int(some[-1]) + 1)
            yield rows.gradients({name: value[part] for name, value in batch.items()})

    def _add_factors(self, found: Directions, query: AnyQuery, first: int, compare: bool) -> bool:
        """Add the gradients of a query of several names; return whether they are the derivatives of its values."""
        made = Directions(len(query.names))
        for part, place, weight in query.parts(range(len(query.names)), self._together):
            assert weight == 1.0, "a query of several names is no mean"
            outputs, terms, left = self.factorised.of_values(partial(part.values, self.model, self._tape))
            if not bool(torch.isfinite(outputs).all()):
                return False
            for name, several in terms.terms.items():
                for term in several:
                    made.add(name, term, first=place)
            for name, vectors in left.items():
                placed = vectors.new_zeros(made.count, vectors.shape[1])
                placed[place : place + len(vectors)] = vectors
                made.add_written(name, placed)
        if compare and not self._agrees(made, query):
            return False
        found.place(made, first)
        return True

    def _agrees(self, made: Directions, query: AnyQuery) -> bool:
        """Whether the first gradient is that of `query_gradients`, which holds it against the query's values."""
        _, vectors = query_gradients([query], self.model, self._tape, range(1))
        pick = torch.zeros(made.count, dtype=vectors.dtype, device=vectors.device)
        pick[0] = 1.0
        combined = made.combined(pick)
        tolerance = AGREE.get(vectors.dtype, 2e-3)
        for name, true in self.source.layout.split_rows(vectors).items():
            got = combined.get(name, torch.zeros_like(true[0]))
            if not (got - true[0]).norm() <= tolerance * vectors.norm() + 1e-12:
                return False
        return True


def row_products(
    tape: Tape,
    queries: list[AnyQuery],
    rows_at_once: int,
    step: int | None = None,
    cosine: bool = False,
    rates: Sequence[float] | None = None,
) -> np.ndarray:
    """Return ⟨∇q, ∇ℓ_i⟩ [n, Q] of all rows before a step, in evaluation mode; cosines of the same if asked.

    Parameters
    ----------
    tape, queries, rows_at_once, step, cosine
        Of which run, and what.
    rates : sequence of float, optional
        A factor for each parameter tensor, by which its part of the products is multiplied.

    Returns
    -------
    array
    """
    with seeded(0):
        made = RowProducts(tape.model(step), tape)
        directions = made.directions(queries)
        alike = rates is None or len(set(rates)) == 1
        if rates is not None and not alike:
            each = torch.tensor(rates, dtype=torch.float64)
            directions = directions.scaled(dict(zip(tape.layout.names, each, strict=True)))
        lengths = directions.squared_norms().sqrt().cpu() if cosine else None
        found = []
        for positions in torch.arange(len(tape.rows)).split(affordable_rows(tape, rows_at_once)):
            batch = tape.batch(positions)
            products = made.products(batch, directions).double().cpu()
            if lengths is not None:
                norms = made.squared_norms(batch).double().cpu().sqrt()
                scale = norms.unsqueeze(1) * lengths
                products = torch.where(scale > 0, products / scale, 0.0).clamp(-1.0, 1.0)
            found.append(products)
    values: np.ndarray = torch.cat(found).numpy()
    return rates[0] * values if rates is not None and alike else values


def row_norms(tape: Tape, rows_at_once: int) -> np.ndarray:
    """Return ‖∇ℓ_i‖ [n] of all rows at the end of a run, in evaluation mode."""
    with seeded(0):
        made = RowProducts(tape.model(), tape)
        parts = [
            made.squared_norms(tape.batch(p)).double().cpu().sqrt()
            for p in torch.arange(len(tape.rows)).split(affordable_rows(tape, rows_at_once))
        ]
    values: np.ndarray = torch.cat(parts).numpy()
    return values


def gradient_bytes(tape: Tape, columns: int, rows_at_once: int) -> int:
    """Return what gradients of so many rows take at once, with those of the queries and their products."""
    rows = affordable_rows(tape, min(rows_at_once, len(tape.rows)))
    parameters = tape.layout.size * tape.layout.dtype.itemsize
    return activation_bytes(tape, rows) + parameters * (3 * rows + columns + 3) + 8 * len(tape.rows) * columns
