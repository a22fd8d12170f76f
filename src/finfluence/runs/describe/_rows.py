"""Training rows: named fields of equal length, read by position, named by id."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from finfluence._files import digest
from finfluence._indices import same_rows
from finfluence.errors import DataError, explain
from finfluence.grads import Batch


@runtime_checkable
class RowSource(Protocol):
    """What a recipe needs of its data: a length, ids, and batches by position."""

    ids: np.ndarray

    def __len__(self) -> int: ...

    def batch(self, positions: Tensor) -> Batch:
        """Return the fields of the rows at `positions`."""

    def digest(self) -> str:
        """Return a hash of the content."""


def like_sizes(rows: RowSource, positions: Tensor, at_once: int) -> list[Tensor]:
    """Divide rows into parts that are evaluated together: like to like, for a source that tells its `padded_sizes`.

    A batch is padded to its largest row; where nothing is padded there are no sizes, and rows stay as they stand.

    Parameters
    ----------
    rows : RowSource
        With an attribute `padded_sizes`, an array [n], if its rows differ in size.
    positions : Tensor [m]
    at_once : int
        Rows of a part at most.

    Returns
    -------
    list of Tensor
        Places within `positions`: `torch.cat(parts)` is a permutation of 0 … m−1, and its `argsort` leads back.

    Examples
    --------
    >>> texts = Rows(x=[0.0, 1.0, 2.0])
    >>> texts.padded_sizes = np.array([9, 2, 3])
    >>> [p.tolist() for p in like_sizes(texts, torch.tensor([0, 2, 1]), 2)]
    [[2, 1], [0]]
    """
    sizes = getattr(rows, "padded_sizes", None)
    if sizes is None:
        return list(torch.arange(len(positions)).split(at_once))
    return list(torch.from_numpy(np.argsort(sizes[positions.numpy()], kind="stable")).split(at_once))


class Rows:
    """Rows held in memory as tensors of equal length.

    Parameters
    ----------
    x, y : array or Tensor, optional
        Inputs and targets; any further field is named by keyword. Floating NumPy arrays become float32;
        tensors are taken as they are.
    ids : sequence, optional
        One unique id per row, for results (default 0 … n−1). A field called `id` means the same.

    Notes
    -----
    A batch is a dict of the fields plus `"id"`, the rows' positions (int64).

    Raises
    ------
    DataError
        Fields of different length, repeated ids, ids given twice, NaN or infinite values.

    Examples
    --------
    >>> rows = Rows(x=np.eye(3), y=np.array([0, 1, 1]), ids=["a", "b", "c"])
    >>> rows.batch(torch.tensor([2]))["y"].tolist()
    [1]
    """

    def __init__(self, x: Any = None, y: Any = None, ids: Sequence[Any] | None = None, **fields: Any) -> None:
        if "id" in fields:
            ids = _one_of(ids, fields.pop("id"))
        given = {"x": x, "y": y, **fields}
        same_rows(**given, ids=ids)
        self.fields: dict[str, Tensor] = {k: _tensor(k, v) for k, v in given.items() if v is not None}
        lengths = {k: len(v) for k, v in self.fields.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(
                explain(
                    "at least one field, all with one entry per row",
                    ", ".join(f"{k}: {n} rows" for k, n in lengths.items()) or "no field",
                    "inputs and targets come from different selections",
                    "select the same rows for every field",
                )
            )
        self.ids = _ids(ids, next(iter(lengths.values())))

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: Tensor) -> Batch:
        """Return the fields of the rows at `positions` (int64), and the positions as `"id"`."""
        return {**{k: v.index_select(0, positions) for k, v in self.fields.items()}, "id": positions}

    def digest(self) -> str:
        """Return a hash of fields and ids."""
        parts = [
            k.encode() + bytes(str(v.dtype), "ascii") + _bytes(v) for k, v in sorted(self.fields.items())
        ]
        return digest(*parts, repr(self.ids.tolist()).encode())


class DatasetRows:
    """A map-style `torch.utils.data.Dataset` whose items are dicts or tuples, read item by item.

    Tuples become the fields "x", "y" (two entries) or "0", "1", … . An item's own "id" names the row.

    Parameters
    ----------
    collate : callable, optional
        Makes a batch from a list of items, as a DataLoader's `collate_fn` (default: torch's).
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        ids: Sequence[Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self._dataset = dataset
        self._collate = collate
        n = len(dataset)  # type: ignore[arg-type]
        first = _first(dataset) if n else None
        if ids is None and isinstance(first, Mapping) and "id" in first:
            ids = [_plain(dataset[i]["id"]) for i in range(n)]
        self.ids = _ids(ids, n)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: Tensor) -> Batch:
        """Return the collated items at `positions`, and the positions as `"id"`."""
        if self._collate is not None:
            made = _as_dict(self._collate([self._dataset[int(i)] for i in positions]))
            return {**{k: v for k, v in made.items() if isinstance(v, Tensor)}, "id": positions}
        items = [_as_dict(self._dataset[int(i)]) for i in positions]
        return {**default_collate(items), "id": positions}

    def digest(self) -> str:
        """Return a hash of every item."""
        parts = []
        for i in range(len(self)):
            item = self.batch(torch.tensor([i]))
            parts.append(b"".join(k.encode() + _bytes(v) for k, v in sorted(item.items())))
        return digest(*parts, repr(self.ids.tolist()).encode())


def _first(dataset: Any) -> Any:
    """Return the item at position 0."""
    try:
        return dataset[0]
    except NotImplementedError as error:
        raise _no_items(dataset) from error
    except (KeyError, TypeError) as error:
        raise DataError(
            explain(
                "a map-style data set, whose items are data[0], data[1], …",
                f"{type(error).__name__} for data[0] of a {type(dataset).__name__}",
                "a table is read by the names of its columns, not by row",
                'wrap its columns as fi.Rows(x=table[features].to_numpy(), y=table["label"].to_numpy())',
            )
        ) from error


def as_rows(data: Any) -> RowSource:
    """Return `data` as a row source: one already, a mapping of fields, or a map-style dataset.

    Returns
    -------
    RowSource

    Raises
    ------
    DataError
        The data is none of these.
    """  # noqa: DOC501 - made by a function
    if isinstance(data, RowSource):
        return data
    if isinstance(data, Mapping):
        return Rows(**data)
    if (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, (np.ndarray, Tensor))
    ):
        return DatasetRows(data)
    raise _no_items(data)


def _no_items(data: Any) -> DataError:
    return DataError(
        explain(
            "fi.Rows(x=…, y=…), a dict of arrays, or a map-style torch Dataset",
            type(data).__name__,
            "an iterable dataset or a bare array has no rows that can be named",
            "wrap arrays as fi.Rows(x=X, y=y, ids=ids)",
        )
    )


def varies(rows: RowSource) -> bool:
    """Whether an item of a data set differs between two calls."""
    if isinstance(rows, Rows):
        return False
    some = torch.arange(min(2, len(rows)))
    first, second = rows.batch(some), rows.batch(some)
    return any(
        k not in second or v.shape != second[k].shape or not torch.equal(v, second[k])
        for k, v in first.items()
    )


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, (list, tuple)) and np.ndim(value) == 0:
        raise DataError(
            explain(
                f"one entry per row in field '{name}'",
                "a single number",
                "a value for all rows was passed",
                "repeat it for every row, or use it in the loss itself",
            )
        )
    if isinstance(value, Tensor):
        tensor = value.detach()
        if tensor.layout is not torch.strided:
            raise DataError(
                explain(
                    f"a dense tensor in field '{name}'",
                    f"one of layout {tensor.layout}",
                    "a sparse table was passed",
                    "pass value.to_dense(), or the indices of the entries as a field of whole numbers",
                )
            )
    else:
        array = _array(name, value)
        if array.dtype.kind not in "biuf":
            raise DataError(
                explain(
                    f"numbers in field '{name}'",
                    f"an array of {array.dtype}",
                    "texts or objects were passed",
                    "encode them as numbers first (finfluence scan does it for files)",
                )
            )
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
        array = np.ascontiguousarray(array.astype(_signed(name, array), copy=False))
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero()[:, 0]
        raise DataError(
            explain(
                f"finite numbers in field '{name}'",
                f"NaN or infinity in {len(bad)} rows, first at position {int(bad[0])}",
                "missing values, or a division by zero upstream",
                "impute or drop these rows (finfluence scan imputes for files)",
            )
        )
    return tensor


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(
            explain(
                f"rows of one shape in field '{name}'",
                str(error).splitlines()[0],
                "lists of different lengths, such as texts cut into tokens",
                "pad them to one length and mask the padding in the loss",
            )
        ) from error


def _signed(name: str, array: np.ndarray) -> np.dtype:
    """Return the dtype of this machine's byte order that torch computes with: signed, but for bytes."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind != "u" or dtype.itemsize == 1:
        return dtype
    if dtype.itemsize == 8 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(
            explain(
                f"whole numbers below 2⁶³ in field '{name}'",
                f"{int(array.max())}",
                "hashes or addresses were passed as features",
                "number them from 0, or leave the field out",
            )
        )
    return np.dtype(f"i{min(8, 2 * dtype.itemsize)}")


def _ids(ids: Sequence[Any] | None, n: int) -> np.ndarray:
    plain = [] if ids is None else [_plain(i) for i in ids]
    _check_kinds(plain)
    values = np.arange(n) if ids is None else np.asarray(plain)
    if values.dtype.kind == "f" and any(isinstance(i, int) and int(float(i)) != i for i in plain):
        raise DataError(
            explain(
                "row ids that keep all of their digits",
                "whole numbers beyond 2^53 beside fractions, which lose digits together",
                "ids of two kinds, or an id column with missing cells",
                "pass the ids as texts",
            )
        )
    if len(values) != n:
        raise DataError(
            explain(
                f"one id for each of {n} rows",
                f"{len(values)} ids",
                "ids and data come from different selections",
                "pass ids=None or one id per row",
            )
        )
    unique, counts = np.unique(values, return_counts=True)
    if len(unique) < n:
        repeated = ", ".join(repr(_plain(i)) for i in unique[counts > 1][:3])
        raise DataError(
            explain(
                "unique row ids",
                f"{int((counts > 1).sum())} ids used more than once, such as {repeated}",
                "the id column is not a key, or rows were duplicated",
                "pass another id column, or none to number the rows",
            )
        )
    return values


def _check_kinds(ids: list[Any]) -> None:
    odd = [i for i in ids if not isinstance(i, (int, float, str, bytes)) or i != i]
    odd += [i for i in ids if isinstance(i, int) and not -(2**63) <= i < 2**64]
    if odd:
        raise DataError(
            explain(
                "numbers or texts as row ids",
                f"{odd[0]!r} of type {type(odd[0]).__name__}",
                "cells are missing, or ids are objects (dates, tuples, UUIDs) or beyond 64 bits",
                "pass texts, ids=[str(i) for i in ids], here and to tape.step",
            )
        )


def _one_of(ids: Sequence[Any] | None, field: Any) -> Any:
    if ids is not None:
        raise DataError(
            explain(
                "the ids of the rows once",
                "both ids=… and a field 'id'",
                "the field 'id' names the rows, as ids=… does",
                "leave one of them out, or call a field that is an input otherwise",
            )
        )
    if np.ndim(field) != 1:
        raise DataError(
            explain(
                "one id per row in the field 'id'",
                f"shape {list(np.shape(field))}",
                "the field holds inputs, not the names of rows",
                "call the field otherwise",
            )
        )
    return field


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _as_dict(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return {k: v for k, v in item.items() if k != "id"}
    names = ["x", "y"] if len(item) == 2 else [str(i) for i in range(len(item))]
    return dict(zip(names, item, strict=True))


def _bytes(tensor: Tensor) -> bytes:
    if not tensor.numel():
        return b""
    strides_anew = (
        tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    )  # v[:, None] has a stride of 0
    return strides_anew.view(torch.uint8).numpy().tobytes()
