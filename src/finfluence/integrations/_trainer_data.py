"""What a Trainer trains on, as rows with a loss each: texts, or pairs of responses of which one is preferred."""

import contextlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from finfluence._files import atomic
from finfluence.errors import DataError, NotSupportedError, explain
from finfluence.grads import Batch, RowLoss
from finfluence.integrations._trainer_batches import array, key_of, packed, rows_in, without
from finfluence.integrations._trainer_checks import DPO as DPO_CONFIG
from finfluence.integrations._trainer_checks import kind_of
from finfluence.language import DPO, Encoded, PreferenceRows, SmoothedLoss, TextRows, mean_token_loss

_REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class Part:
    """One micro-batch: what tells its rows from others, their learned tokens, and N if the model is told it."""

    keys: list[bytes]
    learned: np.ndarray
    total: float | None


@dataclass(frozen=True)
class UnderAutocast:
    """A row loss as a Trainer computes it with bf16=True; `exact` is the loss without, for its derivatives."""

    exact: RowLoss
    device: str
    dtype: torch.dtype

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the losses [B]."""
        with torch.autocast(self.device, self.dtype):
            return self.exact(model, batch)


Cast = tuple[str, torch.dtype] | None
"""Device and type of a Trainer's autocast."""


def under(cast: Cast) -> contextlib.AbstractContextManager[Any]:
    """Return the Trainer's autocast as a block."""
    return contextlib.nullcontext() if cast is None else torch.autocast(*cast)


class Training(Protocol):
    """How a Trainer's batches become rows with losses and weights."""

    loss: RowLoss
    cast: Cast

    def rows(self, items: Iterable[Mapping[str, Any]], ids: Sequence[Any] | None) -> Any:
        """Return the rows, given each as a batch of one."""

    def keys(self, rows: Any) -> list[bytes]:
        """Return what tells each row from others."""

    def texts(self, rows: Any) -> TextRows:
        """Return texts to try the model on."""

    def seen(self, batch: Mapping[str, Any]) -> Part:
        """Return the micro-batch that the model is called with."""

    def weights(self, parts: Sequence[Part]) -> list[Any]:
        """Return what each row's loss, or the mean loss of each micro-batch of a step, is multiplied by."""


class Texts:
    """Texts whose learned tokens count alike: a row of n_i of a step's N tokens has the share n_i/N of its loss."""

    def __init__(self, of_trl: bool, cast: Cast, loss: RowLoss = mean_token_loss) -> None:
        self.loss: RowLoss = loss if cast is None else UnderAutocast(loss, *cast)
        self.cast, self._of_trl = cast, of_trl

    def rows(self, items: Iterable[Mapping[str, Any]], ids: Sequence[Any] | None) -> TextRows:
        """Return the texts."""
        found: list[Encoded] = []
        for k, batch in enumerate(items):
            rows = rows_in(batch)
            if len(rows) != 1:
                raise packed(f"{len(rows)} rows of item {k}")
            found += rows
        return TextRows(found, ids)

    def keys(self, rows: TextRows) -> list[bytes]:
        """Return what tells each text from others."""
        return [key_of(row) for row in rows.encoded]

    def texts(self, rows: TextRows) -> TextRows:
        """Return the rows themselves."""
        return rows

    def seen(self, batch: Mapping[str, Any]) -> Part:
        """Return the rows of a batch; TRL does not tell the model N, which is then counted."""
        rows = rows_in(batch)
        total = batch.get("num_items_in_batch")
        if total is None and not self._of_trl:
            raise without("num_items_in_batch")
        learned = np.array([float(row.learned.sum()) for row in rows])
        return Part([key_of(row) for row in rows], learned, None if total is None else float(total))

    def weights(self, parts: Sequence[Part]) -> list[Any]:
        """Return n_i/N for each row."""
        counted = float(sum(part.learned.sum() for part in parts))
        return [part.learned / (counted if part.total is None else part.total) for part in parts]


class SmoothedTexts(Texts):
    """Texts whose labels are smoothed. The model is called without them: a row is known by its tokens alone."""

    def __init__(self, of_trl: bool, cast: Cast, epsilon: float) -> None:
        super().__init__(of_trl, cast, SmoothedLoss(epsilon))
        self._labels: dict[bytes, np.ndarray] = {}

    def rows(self, items: Iterable[Mapping[str, Any]], ids: Sequence[Any] | None) -> TextRows:
        """Return the texts, of which no two may have the same tokens and other labels."""
        found = super().rows(items, ids)
        for name, row in zip(found.ids.tolist(), found.encoded, strict=True):
            labels = np.where(row.learned, row.tokens, -100)
            if (self._labels.setdefault(row.tokens.tobytes(), labels) != labels).any():
                raise _other_labels(name)
        return found

    def seen(self, batch: Mapping[str, Any]) -> Part:
        """Return the rows of a batch, with the labels that their tokens have in the data."""
        if "labels" not in batch and "input_ids" in batch:
            batch = {**batch, "labels": self._of(batch)}
        return super().seen(batch)

    def _of(self, batch: Mapping[str, Any]) -> np.ndarray:
        tokens, mask = array(batch["input_ids"]), batch.get("attention_mask")
        seen = np.ones(tokens.shape, bool) if mask is None else array(mask) != 0
        labels = np.full_like(tokens, -100)
        for row, real, learned in zip(tokens, seen, labels, strict=True):
            learned[real] = self._labels.get(row[real].tobytes(), -100)
        return labels


class Preferences:
    """Pairs of responses: a step's loss is the mean of its micro-batches' means, times the weight of the loss."""

    def __init__(
        self,
        args: Any,
        cast: Cast,
        model: nn.Module,
        reference: nn.Module | None,
        folder: Path | None,
    ) -> None:
        loss = DPO(float(args.beta))
        self.loss: RowLoss = loss if cast is None else UnderAutocast(loss, *cast)
        self._factor = float((getattr(args, "loss_weights", None) or [1.0])[0])
        self.cast, self._model, self._reference, self._folder = cast, model, reference, folder

    def rows(self, items: Iterable[Mapping[str, Any]], ids: Sequence[Any] | None) -> PreferenceRows:
        """Return the pairs with the log-probabilities of the reference model, as the data has them or computed."""
        sides: tuple[list[Encoded], list[Encoded]] = ([], [])
        given: list[tuple[float, float]] = []
        for k, batch in enumerate(items):
            pair = rows_in(_labelled(batch))
            if len(pair) != 2:
                raise packed(f"{len(pair)} texts of item {k}, for a chosen and a rejected one")
            for side, text in zip(sides, pair, strict=True):
                side.append(text)
            if "ref_chosen_logps" in batch:
                given.append((float(batch["ref_chosen_logps"][0]), float(batch["ref_rejected_logps"][0])))
        chosen, rejected = (TextRows(side, ids) for side in sides)
        if given:
            return PreferenceRows(chosen, rejected, np.array(given, dtype=np.float32))
        kept = None if self._folder is None else read_reference(self._folder)
        if kept is not None:
            return PreferenceRows(chosen, rejected, kept)
        return self._with_reference(PreferenceRows(chosen, rejected))

    def keys(self, rows: PreferenceRows) -> list[bytes]:
        """Return what tells each pair from others."""
        return [key_of(*pair) for pair in zip(rows.chosen.encoded, rows.rejected.encoded, strict=True)]

    def texts(self, rows: PreferenceRows) -> TextRows:
        """Return the chosen responses."""
        return rows.chosen

    def seen(self, batch: Mapping[str, Any]) -> Part:
        """Return the pairs of a batch, whose first half is chosen and the second rejected."""
        texts = rows_in(batch)
        half = len(texts) // 2
        pairs = zip(texts[:half], texts[half:], strict=True)
        return Part([key_of(*pair) for pair in pairs], np.ones(half), None)

    def weights(self, parts: Sequence[Part]) -> list[Any]:
        """Return 1/M for each of M micro-batches, times the loss's own weight."""
        return [self._factor / len(parts)] * len(parts)

    def _with_reference(self, rows: PreferenceRows) -> PreferenceRows:
        model = self._model if self._reference is None else self._reference
        adapters: Any = model
        off = self._reference is None and "ref" not in getattr(adapters, "peft_config", {"ref": None})
        with adapters.disable_adapter() if off else contextlib.nullcontext(), under(self.cast):
            return rows.with_reference(model)


def training_of(
    args: Any, model: nn.Module, reference: nn.Module | None, folder: Path | None = None
) -> Training:
    """Return how the Trainer with these arguments trains `model`; a reference that was kept is in `folder`."""
    kind = kind_of(args)
    cast = (next(model.parameters()).device.type, torch.bfloat16) if args.bf16 else None
    if kind == DPO_CONFIG:
        return Preferences(args, cast, model, reference, folder)
    if args.label_smoothing_factor:
        return SmoothedTexts(kind is not None, cast, float(args.label_smoothing_factor))
    return Texts(kind is not None, cast)


def rows_of(training: Training, loader: Any, ids: Sequence[Any] | None) -> Any:
    """Return the rows of a Trainer's data set, each as the collator gives it alone.

    Returns
    -------
    TextRows or PreferenceRows

    Raises
    ------
    NotSupportedError
        A stream, or rows that the collator does not keep apart.
    DataError
        Another number of ids than of rows.
    """
    data, collate = loader.dataset, loader.collate_fn
    if isinstance(data, torch.utils.data.IterableDataset) or not hasattr(data, "__len__"):
        raise NotSupportedError(
            explain(
                "a data set with a length, whose rows can be read by number",
                type(data).__name__,
                "a stream cannot be read again for replay",
                "load it as a whole, without streaming=True",
            )
        )
    if ids is not None and len(ids) != len(data):
        raise DataError(
            explain(
                f"an id for each of {len(data)} rows",
                f"{len(ids)} ids",
                "they are of another split, or of the rows before some were filtered",
                "pass TapeCallback(ids=…) in the order of train_dataset",
            )
        )
    items = (collate([data[k]]) for k in range(len(data)))
    return training.rows(items, ids)


class Names:
    """Which row has some content. Rows of the same content are named in turn, so that each comes once an epoch."""

    def __init__(self, ids: np.ndarray, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._ids: dict[bytes, deque[Any]] = {}
        for name, key in zip(ids.tolist(), keys, strict=True):
            self._ids.setdefault(key, deque()).append(name)

    @property
    def alike(self) -> list[Any]:
        """Rows whose content stands in the data more than once."""
        return [name for names in self._ids.values() if len(names) > 1 for name in names]

    def take(self, key: bytes) -> Any:
        """Return the row's name in a list, or None if there is no such row."""
        names = self._ids.get(key)
        if names is None:
            return None
        names.rotate(-1)
        return [names[-1]]

    def taken(self, positions: Iterable[int]) -> None:
        """Go on after rows that were taken before."""
        for position in positions:
            self._ids[self._keys[position]].rotate(-1)


def write_reference(folder: Path, rows: Any) -> None:
    """Keep what the reference model says of pairs beside their tape: it cannot be computed once the model moved."""
    if isinstance(rows, PreferenceRows) and rows.reference is not None:
        with atomic(folder / _REFERENCE) as part:
            save_file({"reference": torch.from_numpy(rows.reference)}, part)


def read_reference(folder: Path) -> np.ndarray | None:
    """Return what was kept, if anything was."""
    if not (folder / _REFERENCE).exists():
        return None
    with safe_open(folder / _REFERENCE, "pt") as file:
        found: np.ndarray = file.get_tensor("reference").numpy()
    return found


def _other_labels(name: Any) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "rows that their tokens tell apart, where labels are smoothed",
            f"row {name!r}, with the tokens of an earlier row and other labels",
            "a Trainer that smooths labels keeps them from the model, where the rows of a batch are read",
            "give such rows the same labels or leave one out, or set label_smoothing_factor=0.0",
        )
    )


def _labelled(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model is called with for the batch of a collator for preferences."""
    missing = [name for name in ("input_ids", "completion_mask") if name not in batch]
    if missing:
        raise packed(f"no {missing[0]} in what the collator makes of a pair")
    tokens = array(batch["input_ids"])
    labels = np.where(array(batch["completion_mask"]) == 0, -100, tokens)
    return {"input_ids": tokens, "labels": labels, "attention_mask": batch["attention_mask"]}
