"""Gradients of queries: the derivative of their values, which autograd's gradient is not for every query.

A query is asked how its value changes. Where its loss or model stops or changes gradients, autograd gives something
else; so its gradient is compared with differences of the values in double precision, along random directions, and taken
from the operations behind the values where the two differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vjp

from finfluence.errors import NotSupportedError, explain
from finfluence.grads import InDouble, RowLosses, in_double, trace_values, without_graph
from finfluence.runs import AnyQuery, Query, Rows, Tape, gradients, query_values, seeded
from finfluence.runs.describe import chosen
from finfluence.runs.tape import Key

DIRECTIONS, WIDTHS, TOLERANCE, ROUNDING = 2, (1e-6, 1e-8), 1e-5, 100
ROWS = 16


@dataclass(frozen=True)
class _IsDerivative(Key[bool]):
    """A query of the tape whose cache it is, at the parameters where it was first asked for."""

    query: AnyQuery


def query_gradients(
    queries: Sequence[AnyQuery], model: nn.Module, tape: Tape, columns: range | None = None
) -> tuple[np.ndarray, Tensor]:
    """Return values [Q] and gradients [Q, P] of queries at the model's parameters, in evaluation mode.

    Parameters
    ----------
    columns : range, optional
        Those of the queries' names that are asked for, one after the other; default: all.

    Returns
    -------
    values [Q], gradients [Q, P]

    Raises
    ------
    ConfigError
        A query is not finite, or not differentiable.
    NotSupportedError
        Autograd does not give the derivative of a query's value, and it cannot be had otherwise.
    """
    parameters = tape.layout.parameters(model)
    values, found = gradients(queries, model, tape, list[Tensor](parameters), columns)
    for query, place, some in chosen(queries, columns):
        if not _checked(query, model, tape):
            found[place : place + len(some)] = 0.0
            for part, offset, weight in query.parts(some):
                first = place + offset
                found[first : first + len(part.names)] += weight * _written_out(part, model, tape)
    return values, found


def checked_values(queries: Sequence[AnyQuery], model: nn.Module, tape: Tape) -> np.ndarray:
    """Return values [Q] of all queries, whose gradients were compared with their values, without the gradients.

    Returns
    -------
    array [Q]

    Raises
    ------
    ConfigError
        A query is not finite, or not differentiable.
    NotSupportedError
        Autograd does not give the derivative of a query's value, and it cannot be had otherwise.
    """
    values = query_values(queries, model, tape)
    for query in queries:
        _checked(query, model, tape)
    return values


def _checked(query: AnyQuery, model: nn.Module, tape: Tape) -> bool:
    try:
        hash(query)
    except TypeError:
        return _is_derivative(query, model, tape)
    return tape.cache.get(_IsDerivative(query), lambda: _is_derivative(query, model, tape))


def _is_derivative(query: AnyQuery, model: nn.Module, tape: Tape) -> bool:
    """Whether autograd gives the derivative of the query's values.

    Returns
    -------
    bool

    Raises
    ------
    NotSupportedError
        It does not, nor do the operations behind them.
    """
    few = _few(query)
    try:
        probe = _Probe(few, model, tape)
    except (RuntimeError, TypeError, ValueError):  # a query that computes in its own precision only
        return True
    if probe.error(probe.by_autograd()) <= TOLERANCE:
        return True
    error = probe.error(_written_out(few, probe.model, tape, double=True))
    if error > TOLERANCE:
        raise NotSupportedError(
            explain(
                f"a query '{query.names[0]}' with a derivative",
                f"operations whose derivatives are {error:.1g} from differences of its values",
                "it rounds or quantises, takes values out of tensors (item, numpy), or draws random numbers",
                "write it with elementary PyTorch operations, or measure it with fi.retrain",
            )
        )
    return False


def _few(query: AnyQuery) -> AnyQuery:
    """Return a query of the first rows alone, if it has many."""
    if isinstance(query, Query):
        return query
    names = query.names if query.mean else query.names[:ROWS]
    if query.rows is None:
        return replace(query, ids=query.ids[:ROWS], names=names)
    fields: dict[str, Any] = query.rows.batch(torch.arange(min(ROWS, len(query.rows))))
    return replace(query, rows=Rows(**{k: v for k, v in fields.items() if k != "id"}), names=names)


class _Probe:
    """A query in double precision, around the parameters of a model."""

    def __init__(self, query: AnyQuery, model: nn.Module, tape: Tape) -> None:
        self._query, self._tape = query, tape
        self.model = in_double(model).eval()
        self._layout = tape.layout
        self._theta = self._layout.theta(self.model)
        self._values = self._at(self._theta)

    def by_autograd(self) -> Tensor:
        """Return what autograd gives for the gradients [K, P]."""
        with InDouble(), seeded(0):
            return gradients([self._query], self.model, self._tape, self._layout.parameters(self.model))[1]

    def error(self, found: Tensor) -> float:
        """Return how far ⟨w, ∇q⟩ is from differences of the values, relative to its scale."""
        generator = torch.Generator().manual_seed(0)
        worst = 0.0
        for _ in range(DIRECTIONS):
            w = torch.randn(len(self._theta), generator=generator, dtype=torch.float64).to(self._theta)
            apart = torch.inf
            for relative in WIDTHS:
                if apart > TOLERANCE:  # a kink may lie within the first
                    apart = min(apart, self._apart(found, w, relative))
            worst = max(worst, apart)
        return worst

    def _apart(self, found: Tensor, w: Tensor, relative: float) -> float:
        size = self._theta.norm()
        width = relative * float(torch.where(size > 0, size, 1.0)) / float(w.norm())
        moved = (self._at(self._theta + width * w) - self._at(self._theta - width * w)) / (2 * width)
        self._layout.assign(self.model, self._theta)
        rounding = ROUNDING * torch.finfo(w.dtype).eps * self._values.abs() / width
        apart = ((found @ w - moved).abs() - rounding).clamp_min(0.0)
        scale = torch.maximum(moved.abs(), found.norm(dim=1))
        return float(torch.where(apart == 0, 0.0, apart / scale).nan_to_num(nan=torch.inf).max())

    def _at(self, theta: Tensor) -> Tensor:
        self._layout.assign(self.model, theta)
        with InDouble(), seeded(0):
            return without_graph(lambda: self._query.values(self.model, self._tape)).detach().clone()


def _written_out(query: AnyQuery, model: nn.Module, tape: Tape, double: bool = False) -> Tensor:
    """Return the derivatives [K, P] of the operations behind the query's values."""

    def values(model: nn.Module, _: object) -> Tensor:
        if not double:
            return query.values(model, tape)
        with InDouble():
            return query.values(model, tape)

    was_training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        losses = RowLosses(model, values, tape.layout)
        theta = tape.layout.theta(model)
        traced = trace_values(lambda p: losses(p, {}), theta)
    finally:
        for module in was_training:
            module.training = True
    if traced.graph is None:
        raise NotSupportedError(
            explain(
                f"a query '{query.names[0]}' whose operations can be written out",
                traced.reason or "",
                "autograd does not give the derivative of its value (it stops or changes gradients), and its code "
                "depends on values of tensors",
                "leave out what stops or changes gradients, or measure it with fi.retrain",
            )
        )
    found, back, *_ = vjp(traced.graph, theta)
    return torch.stack(
        [back(one)[0] for one in torch.eye(len(found), dtype=found.dtype, device=found.device)]
    )
