"""Record the training of a Lightning Trainer: the one file that imports Lightning."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finfluence._extras import missing
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.integrations._recording import Recording
from finfluence.runs import Tape

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ConfigError(missing("lightning", "trains what this module records", "lightning", error)) from error

RowLoss = Callable[[nn.Module, dict[str, Any]], Tensor]
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_WHOLE = ("32-true", "64-true")


class RecordTape(Callback):
    """Record a Trainer's fit as `Tape.record` records a loop; the tape is the same, bit for bit.

    Read off the Trainer: where `accumulate_grad_batches` ends a step, `gradient_clip_val` and its algorithm, and the
    gradient scaler of *16-mixed*. The tape begins with the training, after the sanity check, and ends with it.

    Parameters
    ----------
    loss : callable
        `loss(module, batch) -> Tensor[B]`, one loss per row, whose mean `training_step` returns; `module` is the
        LightningModule. Under mixed precision with its own autocast, as the Trainer's is around `training_step`.
    data : Rows, dict of arrays, or map-style Dataset
        The training rows.
    out : path, optional
        Folder for the tape; in memory if None.
    ids : callable, optional
        `ids(batch)`, the row ids of a batch of the loader (default: `batch["id"]`).
    batches : bool
        Store the batches, which are dicts then, as the module saw them: for a data set that augments at random.
    **options
        Of `Tape.record`: parameters, collate, sampling, steps_per_epoch, snapshot_bytes; also clip_norm or
        clip_value, for a module that clips in a way of its own.

    Raises
    ------
    ConfigError, NotSupportedError, DataError, StorageError
        From `Trainer.fit`: a training that cannot be recorded, with the reason, before its first step where it shows.

    Examples
    --------
    >>> import lightning.pytorch as L
    >>> import warnings
    >>> warnings.simplefilter("ignore")  # Lightning's own: few workers, names that torch has since changed
    >>> items = [{"id": i, "x": torch.eye(4)[i], "y": torch.tensor(float(i))} for i in range(4)]
    >>> def row_loss(module, batch):
    ...     return (module(batch["x"])[:, 0] - batch["y"]) ** 2
    >>> class Module(L.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = nn.Linear(4, 1)
    ...     def forward(self, x):
    ...         return self.net(x)
    ...     def training_step(self, batch, index):
    ...         return row_loss(self, batch).mean()
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    ...          "enable_model_summary": False, "accelerator": "cpu"}
    >>> trainer = L.Trainer(max_epochs=2, callbacks=[recorded := RecordTape(row_loss, items)], **quiet)
    >>> trainer.fit(Module(), torch.utils.data.DataLoader(items, batch_size=2, shuffle=True))
    >>> recorded.tape.epochs
    [range(0, 2), range(2, 4)]
    """

    def __init__(
        self,
        loss: RowLoss,
        data: Any,
        out: str | os.PathLike[str] | None = None,
        *,
        ids: Callable[[Any], Any] | None = None,
        batches: bool = False,
        **options: Any,
    ) -> None:
        self._loss, self._data, self._out, self._ids, self._batches = loss, data, out, ids, batches
        self._options = options
        self._recording = Recording(
            "trainer.fit was not called, took no step, or goes on; or it is not among the Trainer's callbacks",
            "call trainer.fit with L.Trainer(callbacks=[recorded]), then read recorded.tape",
        )
        self._done = 0
        self._now: Any = None
        self._parts: list[tuple[Any, Any]] = []

    @property
    def tape(self) -> Tape:
        """The tape of the last fit.

        Raises
        ------
        ConfigError
            No fit has been recorded.
        FinfluenceError
            The training cannot be replayed, with the reason.
        """
        return self._recording.tape

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record."""
        _check(trainer, pl_module)
        loss, plugin = self._loss, trainer.precision_plugin
        if plugin.precision in _MIXED:
            loss = _Autocast(loss, pl_module.device, _MIXED[plugin.precision])
        self._recording.forget()
        self._done, self._parts = trainer.global_step, []
        options = {"scaler": getattr(plugin, "scaler", None), **_clipping(trainer), **self._options}
        (optimizer,) = trainer.optimizers
        self._recording.recorder = Tape.record(
            pl_module, optimizer, loss=loss, data=self._data, out=self._out, **options
        )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Read the ids of a batch."""
        ids = self._ids(batch) if self._ids is not None else _ids_of(batch)
        self._now = ids.reshape(-1) if isinstance(ids, Tensor) else list(ids)

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Forget the batches whose gradients are forgotten."""
        self._parts = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Name the rows of the step, if the batch ended one."""
        if outputs:  # else `training_step` returned None, and the batch has no gradient
            self._parts.append((self._now, batch))
        if trainer.global_step == self._done:
            return
        self._done, parts, self._parts = trainer.global_step, self._parts, []
        if not parts:
            raise _without_loss(self._done - 1)
        weights = [1.0 / trainer.accumulate_grad_batches] * len(parts)
        ids, batches = [p[0] for p in parts], [p[1] for p in parts]
        assert self._recording.recorder is not None
        self._recording.recorder.step(ids, weights=weights, batch=batches if self._batches else None)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the recording; what is wrong with it is a warning here, and an error where the tape is read."""
        self._recording.finish()
        self._recording.warn()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the recording where the training was broken off."""
        self._recording.finish()


class _Autocast:
    """The loss, compared with itself under the Trainer's autocast when it is called first."""

    def __init__(self, loss: RowLoss, device: torch.device, dtype: torch.dtype) -> None:
        self._loss, self._device, self._dtype, self._same = loss, device, dtype, False

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        if not self._same:
            self._check(module, batch)
        return self._loss(module, batch)

    def _check(self, module: nn.Module, batch: dict[str, Any]) -> None:
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            plain = self._loss(module, batch)
        with torch.random.fork_rng(devices), torch.autocast(self._device.type, self._dtype):
            cast = self._loss(module, batch)
        if plain.dtype != cast.dtype or not torch.equal(plain.nan_to_num(), cast.nan_to_num()):
            raise ConfigError(
                explain(
                    f"a loss with the Trainer's autocast in {self._dtype} inside",
                    "one with other values under autocast",
                    "the Trainer has autocast around training_step; replay calls the loss alone, in full precision",
                    f"write the body of the loss under torch.autocast({self._device.type!r}, {self._dtype})",
                )
            )
        self._same = True


def _check(trainer: Any, module: Any) -> None:
    """Raise if the Trainer trains in a way that a tape does not hold."""
    if not module.automatic_optimization:
        raise ConfigError(
            explain(
                "a module with automatic optimisation and one optimiser",
                f"manual optimisation, with {len(trainer.optimizers)} optimisers",
                "training_step takes the optimiser's steps itself, out of the Trainer's sight",
                "use automatic optimisation, or call fi.Tape.record and tape.step in training_step for one optimiser",
            )
        )
    if trainer.world_size > 1 or trainer.strategy.handles_gradient_accumulation:
        raise NotSupportedError(
            explain(
                "a Trainer with one process",
                f"{trainer.world_size} processes, strategy {type(trainer.strategy).__name__}",
                "the callback sees the rows of its own process only",
                "train with devices=1, num_nodes=1, or write the loop with fi.Tape.record",
            )
        )
    precision = trainer.precision_plugin.precision
    if precision not in (*_WHOLE, *_MIXED):
        raise NotSupportedError(
            explain(
                f"a Trainer with precision {', '.join((*_WHOLE, *_MIXED))}",
                f"'{precision}'",
                "its steps have not been shown to be taken again as they were",
                "use one of those, such as precision='bf16-mixed'",
            )
        )


def _clipping(trainer: Any) -> dict[str, float]:
    value = trainer.gradient_clip_val
    if value is None or value <= 0:
        return {}
    return {"clip_value" if trainer.gradient_clip_algorithm == "value" else "clip_norm": float(value)}


def _ids_of(batch: Any) -> Any:
    if isinstance(batch, Mapping) and "id" in batch:
        return batch["id"]
    fields = f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
    raise ConfigError(
        explain(
            'batches that carry the ids of their rows, batch["id"]',
            f"a batch of type {type(batch).__name__}{fields}",
            "the items of the data set have no id, or batches are tuples",
            'return "id" with every item, or say where ids are, such as RecordTape(…, ids=lambda batch: batch[2])',
        )
    )


def _without_loss(step: int) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a loss for at least one batch of every step",
            f"none at step {step}",
            "training_step returned None, and the optimiser took a step without a gradient",
            "leave such batches out of the data set, or return a loss for each",
        )
    )
