"""Record the training of a transformers Trainer, or of TRL's: the one file that imports its callback."""

import inspect
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finfluence._extras import missing
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.integrations._recording import Recording
from finfluence.integrations._trainer_batches import check_padding_before, unknown
from finfluence.integrations._trainer_checks import check_arguments, check_trained_model, kind_of
from finfluence.integrations._trainer_data import (
    Names,
    Part,
    Training,
    rows_of,
    training_of,
    under,
    write_reference,
)
from finfluence.language import check_logits
from finfluence.runs import Tape

try:
    import transformers
    from transformers import TrainerCallback
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.trainer_pt_utils import LabelSmoother
except ImportError as error:
    raise ConfigError(missing("transformers", "trains what this module records", "lm", error)) from error


class TapeCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Record a Trainer's causal language-model training as `Tape.record` records a loop; the same tape, bit for bit.

    Of transformers' `Trainer` and of TRL's `SFTTrainer` and `DPOTrainer`. The rows are those of the Trainer's data set,
    one at a time through its collator. A batch's rows are recognised by their tokens and labels, as the model is called
    with them: no id need survive the collator, and copies of a row are named in turn, once an epoch each.

    A row's loss is the mean over its learned tokens, `fi.lm.mean_token_loss`, and its share of a step n_i/N, with N the
    learned tokens of the whole step, so that a step's loss is the Trainer's mean over tokens; with
    `label_smoothing_factor` it is `fi.lm.SmoothedLoss`, and queries stay as they are. For `DPOTrainer` it is
    `fi.lm.DPO(beta)`, with one share a pair. With bf16=True steps are taken again under autocast; derivatives are taken
    without. Padding may stand on either side: on the left, it is tried at the start that the model says the same of a
    text with and without. `max_grad_norm` and what the optimiser and its schedule do are read off the Trainer;
    `finish` takes some steps again and raises where they come out otherwise.

    With a folder, the tape is written whenever the Trainer saves a checkpoint, and a training that is resumed from one
    goes on with it: the tape is that of the training that never stopped.

    Parameters
    ----------
    out : path, optional
        Folder for the tape; in memory if None.
    ids : sequence, optional
        One unique id for each row of the data set, in its order (default: positions).
    reference : nn.Module, optional
        The reference model of DPO, where it is not the model as the training begins, nor the one without its adapter.
    **options
        Of `Tape.record`: parameters, sampling, steps_per_epoch, snapshot_bytes.

    Raises
    ------
    ConfigError, NotSupportedError, DataError, StorageError
        From `Trainer.train`, before its first step where it shows: several devices, fp16, dropout, packing, losses
        other than these, other trainers of TRL, a resumed training whose tape is not in the folder.

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
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        ids: Sequence[Any] | None = None,
        reference: nn.Module | None = None,
        **options: Any,
    ) -> None:
        self._out, self._ids, self._reference = None if out is None else Path(out), ids, reference
        self._options = options
        self._recording = Recording(
            "trainer.train was not called, goes on or was broken off; or it is not among its callbacks",
            "call trainer.train with Trainer(callbacks=[recorded]), or recorded.end() if it was broken off",
        )
        self._hook: Any = None
        self._names: Names
        self._training: Training
        self._rows: Any = None
        self._parts: list[Part] = []
        self._ids_seen: list[list[Any]] = []

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
        """Begin to record, or go on where the checkpoint was saved that the training is resumed from."""
        self.end()
        self._recording.forget()
        self._forget_step()
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        check_arguments(args, kind_of(args))
        check_trained_model(model)
        if args.label_smoothing_factor:
            _check_smoothing(model, kind_of(args))
        resumed = state.global_step or None
        if resumed and self._out is None:
            raise _not_kept(resumed)
        self._training = training_of(args, model, self._reference, self._out if resumed else None)
        self._rows = rows_of(self._training, loader, self._ids)
        self._names = Names(self._rows.ids, self._training.keys(self._rows))
        texts = self._training.texts(self._rows)
        with under(self._training.cast):
            check_logits(model, texts.batch(texts.ends()))
            check_padding_before(model, loader.collate_fn([loader.dataset[k] for k in texts.ends().tolist()]))
        options = dict(self._options)
        if args.max_grad_norm is not None and args.max_grad_norm > 0:
            options["clip_norm"] = float(args.max_grad_norm)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        recorder = Tape.record(
            model,
            optimizer,
            loss=self._training.loss,
            data=self._rows,
            out=self._out,
            resume_at=resumed,
            **options,
        )
        self._recording.recorder = recorder
        self._names.taken(recorder.drawn.tolist())
        if alike := self._names.alike:
            warnings.warn(_alike(alike), stacklevel=2)
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget the batches of the step before."""
        self._forget_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Name the rows of the step that was taken."""
        assert self._recording.recorder is not None
        ids, weights = self._ids_seen, self._training.weights(self._parts)
        self._forget_step()
        self._recording.recorder.step(ids, weights=weights)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the tape as far as the checkpoint that the Trainer has just saved."""
        if self._out is not None and self._recording.recorder is not None and state.global_step:
            self._recording.recorder.save()
            write_reference(self._out, self._rows)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the recording; what is wrong with it is a warning here, and an error where the tape is read."""
        self.end()
        self._recording.warn()

    def end(self) -> None:
        """End the recording of a training that an exception broke off; the Trainer's own end calls it too."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        recorded = self._recording.recorder is not None
        self._recording.finish()
        if recorded and self._out is not None and (self._out / "tape.json").exists():
            write_reference(self._out, self._rows)

    def _forget_step(self) -> None:
        self._parts, self._ids_seen = [], []

    def _see(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Read the rows of a batch as the model is called with it."""
        if not (model.training and torch.is_grad_enabled()):
            return
        part = self._training.seen(kwargs)
        names = [self._names.take(key) for key in part.keys]
        if None in names:
            raise unknown(names.index(None))
        self._parts.append(part)
        self._ids_seen.append([name[0] for name in names])


def open_tape(
    folder: str | os.PathLike[str],
    trainer: Any,
    *,
    ids: Sequence[Any] | None = None,
    reference: nn.Module | None = None,
    partial: bool = False,
) -> Tape:
    """Open a tape that `TapeCallback(folder)` recorded, with a Trainer made as the one that was recorded.

    Parameters
    ----------
    folder : path
    trainer : transformers.Trainer
        With the same model, data and arguments; it need not train. Weights that were trained come from the tape.
    ids, reference
        As of `TapeCallback`.
    partial : bool
        Read the tape of a training that was broken off, up to its last whole step, unchecked.

    Returns
    -------
    Tape

    Raises
    ------
    StorageError
        No tape there, one of other data or of another model, or an unfinished one.

    Examples
    --------
    >>> import tempfile
    >>> from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=16,
    ...     resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1))
    >>> items = [{"input_ids": [2, 3, k], "labels": [-100, 3, k]} for k in range(4, 10)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     arguments = TrainingArguments(folder, num_train_epochs=1, report_to="none", use_cpu=True,
    ...         disable_tqdm=True, save_strategy="no", logging_strategy="no")
    ...     recorded = TapeCallback(f"{folder}/tape")
    ...     trainer = Trainer(model, arguments, train_dataset=items, callbacks=[recorded])
    ...     _ = trainer.train()  # doctest: +ELLIPSIS
    ...     open_tape(f"{folder}/tape", trainer).steps
    {...}
    1
    """
    training = training_of(trainer.args, trainer.model, reference, Path(folder))
    rows = rows_of(training, trainer.get_train_dataloader(), ids)
    return Tape.open(folder, model=trainer.model, loss=training.loss, data=rows, partial=partial)


def _check_smoothing(model: Any, kind: str | None) -> None:
    """Raise unless the Trainer takes smoothed losses of the next token, over the tokens of a step."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if kind is None and type(inner).__name__ not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise NotSupportedError(
            explain(
                "a causal model of transformers, where labels are smoothed",
                f"{type(inner).__name__}",
                "a class of another name: the Trainer smooths the label of each token itself, not of the one behind it",
                "train the class of transformers, or set label_smoothing_factor=0.0",
            )
        )
    if "num_items_in_batch" not in inspect.signature(LabelSmoother.__call__).parameters:
        raise NotSupportedError(
            explain(
                "transformers from 5.15 on, where labels are smoothed",
                transformers.__version__,
                "older ones average smoothed losses over each micro-batch, and not over the tokens of a step",
                "pip install 'transformers>=5.15', or set label_smoothing_factor=0.0",
            )
        )


def _not_kept(step: int) -> ConfigError:
    return ConfigError(
        explain(
            "a tape on disk, to go on with",
            f"a training resumed at step {step}, and TapeCallback() without a folder",
            "the steps before were recorded in the memory of a process that has ended, or not at all",
            'record with TapeCallback("folder") from the first step on; or train without resume_from_checkpoint',
        )
    )


def _alike(names: Sequence[Any]) -> str:
    return (
        f"{len(names)} rows stand in the data more than once with the same tokens and labels, such as {names[0]!r} and "
        f"{names[1]!r}: a batch does not say which of them it holds, and they are named in turn; their sum is right, "
        "and which of them was drawn at which step of an epoch is not known"
    )
