"""How the batches of a transformers Trainer tell their rows: by tokens and labels, without padding."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import DataError, NotSupportedError, explain
from finfluence.language import Encoded

_READ = {"input_ids", "attention_mask", "labels"}
_BESIDE = {"num_items_in_batch", "use_cache", "fused_lm_head"}
"""Arguments of a model that leave the loss of a row as it is; the last two are of TRL."""


def rows_in(batch: Mapping[str, Any]) -> list[Encoded]:
    """Return the rows of a batch of `input_ids`, `labels` and `attention_mask`, without padding.

    Returns
    -------
    list of Encoded

    Raises
    ------
    NotSupportedError
        Packed rows, further inputs, no labels, padding between a row's tokens, a first token that is learned behind
        padding, or labels that are not the row's own tokens.
    """  # noqa: DOC501 - made by a function
    _check(batch)
    tokens, labels = array(batch["input_ids"]), array(batch["labels"])
    mask = batch.get("attention_mask")
    seen = np.ones(tokens.shape, bool) if mask is None else array(mask) != 0
    if seen.shape != tokens.shape or labels.shape != tokens.shape:
        raise packed(f"input_ids {tokens.shape}, labels {labels.shape}, attention_mask {seen.shape}")
    edges = np.diff(np.pad(seen, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    if ((edges > 0).sum(1) != 1).any() or (labels[~seen] != -100).any():
        raise NotSupportedError(
            explain(
                "padding before or behind a row's tokens, with labels −100",
                "padding between them, a row of padding alone, or labels on padding",
                "the attention mask has holes, or the collator pads labels with another number",
                "mask padding alone, and pad labels with −100",
            )
        )
    first = seen.argmax(1)
    if (labels[np.arange(len(labels)), first][first > 0] != -100).any():
        raise NotSupportedError(
            explain(
                "a row's loss that does not depend on the rows beside it",
                "a row padded on the left whose first token is learned, from what the model says of padding",
                'the tokenizer pads on the left (padding_side = "left"), and every token is a label',
                'set tokenizer.padding_side = "right", or give the first token of each row the label −100',
            )
        )
    return [_encoded(t[s], y[s]) for t, y, s in zip(tokens, labels, seen, strict=True)]


def check_padding_before(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Raise if padding on the left changes what the model says of a text, or a row's loss has a part of padding.

    Raises
    ------
    NotSupportedError
    """
    if "labels" in batch:
        rows_in(batch)
    mask = batch.get("attention_mask")
    if mask is None or array(mask)[:, 0].all():
        return
    device = next(model.parameters()).device
    tokens, seen = (torch.as_tensor(batch[name], device=device) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        together = model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
        apart, scale = 0.0, 1.0
        for found, row, real in zip(together, tokens, seen.bool(), strict=True):
            alone = model(input_ids=row[real][None], use_cache=False).logits[0]
            apart = max(apart, float((found[real] - alone).abs().max()))
            scale = max(scale, float(alone.abs().max()))
    if not apart <= (1e-3 if together.dtype == torch.float32 else 5e-2) * scale:
        raise NotSupportedError(
            explain(
                "a model that says the same of a text wherever it stands in a batch",
                f"logits that differ by up to {apart:.2g} (of {scale:.2g}) behind padding",
                "the tokenizer pads on the left, and the model counts positions from the padding on",
                'set tokenizer.padding_side = "right"',
            )
        )


def key_of(*texts: Encoded) -> bytes:
    """Return what tells a row from others: tokens and learned places of its text, or of both its texts."""
    return b"|".join(part for row in texts for part in (row.tokens.tobytes(), row.learned.tobytes()))


def array(values: Any) -> np.ndarray:
    """Return token numbers as an array."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.int64)


def packed(found: str) -> NotSupportedError:
    """Return the error of a batch that does not hold one text a row."""
    return NotSupportedError(
        explain(
            "one text a row: input_ids, attention_mask and labels",
            found,
            "texts are packed (padding-free), or the model reads more than tokens",
            "use a collator that pads, and leave further columns out of the batch",
        )
    )


def unknown(row: int) -> DataError:
    """Return the error of a row that is not in the data set."""
    return DataError(
        explain(
            "batches of rows that stand in the data set as they are",
            f"a row of other tokens or labels, row {row} of its batch",
            "the collator cuts, packs or changes rows depending on their batch, pads without an attention_mask, or the "
            "data set augments at random",
            "do so once, before training, or write the loop with fi.Tape.record",
        )
    )


def _check(batch: Mapping[str, Any]) -> None:
    """Raise unless a batch is tokens, mask and labels."""
    if batch.get("output_router_logits"):
        raise NotSupportedError(
            explain(
                "a loss of one row that does not depend on the other rows of its batch",
                "a model of experts that is asked for its router's logits",
                "the loss that balances experts is of a whole batch (router_aux_loss_coef)",
                "set router_aux_loss_coef=0.0",
            )
        )
    more = sorted(set(batch) - _READ - _BESIDE)
    if more:
        raise packed(", ".join(more))
    missing = sorted({"input_ids", "labels"} - set(batch))
    if missing:
        raise without(", ".join(missing))


def without(missing: str) -> NotSupportedError:
    """Return the error of a model that is called without some of what its loss needs."""
    return NotSupportedError(
        explain(
            "a model that is called with input_ids, labels and num_items_in_batch",
            f"no {missing}",
            "a compute_loss of one's own, a collator that makes no labels, or a model that takes no such argument",
            "leave the loss to a causal model of transformers, or write the loop with fi.Tape.record",
        )
    )


def _encoded(tokens: np.ndarray, labels: np.ndarray) -> Encoded:
    learned = labels != -100
    learned[:1] = False
    if (labels[learned] != tokens[learned]).any():
        raise NotSupportedError(
            explain(
                "labels that are the row's own tokens, or −100",
                "other labels",
                "a masked language model (mlm=True), or labels that were shifted beforehand",
                "pass DataCollatorForLanguageModeling(tokenizer, mlm=False), and leave the shift to the model",
            )
        )
    return Encoded(tokens, learned)
