"""Queries: named scalar behaviours of a trained model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.grads import check_row_losses, no_checkpointing
from finfluence.runs.describe._checksum import first_change
from finfluence.runs.describe._loss import RAISED
from finfluence.runs.describe._rows import Rows, RowSource
from finfluence.runs.describe._task import Task

ROWS_TOGETHER, ROWS_OF_MEAN = 32, 1024


@dataclass(frozen=True)
class Query:
    """A scalar behaviour q(θ) of a trained model, measured in evaluation mode.

    Parameters
    ----------
    fn : callable
        `fn(model) -> Tensor`, one number, differentiable in the model's parameters.
    name : str
        How results call it.
    unit : str
        Unit of q, for printing.
    sign : {-1, +1}
        −1: a larger value is worse for the user (a loss). +1: a larger value is better (accuracy, margin).

    Examples
    --------
    >>> query = Query(lambda model: model.weight.sum(), name="total weight", unit="weight", sign=+1)
    >>> query.names
    ('total weight',)
    """

    fn: Callable[[nn.Module], Tensor]
    name: str
    unit: str = "value"
    sign: int = -1

    def __post_init__(self) -> None:
        if self.sign not in (-1, 1):
            raise ConfigError(
                explain(
                    f"sign of query '{self.name}' to be −1 (a larger value is worse) or +1 (better)",
                    repr(self.sign),
                    "the sign says which direction harms",
                    "pass sign=-1 for a loss, sign=+1 for an accuracy, margin or log-probability",
                )
            )

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each number that `values` returns."""
        return (self.name,)

    def values(self, model: nn.Module, recipe: Task) -> Tensor:
        """Return q(θ) as a tensor [len(names)], with its graph."""
        value = self.fn(model)
        if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
            shape = type(value).__name__
            if isinstance(value, Tensor):
                shape = str(value.dtype) if value.is_complex() else str(tuple(value.shape))
            raise ConfigError(
                explain(
                    f"query '{self.name}' to return one number as a tensor",
                    shape,
                    "the function returns one value per row, or a complex or a Python number",
                    "take its mean, or use fi.each_loss for one query per row",
                )
            )
        return value.reshape(1)

    def parts(self, columns: range, together: int = ROWS_TOGETHER) -> Iterator[tuple["Query", int, float]]:
        """Yield the query itself, whole, its place and weight: of what it is made is not known."""
        yield self, 0, 1.0


@dataclass(frozen=True)
class _LossQuery:
    """The recipe's own loss on given rows, or on training rows of these ids: their mean, or each by itself."""

    rows: Rows | None
    ids: tuple[Any, ...]
    names: tuple[str, ...]
    mean: bool
    unit: str = "nats"
    sign: int = -1
    taken: range | None = None

    def parts(
        self, columns: range, together: int = ROWS_TOGETHER
    ) -> Iterator[tuple["_LossQuery", int, float]]:
        """Yield queries of few rows, with place and weight: some of the columns, or summands of the mean."""
        count = len(self.ids) if self.rows is None else len(self.rows)
        rows, size = (range(count), ROWS_OF_MEAN) if self.mean else (columns, together)
        for k in range(0, len(rows), size):
            part = rows[k : k + size]
            if len(part) == count:
                yield self, 0, 1.0
            elif self.mean:
                yield replace(self, taken=part), 0, len(part) / count
            else:
                yield replace(self, names=self.names[part.start : part.stop], taken=part), k, 1.0

    def values(self, model: nn.Module, recipe: Task) -> Tensor:
        """Return the losses [len(names)], with their graph."""
        source = recipe.rows if self.rows is None else self.rows
        places = _places(self.ids, source) if self.rows is None else list(range(len(source)))
        if self.taken is not None:
            places = places[self.taken.start : self.taken.stop]
        positions = torch.tensor(places, dtype=torch.int64)
        device = next(model.parameters()).device
        batch = {k: v.to(device) for k, v in source.batch(positions).items()}
        if self.rows is not None:
            batch["id"] = torch.full_like(batch["id"], -1)
        losses = recipe.loss(model, batch)
        check_row_losses(losses, len(positions))
        return losses.mean().reshape(1) if self.mean else losses


AnyQuery = Query | _LossQuery


def _places(ids: tuple[Any, ...], rows: RowSource) -> list[int]:
    """Return the positions of row ids."""
    place = {row: position for position, row in enumerate(rows.ids.tolist())}
    unknown = [i for i in ids if i not in place]
    if unknown:
        known = ", ".join(repr(i) for i in list(place)[:3])
        raise ConfigError(
            explain(
                "ids of training rows in fi.own_loss",
                f"{len(unknown)} unknown, first {unknown[0]!r}",
                "positions were passed of rows that have ids of their own, or ids of another type (7 is not '7')",
                f"use ids such as {known}; rows without ids of their own are numbered from 0",
            )
        )
    return [place[i] for i in ids]


def mean_loss(
    x: Any = None, y: Any = None, name: str = "mean loss", unit: str = "nats", **fields: Any
) -> _LossQuery:
    """Query: the mean of the recipe's loss over given rows, usually held-out ones.

    q(θ) = (1/m) Σ_j ℓ(θ; x_j, y_j). Positive μ: removing the training row raises this loss, so the row helps.
    Rows from outside the training data carry "id" −1.

    Returns
    -------
    query

    Raises
    ------
    ConfigError
        No rows.

    Examples
    --------
    >>> mean_loss(np.ones((4, 2)), np.zeros(4), name="held-out").names
    ('held-out',)
    """
    rows = Rows(x=x, y=y, **fields)
    if not len(rows):
        raise ConfigError(
            explain(
                f"a row or more in query '{name}'",
                "none",
                "a filter or a slice left nothing",
                "give the rows whose mean loss is asked",
            )
        )
    return _LossQuery(rows, (), (name,), True, unit)


def each_loss(
    x: Any = None, y: Any = None, names: Sequence[str] | None = None, unit: str = "nats", **fields: Any
) -> _LossQuery:
    """Queries: the recipe's loss on each of the given rows, one query per row.

    q_j(θ) = ℓ(θ; x_j, y_j).

    Returns
    -------
    queries

    Raises
    ------
    ConfigError
        Not one name for each row.

    Examples
    --------
    >>> each_loss(np.ones((2, 2)), np.zeros(2)).names
    ('loss[0]', 'loss[1]')
    """
    rows = Rows(x=x, y=y, **fields)
    given = tuple(f"loss[{i}]" for i in range(len(rows))) if names is None else tuple(names)
    if len(given) != len(rows):
        raise ConfigError(
            explain(
                f"one name for each of {len(rows)} rows",
                f"{len(given)} names",
                "rows were filtered",
                "name every row",
            )
        )
    return _LossQuery(rows, (), given, False, unit)


def own_loss(rows: Sequence[Any], unit: str = "nats") -> _LossQuery:
    """Queries: the final loss of training rows themselves; one query per row.

    q_i(θ) = ℓ(θ; x_i, y_i). With the subset that holds the same row this is self-influence: how much the model relies
    on having seen it.

    Parameters
    ----------
    rows : sequence
        Ids of training rows; rows without ids of their own are numbered from 0.
    unit : str
        Unit of the loss, for printing.

    Returns
    -------
    queries
        Named "own loss[id]". An id that no row has is an error where the query is used.

    Examples
    --------
    >>> own_loss(rows=[3, 7]).names
    ('own loss[3]', 'own loss[7]')
    """
    ids = tuple(r.item() if isinstance(r, (np.generic, Tensor)) else r for r in rows)
    return _LossQuery(None, ids, tuple(f"own loss[{i}]" for i in ids), False, unit)


def check_queries(queries: Sequence[AnyQuery] | AnyQuery) -> list[AnyQuery]:
    """Return the queries as a list with unique names.

    Returns
    -------
    list[AnyQuery]

    Raises
    ------
    ConfigError
        No query, something that is no query, or two of one name.
    """
    given: Any = queries
    single = not isinstance(given, Iterable) or (hasattr(given, "values") and hasattr(given, "names"))
    listed: list[AnyQuery] = [given] if single else list(given)
    wrong = [type(q).__name__ for q in listed if not (hasattr(q, "values") and hasattr(q, "names"))]
    names = [n for q in listed if not wrong for n in q.names]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if wrong or repeated or not names:
        raise ConfigError(
            explain(
                "one or more queries with different names",
                f"objects of type {', '.join(wrong)}"
                if wrong
                else f"'{repeated[0]}' twice"
                if repeated
                else "none",
                "a bare function was passed, or a default name was used twice",
                "wrap functions as fi.Query(fn, name=…), and give each query its own name",
            )
        )
    return listed


def gradients(
    queries: Sequence[AnyQuery],
    model: nn.Module,
    recipe: Task,
    parameters: Sequence[Tensor],
    columns: range | None = None,
) -> tuple[np.ndarray, Tensor]:
    """Return values [Q] and gradients [Q, P] at the model's parameters, in evaluation mode, few rows at a time.

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
    """  # noqa: DOC501 - made by a function
    count = sum(len(q.names) for q in queries) if columns is None else len(columns)
    values, size = np.zeros(count), sum(p.numel() for p in parameters)
    found = torch.zeros(count, size, dtype=parameters[0].dtype, device=parameters[0].device)
    for part, place, weight, outputs in _answers(queries, columns, model, recipe):
        for k, name in enumerate(part.names):
            values[place + k] += weight * _checked_value(outputs[k], name)
            grads = torch.autograd.grad(
                outputs[k], parameters, retain_graph=k + 1 < len(part.names), allow_unused=True
            )
            if all(grad is None for grad in grads):
                raise _without_gradient(name)
            _add_flat(found[place + k], grads, parameters, weight)
    return values, found


def query_values(queries: Sequence[AnyQuery], model: nn.Module, recipe: Task) -> np.ndarray:
    """Return the values [Q] alone, checked as `gradients` does.

    Returns
    -------
    array [Q]

    Raises
    ------
    ConfigError
        A query is not finite, or not differentiable.
    """
    values = np.zeros(sum(len(q.names) for q in queries))
    for part, place, weight, outputs in _answers(queries, None, model, recipe):
        for k, name in enumerate(part.names):
            values[place + k] += weight * _checked_value(outputs[k], name)
    return values


def _answers(
    queries: Sequence[AnyQuery], columns: range | None, model: nn.Module, recipe: Task
) -> Iterator[tuple[AnyQuery, int, float, Tensor]]:
    """Yield queries of few rows, the place of each one's first value, its weight there, and its values with graph."""
    for query, first, some in chosen(queries, columns):
        for part, place, weight in query.parts(some):
            with evaluated(part, model):
                outputs = _outputs(part, model, recipe)
            yield part, first + place, weight, outputs


def chosen(queries: Sequence[AnyQuery], columns: range | None) -> Iterator[tuple[AnyQuery, int, range]]:
    """Yield the queries that have some of the columns: each with the place of its first, and which of its names."""
    first, place = 0, 0
    for query in queries:
        count = len(query.names)
        start, stop = (0, count) if columns is None else (columns.start - first, columns.stop - first)
        some = range(max(0, start), min(count, stop))
        if len(some):
            yield query, place, some
            place += len(some)
        first += count


@contextmanager
def evaluated(query: AnyQuery, model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode for one query; its modes are given back.

    Raises
    ------
    ConfigError
        The query does not leave the model as it was.
    """
    was_training, before = {id(m): m.training for m in model.modules()}, _left(model)
    model.eval()
    try:
        yield
    finally:
        for module in model.modules():
            module.training = was_training.get(id(module), module.training)
    changed = first_change(before, _left(model))
    if changed is not None:
        raise ConfigError(
            explain(
                f"a query '{query.names[0]}' that leaves the model as it is",
                f"one that changes '{changed}'",
                "it puts the model in training mode, whose running statistics every forward pass writes on, freezes or "
                "edits weights, or replaces layers: queries after it would be asked of another model; or the model's "
                "own forward pass writes on it in evaluation mode, too (a counter, an embedding with max_norm)",
                "only read the model, which is in evaluation mode already, and let its forward pass only read",
            )
        )


def _left(model: nn.Module) -> dict[str, tuple[int, int, bool]]:
    """Return by what a changed model is known: its tensors, how often they were written on, whether they are trained.

    Buffers that are not part of its state, such as tables that a first pass fills, are its own business.

    Returns
    -------
    dict
    """
    fleeting = {
        f"{at}.{name}" if at else name
        for at, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: (id(t), t._version, t.requires_grad) for name, t in tensors if name not in fleeting}


def _outputs(query: AnyQuery, model: nn.Module, recipe: Task) -> Tensor:
    """Return the values of a query, with their graph."""
    try:
        with no_checkpointing():
            return query.values(model, recipe)
    except torch.OutOfMemoryError:
        raise
    except RAISED as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise ConfigError(
            explain(
                f"a query '{query.names[0]}' that can be asked of the trained model",
                f"{type(error).__name__}: {text}",
                "its function was written for another model or precision"
                if isinstance(query, Query)
                else "its rows have other fields, types or labels than those that the loss was written for",
                "try it: query.fn(tape.model().eval())"
                if isinstance(query, Query)
                else "give it fields as the training rows have them, of the same names, shapes and types",
            )
        ) from error


def _add_flat(
    row: Tensor, grads: Sequence[Tensor | None], parameters: Sequence[Tensor], weight: float
) -> None:
    """Add gradients to a row [P] in place, parameter after parameter: no second row is made."""
    lengths = [p.numel() for p in parameters]
    for grad, part in zip(grads, row.split(lengths), strict=True):
        if grad is not None:
            part.add_(grad.reshape(-1), alpha=weight)


def _checked_value(output: Tensor, name: str) -> float:
    if not torch.isfinite(output):
        raise ConfigError(
            explain(
                f"query '{name}' to be finite at the end of training",
                f"{output.item()}",
                "the training diverged, or the query takes the logarithm of zero",
                "check the trained model's loss, or bound the query",
            )
        )
    if not output.requires_grad:
        raise _without_gradient(name)
    return float(output.detach())


def _without_gradient(name: str) -> ConfigError:
    return ConfigError(
        explain(
            f"query '{name}' to be differentiable in the model's parameters",
            "a value without a gradient",
            "it counts or rounds (an accuracy, an argmax), detaches, or ignores the model; or adapters are merged into "
            "frozen weights in evaluation mode",
            "ask for a loss, a margin or a log-probability of the model it is given, or measure it with fi.retrain",
        )
    )
