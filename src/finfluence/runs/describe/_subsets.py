"""Subsets of rows to remove: from ids as the user names them to positions, checked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from finfluence.errors import DataError, explain
from finfluence.runs.describe._recipe import Recipe
from finfluence.runs.describe._rows import Rows
from finfluence.runs.describe._task import Task

Given = Mapping[Any, Sequence[Any]] | Sequence[Any] | np.ndarray | None


@dataclass(frozen=True, eq=False)
class Subsets:
    """Named sets of row positions, each sorted."""

    names: np.ndarray
    positions: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows in each."""
        return np.array([len(p) for p in self.positions], dtype=np.int64)

    def nonempty(self) -> "Subsets":
        """Return the subsets that have rows."""
        filled = self.sizes > 0
        return Subsets(self.names[filled], [p for p in self.positions if len(p)])


def find_subsets(task: Task, given: Given) -> Subsets:
    """Return the subsets that `given` names.

    Parameters
    ----------
    task : Task
        Whose rows they are of.
    given : None, mapping or sequence
        None: every row alone. A mapping: name to row ids. A sequence: of row ids, each alone, or of
        groups of ids. A group may be empty: removing nothing changes nothing.

    Returns
    -------
    Subsets

    Raises
    ------
    DataError
        An unknown id, no subset at all, a row named twice in one, two subsets of one name.
    """
    ids = task.rows.ids
    if given is None:
        return Subsets(ids, [np.array([i]) for i in range(len(ids))])
    named: list[tuple[Any, list[Any]]] = []
    if not isinstance(given, Iterable):
        raise DataError(
            explain(
                "subsets as {name: row ids} or a list of ids or of lists",
                repr(given),
                "one id or a number of subsets was passed",
                "write a row as [id], a group as {'name': [id, id]}, or leave subsets out for every row alone",
            )
        )
    if isinstance(given, Mapping):
        named = [(name, _listed(rows)) for name, rows in given.items()]
    else:
        for k, entry in enumerate(given):
            alone = _one(entry)
            named.append((_plain(entry), [_plain(entry)]) if alone else (f"subset {k}", _listed(entry)))
    place = {_plain(row): position for position, row in enumerate(ids.tolist())}
    positions = [_positions(name, rows, place) for name, rows in named]
    names = [name for name, _ in named]
    odd = [name for name in names if not isinstance(name, (str, bytes, int, float, np.generic))]
    if odd:
        raise DataError(
            explain(
                "numbers or texts as names of subsets",
                f"{odd[0]!r} of type {type(odd[0]).__name__}",
                "groups of a table were passed, whose keys are tuples, dates or missing",
                "name them by texts, {str(name): ids for name, ids in groups.items()}",
            )
        )
    if len({type(n) for n in names}) > 1:
        names = [str(name) for name in names]
    if not names or len(set(names)) < len(names):
        twice = next((n for n in names if names.count(n) > 1), None)
        raise DataError(
            explain(
                "one or more subsets with different names",
                "none" if twice is None else f"'{twice}' twice",
                "a selection came out empty, or a row was listed twice",
                "pass each subset once, or subsets=None for every row alone",
            )
        )
    return Subsets(np.array(names), positions)


def check_left(task: Task, subsets: Subsets) -> None:
    """Raise if a subset is the whole data set.

    Raises
    ------
    DataError
        One is; the message names it.
    """
    n = len(task.rows)
    for name, rows in zip(subsets.names, subsets.positions, strict=True):
        if len(rows) == n:
            raise DataError(
                explain(
                    f"at least one row to be left without subset '{name}'",
                    f"all {n} rows in it",
                    "the subset is the whole data set",
                    "take a smaller subset",
                )
            )


def check_removable(recipe: Recipe, subsets: Subsets) -> None:
    """Raise unless training without each subset still makes sense.

    Raises
    ------
    DataError
        Fewer rows than a batch would be left, or a class would be emptied.
    """
    n, labels = len(recipe.rows), class_labels(recipe)
    for name, rows in zip(subsets.names, subsets.positions, strict=True):
        if n - len(rows) < recipe.batch_size:
            raise DataError(
                explain(
                    f"at least one batch of {recipe.batch_size} rows to be left without subset '{name}'",
                    f"{n - len(rows)} of {n} rows",
                    "the subset is most of the data",
                    "take smaller subsets, or a smaller batch_size",
                )
            )
        if labels is None:
            continue
        emptied = np.setdiff1d(labels[rows], np.delete(labels, rows))
        if len(emptied):
            raise DataError(
                explain(
                    f"every class to keep a row without subset '{name}'",
                    f"none left of class {', '.join(str(c) for c in emptied[:5])}",
                    "the subset holds a whole class, so that the model without it answers another question",
                    "leave some rows of each class out of the subset",
                )
            )


def class_labels(task: Task) -> np.ndarray | None:
    """Return the classes of all rows where field "y" looks like classes: whole numbers, few of them."""
    if not isinstance(task.rows, Rows) or "y" not in task.rows.fields:
        return None
    y = task.rows.fields["y"]
    if y.ndim != 1 or y.is_floating_point():
        return None
    values = y.cpu().numpy()
    return values if len(np.unique(values)) <= max(2, int(len(values) ** 0.5)) else None


def _positions(name: Any, rows: list[Any], place: dict[Any, int]) -> np.ndarray:
    if any(isinstance(row, bool) for row in rows) and not any(isinstance(row, bool) for row in place):
        raise DataError(
            explain(
                f"row ids of the data in subset '{name}'",
                f"truth values, {len(rows)} of them",
                "a mask over rows was passed, which would be read as the ids 0 and 1",
                "pass the ids that it selects, ids[mask]",
            )
        )
    nested = [row for row in rows if not isinstance(row, (str, bytes, int, float))]
    if nested:
        raise DataError(
            explain(
                f"numbers or texts as row ids in subset '{name}'",
                f"{nested[0]!r} of type {type(nested[0]).__name__}",
                "lists or arrays within a list, a slice, or objects",
                "pass one flat list of ids for each subset, list(range(…)) in place of a slice",
            )
        )
    unknown = [row for row in rows if row not in place]
    if unknown:
        known = ", ".join(repr(row) for row in list(place)[:3])
        raise DataError(
            explain(
                f"row ids of the data in subset '{name}'",
                f"{len(unknown)} unknown, first {unknown[0]!r}",
                "ids are those of Rows(ids=…), not positions, and 7 is not '7'",
                f"use ids such as {known}",
            )
        )
    found = np.array(sorted(place[row] for row in rows), dtype=np.int64)
    if len(np.unique(found)) < len(found):
        raise DataError(
            explain(
                f"different rows in subset '{name}'",
                "a row more than once",
                "a selection was joined with itself",
                "list every row of the subset once",
            )
        )
    return found


def _listed(rows: Any) -> list[Any]:
    return [_plain(rows)] if _one(rows) else [_plain(row) for row in rows]


def _one(entry: Any) -> bool:
    """Whether an entry is one id, not several."""
    if isinstance(entry, (str, bytes)) or not isinstance(entry, Iterable):
        return True
    return isinstance(entry, (np.ndarray, Tensor)) and entry.ndim == 0


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0 else value


def sum_over(subsets: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    """Return Σ_{i∈S} values_i for every subset of positions: [n, Q] to [S, Q]."""
    if all(len(s) == 1 for s in subsets):
        return values[np.concatenate(subsets)]
    return np.stack([values[s].sum(0) for s in subsets])
