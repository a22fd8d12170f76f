"""What tells whether weights or rows are still those of a run: sums over their bits, and the errors if they are not."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence.errors import ConfigError, DataError, explain
from finfluence.runs.describe._rows import Rows, RowSource, varies

Checksums = dict[str, tuple[str, int]]

_BLOCKS = {"cpu": 2**15, "cuda": 2**22}  # words: what fits a cache, what keeps a GPU busy
_FACTOR = 6364136223846793005  # Knuth's multiplier of a 64-bit congruential generator
_MODULUS = 2**64
_ITEMS = 64


def checksum(tensor: Tensor) -> int:
    """Return a 64-bit sum over a tensor's bits, weighed by their places: one reading of its memory.

    Two tensors of one shape and dtype with different sums differ; equal sums of different ones are an accident of
    2⁻⁶⁴.

    Returns
    -------
    int

    Examples
    --------
    >>> checksum(torch.tensor([1.0, 2.0])) == checksum(torch.tensor([2.0, 1.0]))
    False
    """
    flat = tensor.detach().contiguous().reshape(-1)
    if not flat.numel():
        return 0
    flat = flat.view(torch.uint8)
    width = next(
        size for size in (8, 4, 2, 1) if flat.numel() % size == 0 and flat.storage_offset() % size == 0
    )
    words = flat.view({8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[width])
    size = min(_BLOCKS.get(words.device.type, 2**22), len(words))
    weights = _weights(size, words.device)
    total = 0
    for block in words.split(size):
        here = int((_mixed(block.long()) * weights[: len(block)]).sum())
        total = (total * _FACTOR + here) % _MODULUS
    return total


def _weights(count: int, device: torch.device) -> Tensor:
    """Return odd numbers that look random, one for each place."""
    return _mixed(torch.arange(1, count + 1, dtype=torch.int64, device=device)) | 1


def _mixed(words: Tensor) -> Tensor:
    """Return the words with every bit spread over all, one to one: a sum alone would not see two signs turned."""
    words = (words ^ ((words >> 32) & 0xFFFFFFFF)) * _FACTOR
    return words ^ ((words >> 29) & (2**35 - 1))


def checksums(named: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[str, int]]:
    """Return shape, dtype and `checksum` of every tensor, by name."""
    return {name: (f"{tuple(t.shape)} {t.dtype}", checksum(t)) for name, t in named}


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first name whose entry differs, or None."""
    return next((n for n in [*before, *now] if before.get(n) != now.get(n)), None)


def rows_checksums(rows: RowSource) -> Checksums:
    """Return checksums of every field; of a data set, of 64 items; of one whose items change, none."""
    if isinstance(rows, Rows):
        return checksums(rows.fields.items())
    if varies(rows):
        return {}
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _ITEMS)).astype(np.int64))
    named = {}
    for position in some.tolist():
        for field, value in rows.batch(torch.tensor([position])).items():
            named[f"{field} of row {rows.ids[position].item()!r}"] = value
    return checksums(named.items())


def changed_model(name: str) -> ConfigError:
    """Return the error of a model with other weights than the run's."""
    return ConfigError(
        explain(
            "the model that the run was made with",
            f"other values of '{name}'",
            "the model was trained on, loaded, or its adapters merged since; frozen weights are not copied, but "
            "shared with it",
            "give the parameter its values again, or record and train with a copy of the model (copy.deepcopy)",
        )
    )


def changed_data(field: str) -> DataError:
    """Return the error of rows with other values than the run's."""
    return DataError(
        explain(
            "the rows that the run was made with",
            f"other values of field {field if ' of row ' in field else repr(field)}",
            "rows are not copied, and their arrays were shuffled, scaled or written on since",
            "give the arrays their values again, or make fi.Rows from copies and train again",
        )
    )
