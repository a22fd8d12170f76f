"""Record the training of a transformers Trainer: the one file that imports its callback."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._extras import missing
from finfluence.errors import (
    ConfigError,
    DataError,
    NotSupportedError,
    explain,
)
from finfluence.integrations._recording import Recording
from finfluence.language import Encoded, TextRows, check_logits, sum_token_loss
from finfluence.runs import Tape

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ConfigError(missing("transformers", "trains what this module records", "lm", error)) from error

_TAKEN = {"input_ids", "attention_mask", "labels", "num_items_in_batch"}
_FLAGS = (
    ("label_smoothing_factor", "the loss smooths labels"),
    ("neftune_noise_alpha", "noise is added to embeddings"),
    ("bf16", "the loss is computed under autocast"),
    ("fp16", "the loss is computed under autocast"),
    ("torch_compile", "the model is replaced by a compiled one"),
    ("deepspeed", "the optimiser's steps are taken elsewhere"),
    ("fsdp", "parameters are spread over processes"),
)
_DROPOUTS = ("attention_dropout", "attn_pdrop", "attn_dropout", "attention_probs_dropout_prob")


class TapeCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Record a Trainer's causal language-model training as `Tape.record` records a loop; the same tape, bit for bit.

    The rows are those of the Trainer's data set, one at a time through its collator. A batch's rows are recognised by
    their tokens and labels, as the model is called with them: no id need survive the collator. The row loss is the sum
    over a row's learned tokens, `fi.lm.sum_token_loss`; each micro-batch of B rows weighs B/N, N the learned tokens of
    the whole step, so that a step's loss is the Trainer's mean over tokens. `max_grad_norm` and what the optimiser and
    its schedule do are read off the Trainer; `finish` takes some steps again and raises where they come out otherwise.

    Parameters
    ----------
    out : path, optional
        Folder for the tape; in memory if None.
    ids : sequence, optional
        One unique id for each row of the data set, in its order (default: positions).
    **options
        Of `Tape.record`: parameters, sampling, steps_per_epoch, snapshot_bytes.

    Raises
    ------
    ConfigError, NotSupportedError, DataError, StorageError
        From `Trainer.train`, before its first step where it shows: several devices, mixed precision, dropout, packing,
        rows that are the same to the last token, a resumed run, gradient checkpointing, a loss of one's own, trainers
        of TRL.

    Examples
    --------
    >>> import tempfile
    >>> from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=16,
    ...     resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1))
    >>> items = [{"input_ids": [2, 3, k], "labels": [-100, 3, k]} for k in range(4, 10)]
    >>> recorded = TapeCallback()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     arguments = TrainingArguments(folder, num_train_epochs=2, per_device_train_batch_size=3, report_to="none",
    ...         use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no")
    ...     trainer = Trainer(model, arguments, train_dataset=items, callbacks=[recorded])
    ...     _ = trainer.train()  # doctest: +ELLIPSIS
    {...}
    >>> recorded.tape.epochs
    [range(0, 2), range(2, 4)]
    """

    def __init__(
        self, out: str | os.PathLike[str] | None = None, *, ids: Sequence[Any] | None = None, **options: Any
    ) -> None:
        self._out, self._ids, self._options = out, ids, options
        self._recording = Recording(
            "trainer.train was not called, goes on or was broken off; or it is not among its callbacks",
            "call trainer.train with Trainer(callbacks=[recorded]), or recorded.end() if it was broken off",
        )
        self._hook: Any = None
        self._names: dict[bytes, Any] = {}
        self._parts: list[tuple[list[Any], float]] = []

    @property
    def tape(self) -> Tape:
        """The tape of the last training.

        Raises
        ------
        ConfigError
            No training has been recorded.
        FinfluenceError
            The training cannot be replayed, with the reason.
        """
        return self._recording.tape

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to record."""
        self.end()
        self._recording.forget()
        self._parts = []
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        _check_arguments(args, state)
        _check_model(model)
        rows = _rows_of(loader, self._ids)
        self._names = _names(rows)
        check_logits(model, _moved(rows.batch(torch.tensor([0])), next(model.parameters()).device))
        options = dict(self._options)
        if args.max_grad_norm is not None and args.max_grad_norm > 0:
            options["clip_norm"] = float(args.max_grad_norm)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        self._recording.recorder = Tape.record(
            model, optimizer, loss=sum_token_loss, data=rows, out=self._out, **options
        )
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget the batches of the step before."""
        self._parts = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Name the rows of the step that was taken."""
        assert self._recording.recorder is not None
        parts, self._parts = self._parts, []
        self._recording.recorder.step([ids for ids, _ in parts], weights=[weight for _, weight in parts])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the recording; what is wrong with it is a warning here, and an error where the tape is read."""
        self.end()
        self._recording.warn()

    def end(self) -> None:
        """End the recording of a training that an exception broke off; the Trainer's own end calls it too."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        self._recording.finish()

    def _see(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Read the rows of a batch as the model is called with it."""
        if not (model.training and torch.is_grad_enabled()):
            return
        _check_batch(kwargs)
        rows = [_encoded(*row) for row in _rows_in(kwargs)]
        found = [self._names.get(_key(row)) for row in rows]
        if None in found:
            raise _unknown(found.index(None))
        weight = len(rows) / float(kwargs["num_items_in_batch"])
        self._parts.append(([name[0] for name in found if name is not None], weight))


def _check_arguments(args: Any, state: Any) -> None:
    """Raise if the Trainer trains in a way that a tape does not hold."""
    if any(kind.__module__.split(".")[0] == "trl" for kind in type(args).__mro__):
        raise NotSupportedError(
            explain(
                "a Trainer of transformers",
                f"one of TRL, with {type(args).__name__}",
                "its losses and batches have not been shown to be recorded as they are",
                "train by transformers.Trainer, or write the loop with fi.Tape.record",
            )
        )
    if args.world_size > 1 or args.n_gpu > 1:
        raise NotSupportedError(
            explain(
                "a Trainer with one process on one device",
                f"{args.world_size} processes, {args.n_gpu} GPUs in this one",
                "the callback sees the rows of its own process only, and a model that was copied to each GPU",
                "set CUDA_VISIBLE_DEVICES to one device, or write the loop with fi.Tape.record",
            )
        )
    if state.global_step:
        raise NotSupportedError(
            explain(
                "a training from its first step",
                f"one resumed at step {state.global_step}",
                "the steps before it are on no tape of this callback",
                "train from the start, without resume_from_checkpoint",
            )
        )
    for name, cause in _FLAGS:
        if getattr(args, name, None):
            raise NotSupportedError(
                explain(
                    f"TrainingArguments without {name}",
                    f"{name}={getattr(args, name)!r}",
                    f"{cause}; such steps have not been shown to be taken again as they were",
                    f"leave {name} out, or write the loop with fi.Tape.record",
                )
            )


def _check_model(model: nn.Module) -> None:
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise NotSupportedError(
            explain(
                "a model without gradient checkpointing",
                f"{type(model).__name__} with it",
                "activation_checkpointing=True (once gradient_checkpointing): not shown to be recorded as it is",
                "leave it out, or write the loop with fi.Tape.record on a model without it",
            )
        )
    found = [name for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    config = getattr(model, "config", None)
    found += [f"config.{name}" for name in _DROPOUTS if getattr(config, name, 0)]
    if found:
        raise NotSupportedError(
            explain(
                "a model without dropout",
                f"dropout at {found[0]}" + (f" and {len(found) - 1} more places" if len(found) > 1 else ""),
                "its random numbers depend on how a batch is padded, and replay pads in a way of its own",
                "set each dropout of the model's config to 0 (and lora_dropout), or record a loop with fi.Tape.record",
            )
        )


def _rows_of(loader: Any, ids: Sequence[Any] | None) -> TextRows:
    """Return the rows of the Trainer's data set, each as the collator gives it alone."""
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
    rows = []
    for k in range(len(data)):
        batch = collate([data[k]])
        _check_batch({"num_items_in_batch": 0, **batch})
        if len(batch["input_ids"]) != 1:
            raise _packed(f"{len(batch['input_ids'])} rows of item {k}")
        rows += [_encoded(*row) for row in _rows_in(batch)]
    return TextRows(rows, ids, batch_size=max(1, loader.batch_size or 8))


def _names(rows: TextRows) -> dict[bytes, Any]:
    """Return the id of each row by its content, in a list of one."""
    names: dict[bytes, Any] = {}
    for name, row in zip(rows.ids.tolist(), rows.encoded, strict=True):
        other = names.setdefault(_key(row), [name])
        if other[0] != name:
            raise DataError(
                explain(
                    "rows that differ in their tokens or labels",
                    f"rows {other[0]!r} and {name!r} that are the same",
                    "a text stands twice in the data; a batch does not say which of them it holds",
                    "keep one of each, or write the loop with fi.Tape.record, where rows are named by id",
                )
            )
    return names


def _check_batch(batch: Mapping[str, Any]) -> None:
    """Raise unless a batch is tokens, mask and labels, and N is known."""
    more = sorted(set(batch) - _TAKEN)
    if more:
        raise _packed(", ".join(more))
    missing = sorted(_TAKEN - {"attention_mask"} - set(batch))
    if missing:
        raise NotSupportedError(
            explain(
                "a model that is called with input_ids, labels and num_items_in_batch",
                f"no {', '.join(missing)}",
                "a compute_loss of one's own, a collator that makes no labels, or a model that takes no such argument",
                "leave the loss to a causal model of transformers, or write the loop with fi.Tape.record",
            )
        )


def _packed(found: str) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "one text a row: input_ids, attention_mask and labels",
            found,
            "texts are packed (padding-free), or the model reads more than tokens",
            "use a collator that pads, and leave further columns out of the batch",
        )
    )


def _rows_in(batch: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return tokens and labels of each row, without padding."""
    tokens, labels = _array(batch["input_ids"]), _array(batch["labels"])
    mask = batch.get("attention_mask")
    seen = np.ones(tokens.shape, bool) if mask is None else _array(mask) != 0
    if seen.shape != tokens.shape or labels.shape != tokens.shape:
        raise _packed(f"input_ids {tokens.shape}, labels {labels.shape}, attention_mask {seen.shape}")
    if (
        (np.diff(seen.astype(np.int8), axis=1) > 0).any()
        or not seen[:, 0].all()
        or (labels[~seen] != -100).any()
    ):
        raise NotSupportedError(
            explain(
                "padding behind a row's tokens, with labels −100",
                "padding before or between them, or labels on padding",
                "the tokenizer pads on the left, or the collator pads labels with another number",
                'set tokenizer.padding_side = "right", and pad labels with −100',
            )
        )
    return [(t[s], y[s]) for t, y, s in zip(tokens, labels, seen, strict=True)]


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


def _unknown(row: int) -> DataError:
    return DataError(
        explain(
            "batches of rows that stand in the data set as they are",
            f"a row of other tokens or labels, row {row} of its batch",
            "the collator cuts, packs or changes rows depending on their batch, or the data set augments at random",
            "do so once, before training, or write the loop with fi.Tape.record",
        )
    )


def _key(row: Encoded) -> bytes:
    return row.tokens.tobytes() + b"|" + row.learned.tobytes()


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.int64)


def _moved(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {k: v.to(device) for k, v in batch.items()}
