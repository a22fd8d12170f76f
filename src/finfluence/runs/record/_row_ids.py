"""From ids as a loop has them to positions of rows."""

import ctypes
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.errors import ConfigError, DataError, explain
from finfluence.grads import Batch


class RowIds:
    """Looks up positions of rows by id."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids
        self._numbered = ids.dtype.kind in "iu" and bool((ids == np.arange(len(ids))).all())
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def positions(self, given: Any, step: int) -> np.ndarray:
        """Return positions [B] of the ids of one micro-batch.

        Returns
        -------
        np.ndarray

        Raises
        ------
        DataError
            No id, or one that no row has; the step is named.
        """
        if isinstance(given, bytes):
            given = np.frombuffer(given, dtype=np.int64)
        values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(list(given))
        values = values.reshape(-1)
        found = self._found(values)
        if found is not None:
            return found
        if not len(values):
            raise DataError(
                explain(
                    f"the ids of the rows of step {step}",
                    "none",
                    "a batch came out empty, or another variable was passed",
                    'pass the batch\'s own ids, tape.step(ids=batch["id"])',
                )
            )
        known = set(self._ids.tolist())
        unknown = [v for v in values.tolist() if v not in known]
        first = unknown[0] if unknown else values[0].item()
        raise DataError(
            explain(
                "ids of rows of data=",
                f"{len(unknown)} unknown at step {step}, first {first!r}"
                if unknown
                else f"ids as {values.dtype} at step {step}, first {first!r}",
                "ids of another data set or split, or ids of another type (7 is not '7')",
                f"use ids such as {', '.join(repr(v) for v in self._ids[:3].tolist())}",
            )
        )

    def together(self, given: list[Any]) -> Iterator[np.ndarray] | None:
        """Return positions of micro-batches whose ids are alike, looked up at once; None if one is unknown."""
        if all([type(ids) is bytes for ids in given]):
            sizes = [len(ids) // 8 for ids in given]
            values = np.frombuffer(b"".join(given), dtype=np.int64)
        elif all(isinstance(ids, Tensor) and ids.ndim == 1 for ids in given):
            if len({(ids.dtype, ids.device) for ids in given}) != 1:
                return None
            sizes = [ids.numel() for ids in given]
            values = torch.cat(given).detach().cpu().numpy()
        else:
            return None
        found = None if 0 in sizes else self._found(values)
        if found is None:
            return None
        return (found[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True))

    def _found(self, values: np.ndarray) -> np.ndarray | None:
        """Return the positions of ids [B], or None if there is none, or one that no row has."""
        alike = (values.dtype.kind in "iu") == (self._ids.dtype.kind in "iu")
        if not len(values):
            return None
        if self._numbered and alike:
            if values.min() >= 0 and values.max() < len(self._ids):
                return values.astype(np.int64)
        elif alike and (values.dtype.kind in "U") == (self._ids.dtype.kind in "U"):
            at = np.searchsorted(self._sorted, values).clip(max=len(self._ids) - 1)
            if (self._sorted[at] == values).all():
                found: np.ndarray = self._order[at].astype(np.int64)
                return found
        return None


def kept_ids(ids: Any) -> Any:
    """Return ids that stay what they are when the loop writes on its own ones: int64 of the CPU as bytes."""
    if not isinstance(ids, Tensor):
        return list(ids)
    if type(ids) is Tensor and ids.dtype is torch.int64 and ids.is_cpu and ids.is_contiguous():
        return ctypes.string_at(ids.data_ptr(), 8 * ids.numel())
    return ids.clone()


def micro_batches(ids: Any) -> list[Any]:
    """Return the ids of each micro-batch: several if `ids` is a list of tensors or lists."""
    if isinstance(ids, (list, tuple)) and len(ids):
        first = ids[0]
        if isinstance(first, (list, tuple, range, np.ndarray)) or (isinstance(first, Tensor) and first.ndim):
            return list(ids)
    return [ids]


def micro_batch_fields(batch: Batch | Sequence[Batch], parts: int) -> list[Batch]:
    """Return the fields of each micro-batch.

    Returns
    -------
    list of dict

    Raises
    ------
    ConfigError
        Another number of them, or something else.
    """
    listed = [batch] if isinstance(batch, dict) else list(batch)
    if len(listed) != parts or not all(isinstance(b, dict) for b in listed):
        raise ConfigError(
            explain(
                "batch= to be the dict of fields that the loss takes, one for each micro-batch",
                f"{len(listed)} of type {type(listed[0]).__name__ if listed else 'none'} for {parts} micro-batches",
                "the batch is a tuple, or ids and batches were cut differently",
                'pass for instance batch={"x": x, "y": y}',
            )
        )
    return listed
