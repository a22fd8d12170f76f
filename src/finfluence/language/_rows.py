"""Rows of texts: named, hashed, and padded into batches of few shapes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finfluence._files import digest
from finfluence.errors import DataError, explain
from finfluence.grads import Batch
from finfluence.language._encode import Encoded, EncodedRows, Tokenizer, encode
from finfluence.language._prefix import Prefix
from finfluence.language._shapes import Shapes, choose_shapes
from finfluence.runs import Rows


class TextRows:
    """Texts of variable length as rows of a recipe, of a recorded loop or of a query.

    A batch is padded on the right to one of few shapes [B, L] and [B, R]: L tokens, of which at most R are learned. In
    a causal model nothing that a row's loss reads lies behind padding, so that padding has no effect.

    Parameters
    ----------
    encoded : sequence of Encoded
        As `encode` returns them.
    ids : sequence, optional
        One unique id a row (default 0 … n−1).
    weights : sequence, optional
        A number for each row, or for each learned token of each row: what its log-probability is multiplied by in
        `weighted_loss` (an advantage, say). 1 by default.
    batch_size : int
        Rows of an ordinary batch, for the choice of shapes.

    Attributes
    ----------
    padded_sizes : array [n]
        Tokens of each row, learned ones counted twice, since they have logits: rows of like size pad each other little.

    Raises
    ------
    DataError
        No rows, repeated ids, a row with nothing to learn, or weights of another number.

    Notes
    -----
    Fields of a batch: `tokens` [B, L] (or `hidden` [B, L, H], behind a `Prefix`); `places` [B, R], where the logits of
    the learned tokens stand; `targets` [B, R], these tokens; `weights` [B, R], 0 for padding; `counts` [B], the learned
    tokens of each row; `id` [B].

    Examples
    --------
    >>> rows = TextRows([Encoded(np.array([5, 6, 7]), np.array([False, False, True]))], ids=["a"])
    >>> batch = rows.batch(torch.tensor([0]))
    >>> batch["tokens"].shape, batch["targets"][0, 0].item(), batch["places"][0, 0].item()
    (torch.Size([1, 8]), 7, 1)
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        ids: Sequence[Any] | None = None,
        weights: Sequence[Any] | None = None,
        batch_size: int = 8,
    ) -> None:
        if not len(encoded):
            raise DataError(
                explain(
                    "at least one text",
                    "none",
                    "an empty file, or all rows were left out",
                    "name another file",
                )
            )
        self.encoded = list(encoded)
        self.ids = Rows(x=np.zeros(len(encoded)), ids=ids).ids
        self.weights = [
            _weights(w, e, i) for w, e, i in zip(_each(weights, self), self.encoded, self.ids, strict=True)
        ]
        lengths = np.array([len(e) for e in self.encoded])
        learned = np.array([int(e.learned[1:].sum()) for e in self.encoded])
        if not learned.all():
            name = self.ids[int((learned == 0).argmax())]
            raise DataError(
                explain(
                    "at least one learned token behind the first in every row",
                    f"none in row {name.item()!r}",
                    "an empty response, or one that was cut off",
                    "take the row out, or raise the length (--max-length)",
                )
            )
        self.padded_sizes = lengths + learned
        self.shapes: Shapes = choose_shapes(lengths, learned, batch_size)
        self._prefix: Prefix | None = None

    @classmethod
    def of(
        cls, texts: Sequence[Any], tokenizer: Tokenizer, ids: Sequence[Any] | None = None, **options: Any
    ) -> "TextRows":
        """Return rows of pairs (prompt, response) or of conversations; `options` as of `encode` and `TextRows`.

        Rows that are left out as too long take their ids with them.

        Returns
        -------
        TextRows
        """
        given = {k: options.pop(k) for k in ("window", "chat") if k in options}
        found: EncodedRows = encode(texts, tokenizer, ids, **given)
        kept = found.positions
        weights = options.pop("weights", None)
        return cls(
            found.rows,
            [i if ids is None else ids[i] for i in kept],
            None if weights is None else [weights[i] for i in kept],
            **options,
        )

    def __len__(self) -> int:
        return len(self.encoded)

    def batch(self, positions: Tensor) -> Batch:
        """Return the rows at `positions`, padded."""
        chosen = [int(p) for p in positions]
        some = [self.encoded[p] for p in chosen]
        places = [np.flatnonzero(e.learned[1:]) for e in some]
        length, width = self.shapes.of(max(map(len, some)), max(map(len, places)))
        at, targets = np.zeros((len(some), width), np.int64), np.zeros((len(some), width), np.int64)
        weights = np.zeros((len(some), width), np.float32)
        for k, (row, place) in enumerate(zip(some, places, strict=True)):
            at[k, : len(place)] = place
            targets[k, : len(place)] = row.tokens[place + 1]
            weights[k, : len(place)] = self.weights[chosen[k]]
        return {
            **self._inputs(chosen, length),
            "places": torch.from_numpy(at),
            "targets": torch.from_numpy(targets),
            "weights": torch.from_numpy(weights),
            "counts": torch.tensor([float(len(place)) for place in places]),
            "id": positions,
        }

    def ends(self) -> Tensor:
        """Return the positions of the shortest and of the longest row."""
        lengths = [len(e) for e in self.encoded]
        return torch.tensor([lengths.index(min(lengths)), lengths.index(max(lengths))])

    def digest(self) -> str:
        """Return a hash of tokens, weights and ids."""
        parts = [e.tokens.tobytes() + e.learned.tobytes() for e in self.encoded]
        return digest(*parts, *(w.tobytes() for w in self.weights), repr(self.ids.tolist()).encode())

    def through(self, prefix: Prefix) -> "TextRows":
        """Return the same rows as the layers above a frozen prefix see them; what it gives is kept there.

        Returns
        -------
        TextRows
        """
        copy = object.__new__(TextRows)
        vars(copy).update(vars(self))
        copy._prefix = prefix
        prefix.prepare([e.tokens for e in self.encoded])
        return copy

    def only(self, positions: Sequence[int]) -> "TextRows":
        """Return some of the rows.

        Returns
        -------
        TextRows
        """
        copy = object.__new__(TextRows)
        vars(copy).update(vars(self))
        copy.encoded = [self.encoded[p] for p in positions]
        copy.weights = [self.weights[p] for p in positions]
        copy.ids, copy.padded_sizes = self.ids[list(positions)], self.padded_sizes[list(positions)]
        return copy

    def _inputs(self, chosen: list[int], length: int) -> Batch:
        if self._prefix is not None:
            return {"hidden": self._prefix.of([self.encoded[p].tokens for p in chosen], length)}
        tokens = np.zeros((len(chosen), length), np.int64)
        for k, p in enumerate(chosen):
            tokens[k, : len(self.encoded[p])] = self.encoded[p].tokens
        return {"tokens": torch.from_numpy(tokens)}


def _each(weights: Sequence[Any] | None, rows: TextRows) -> Sequence[Any]:
    if weights is None:
        return [1.0] * len(rows)
    if len(weights) != len(rows):
        raise DataError(
            explain(
                f"weights of each of {len(rows)} rows",
                f"{len(weights)}",
                "weights and texts come from different selections",
                "pass one number, or a number a learned token, for each row",
            )
        )
    return weights


def _weights(given: Any, row: Encoded, name: Any) -> np.ndarray:
    count = int(row.learned[1:].sum())
    values = np.asarray(given, dtype=np.float32)
    if values.ndim == 0:
        values = np.full(count, values)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise DataError(
            explain(
                f"one finite weight for row {name.item()!r}, or one for each of its {count} learned tokens",
                f"{values.size} values" if values.shape != (count,) else "NaN or infinity",
                "the advantages belong to another tokenizer, or the row was cut",
                "compute them on the tokens of encode(…), which tells the learned ones",
            )
        )
    return values
