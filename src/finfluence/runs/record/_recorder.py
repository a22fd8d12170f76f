"""Watch a training loop from its optimiser: states before steps, options as they are, random states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import (
    ConfigError,
    DataError,
    FinfluenceError,
    NotSupportedError,
    TrainingError,
    explain,
)
from finfluence.grads import Batch, Layout
from finfluence.runs.checkpoints import ThinningCheckpoints, bytes_of
from finfluence.runs.describe import hooked_parameter, sparse_gradient, values_read
from finfluence.runs.record._header import check_new, write_header
from finfluence.runs.record._row_ids import RowIds, kept_ids, micro_batch_fields, micro_batches
from finfluence.runs.record.sharded import Shards, held
from finfluence.runs.steps import Entry, Flags, Recording, module_modes, random_state, write_entries

LOOKED_UP_TOGETHER = 64
_COORDINATES = 4096
_ONE = (1.0,)


def checked_step(t: int) -> bool:
    """Whether step t is one of 0, 1, 3, 10, 30, 100, …: what the self-check repeats."""
    while t >= 10 and t % 10 == 0:
        t //= 10
    return t in (0, 1, 3)


@dataclass(eq=False)
class ReferenceSample:
    """What a step really did, at some coordinates: the gradient that the optimiser got, and θ after and later.

    Attributes
    ----------
    gradient : Tensor
    norm : Tensor
        Of the whole gradient.
    after : Tensor
        θ after the step.
    later : Tensor or None
        θ before the next step, where something else than the optimiser may have moved it.
    """

    gradient: Tensor
    norm: Tensor
    after: Tensor
    later: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Watch:
    """How a loop is watched.

    Attributes
    ----------
    layout : Layout
        Of the trained parameters.
    folder : path or None
        Where the tape is written.
    scaler : object
        The loop's gradient scaler, if it may skip steps.
    varying : bool
        Whether rows change at every reading, so that batches are to be given.
    shards : Shards or None
        What this process holds of a sharded model.
    """

    layout: Layout
    folder: Path | None = None
    scaler: object = None
    varying: bool = False
    shards: Shards | None = None


class Recorder:
    """Hooks on a user's optimiser, and on the model if its loss draws random numbers; both go with `release`.

    A hook never raises: what goes wrong in it is kept, and raised by the next call of `step`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recording: Recording,
        states: ThinningCheckpoints,
        watch: Watch,
    ) -> None:
        self.recording, self.states = recording, states
        self.layout, self.folder, self.shards = watch.layout, watch.folder, watch.shards
        self.model, self._optimizer, self._scaler, self._varying = (
            model,
            optimizer,
            watch.scaler,
            watch.varying,
        )
        named = dict(model.named_parameters())
        self._parameters = [named[name] for name in recording.names]
        self.hooked = hooked_parameter(zip(recording.names, self._parameters, strict=True))
        self._ids = RowIds(recording.rows.ids)
        self._rule, self._slots = recording.optimizer.rule, recording.optimizer.slots
        self._members = [len(group["params"]) for group in optimizer.param_groups]
        size = self.layout.size if self.shards is None else self.shards.size
        most = _COORDINATES if self.shards is None else max(1, _COORDINATES // len(self.shards.sizes))
        chosen = torch.linspace(0, size - 1, min(size, most), dtype=torch.float64)
        self.coordinates = chosen.round().long().to(self.layout.device)
        self.references: dict[int, ReferenceSample] = {}
        self.modes: dict[int, list[bool]] = {}
        self.read = values_read(recording.loss)
        self.skipped = 0
        self.last_buffers: list[Tensor] | None = None
        self.as_left: bool | None = None
        self._begun: tuple[tuple[float, ...], ...] = ()
        self._pending: tuple[tuple[float, ...], ...] | None = None
        self._random: list[Tensor] = []
        self._waiting: list[list[Any]] = []
        self.written = 0
        self._last_ids: Any = None
        self._problem: Exception | None = None
        self._versions: list[int] = []
        self._parts: list[Tensor] = []
        self._bytes: list[memoryview] = []
        self._addresses: list[int] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        if recording.random:
            self._handles.append(model.register_forward_pre_hook(self._forward))

    @property
    def steps(self) -> int:
        """Steps recorded so far."""
        return len(self.recording.entries)

    def step(self, ids: Any, weights: Sequence[Any] | None, batch: Batch | Sequence[Batch] | None) -> None:
        """Name the rows of the step that the optimiser has just taken."""
        if self._problem is not None:
            raise self._problem
        parts = micro_batches(ids)
        if self._pending is None:
            self._no_step(ids)
            return
        given, shares = _weights(weights, parts, self.steps)
        random = self._states_of(len(parts)) if self.recording.random else ()
        seen = self._seen(batch, len(parts))
        self.recording.entries.append(Entry(self._pending, (), given, random, seen, shares))
        self._waiting.append([kept_ids(p) for p in parts])
        self._pending, self._random, self._last_ids = None, [], ids
        self._versions = [p._version for p in self._parameters]
        if len(self._waiting) >= min(self.steps, LOOKED_UP_TOGETHER):
            self.look_up()
        if self.folder is not None and self.states.due:
            self.write()

    def between_steps(self) -> None:
        """Raise unless the rows of the last step have been named, and nothing went wrong."""
        if self._pending is not None and self._problem is None:
            self._problem = self._unnamed()
        if self._problem is not None:
            raise self._problem

    def look_up(self) -> None:
        """Turn the ids of the last steps into positions."""
        first = self.steps - len(self._waiting)
        waiting, self._waiting = self._waiting, []
        found = self._ids.together([part for parts in waiting for part in parts])
        for t, parts in enumerate(waiting, start=first):
            if found is not None:
                self.recording.entries[t].rows = [next(found) for _ in parts]
                continue
            try:
                self.recording.entries[t].rows = [self._ids.positions(part, t) for part in parts]
            except DataError as error:
                del self.recording.entries[t:]
                self._problem = error
                raise

    def write(self) -> None:
        """Write what is new to the folder."""
        self.look_up()
        if self.folder is not None and self.steps > self.written:
            if not self.written:  # only now: a recording that fails at its start leaves no folder
                check_new(self.folder)
                write_header(self.folder, self.recording, None)
            flags = Flags(self.recording.module_modes or [], self.recording.has_grad or [])
            write_entries(self.folder, self.written, self.recording.entries[self.written :], flags)
            self.written = self.steps
        self.states.flush()

    def release(self) -> None:
        """Take the hooks off; nothing of the recording is left on model or optimiser."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def ready(self) -> None:
        """Take the hooks off, and raise what went wrong on the way."""
        self.release()
        self.between_steps()
        self.look_up()

    def finish(self) -> bool:
        """End the recording; return whether the state after the last step could be read off the model."""
        self.ready()
        if self.as_left is None:
            self.as_left = self._versions == [p._version for p in self._parameters]
            if self.as_left and self.steps:
                self.states.keep(self.steps, self.state(), last=True)
            self.states.settle()
        return self.as_left

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._safely(self._read_before)

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._safely(self._read_after)

    def _safely(self, read: Callable[[], None]) -> None:
        """Read what a step did; never raise inside the user's `optimizer.step()`."""
        if self._problem is not None:
            return
        try:
            read()
        except FinfluenceError as error:
            self._problem = error
        except Exception as error:
            self._problem = _unreadable(self.steps, error)
            self._problem.__cause__ = error

    def _read_before(self) -> None:
        t = self.steps
        if self._pending is not None:
            self._problem = self._unnamed()
            return
        groups = self._optimizer.param_groups
        members = [len(group["params"]) for group in groups]
        if members != self._members:
            self._problem = _other_groups(self._members, members, t)
            return
        numbers = tuple([self._rule.numbers_of(group) for group in groups])
        if any([isinstance(v, Tensor) for group in numbers for v in group]):
            self._begun = tuple(
                tuple(v.detach().clone() if isinstance(v, Tensor) else v for v in group) for group in numbers
            )
        elif numbers != self._begun:  # steps with the same options share one tuple
            self._begun = numbers
        if t - 1 in self.references:
            self.references[t - 1].later = self._some_parameters()
        checked = checked_step(t)
        if checked:
            self.modes[t] = module_modes(self.model)
        if checked or self.states.wants(t):
            self.states.keep(t, self.state(), pin=checked)
        if t == 0:
            self.recording.module_modes = self.modes[0]

    def _read_after(self) -> None:
        self._pending = self._begun  # only now: a closure that raises takes no step
        t = len(self.recording.entries)
        has_grad = [p.grad is not None for p in self._parameters]
        if self.recording.has_grad is None:
            self.recording.has_grad = has_grad
        elif has_grad != self.recording.has_grad:
            pairs = zip(self.layout.names, has_grad, self.recording.has_grad, strict=True)
            self._problem = _other_parameters(next(n for n, a, b in pairs if a != b), t)
        if checked_step(t):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
            for name, grad in zip(self.layout.names, grads, strict=True):
                if grad.layout is not torch.strided:
                    raise sparse_gradient(f"of '{name}' at step {t}")
            flat = torch.cat([held(g).reshape(-1) for g in grads])
            self.references[t] = ReferenceSample(flat[self.coordinates], flat.norm(), self._some_parameters())

    def _forward(self, module: nn.Module, args: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._random.append(random_state(self.layout.device))

    def _some_parameters(self) -> Tensor:
        return torch.cat([held(p).reshape(-1) for p in self._parameters])[self.coordinates]

    def state(self) -> Tensor | bytearray:
        """Return a copy of the state as it is now, through the views of an earlier step where they still hold."""
        addresses, state = [p.data_ptr() for p in self._parameters], self._optimizer.state
        for slot in self._slots:
            for p in self._parameters:
                buffer = state.get(p, {}).get(slot)
                addresses.append(0 if buffer is None else buffer.data_ptr())
        if addresses != self._addresses:
            parts = [held(p) for p in self._parameters]
            for slot in self._slots:
                for p in self._parameters:
                    buffer = state.get(p, {}).get(slot)
                    parts.append(held(torch.zeros_like(p) if buffer is None else buffer))
            self._parts = [p.reshape(-1).to(self.layout.dtype) for p in parts]
            lasting = addresses == [p.data_ptr() for p in self._parts]
            self._addresses = addresses if lasting else []
            self._bytes = bytes_of(self._parts) if self.layout.device.type == "cpu" else []
        return bytearray().join(self._bytes) if self._bytes else torch.cat(self._parts)

    def _seen(self, batch: Batch | Sequence[Batch] | None, parts: int) -> Sequence[Batch]:
        if batch is None:
            if self._varying:
                raise _changing()
            return ()
        return [
            {k: v.detach().clone() for k, v in b.items() if isinstance(v, Tensor) and k != "id"}
            for b in micro_batch_fields(batch, parts)
        ]

    def _states_of(self, parts: int) -> list[Tensor]:
        calls = len(self._random)
        if self.steps and (calls > 0) != (len(self.recording.entries[0].random) > 0):
            raise _other_modes(self.steps, calls > 0)
        if not calls and not self.model.training:
            return []
        if calls and calls % parts == 0:
            return self._random[:: calls // parts]
        raise NotSupportedError(
            explain(
                f"a forward pass of the recorded model in training mode for each of {parts} micro-batches",
                f"{calls} at step {self.steps}",
                "the loss draws random numbers (dropout) and calls parts of the model, or the model was wrapped",
                "call the recorded model itself in the loss, once for each micro-batch named in tape.step(ids=[…])",
            )
        )

    def _no_step(self, ids: Any) -> None:
        self._random = []
        if self._scaler is not None:
            self.skipped += 1
            return
        again = self.steps > 0 and _same(ids, self._last_ids)
        raise TrainingError(
            explain(
                "a step of the optimiser before each tape.step(ids=…)",
                f"none since step {self.steps - 1}" + (", whose ids are passed again" if again else ""),
                "tape.step is called twice for one step"
                if again
                else "tape.step comes before optimizer.step(), or a gradient scaler skipped the step",
                "call tape.step once, after optimizer.step()"
                if again
                else "call tape.step after optimizer.step(), or pass scaler=… to Tape.record: it leaves out such steps",
            )
        )

    def _unnamed(self) -> Exception:
        return TrainingError(
            explain(
                "tape.step(ids=…) after every step of the optimiser",
                f"a step after step {self.steps - 1} whose rows were not named",
                "the loop takes steps in a place without tape.step, or goes on after the recording",
                "call tape.step after each optimizer.step(), and tape.finish() where the recording ends",
            )
        )


def _other_modes(step: int, training: bool) -> NotSupportedError:
    modes = ("training", "evaluation") if training else ("evaluation", "training")
    return NotSupportedError(
        explain(
            "a model in the same mode at every step",
            f"{modes[0]} mode at step {step}, and {modes[1]} mode at the first",
            "an evaluation between the steps left the mode changed, or the loop turns dropout off on the way",
            "call model.train() after each evaluation, or record each phase by itself",
        )
    )


def _unreadable(step: int, error: Exception) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a step of the optimiser that can be read: options, parameters and gradients",
            f"{type(error).__name__} at step {step}: {str(error).splitlines()[0] if str(error) else ''}",
            "parameters were replaced, moved or cast after the recording began, or hold tensors of an unusual kind",
            "move and cast the model before fi.Tape.record, and make the optimiser from the parameters it then has",
        )
    )


def _weights(
    given: Sequence[Any] | None, parts: Sequence[Any], step: int
) -> tuple[tuple[float, ...], list[np.ndarray]]:
    """Return the weight of each micro-batch, and those of its rows where some are given."""
    if given is None:
        return _ONE if len(parts) == 1 else (1.0 / len(parts),) * len(parts), []
    sizes = [part.numel() if isinstance(part, Tensor) else len(part) for part in parts]
    each = [np.asarray(w, dtype=np.float64) for w in given]
    fitting = len(each) == len(sizes) and all(w.shape in ((), (n,)) for w, n in zip(each, sizes, strict=True))
    if fitting and all(bool(((w > 0) & np.isfinite(w)).all()) for w in each):
        if not any(w.ndim for w in each):
            return tuple(float(w) for w in each), []
        of_rows = [w if w.ndim else np.full(n, w / n) for w, n in zip(each, sizes, strict=True)]
        return tuple(float(w.sum()) for w in of_rows), of_rows
    if fitting:
        raise ConfigError(
            explain(
                f"weights above 0 at step {step}",
                repr([w.tolist() for w in each]),
                "rows that are masked, padding of a last batch, or a loss that is climbed for some rows",
                "leave rows of weight 0 out of ids and weights; give rows that are climbed a loss with the other sign",
            )
        )
    raise ConfigError(
        explain(
            f"one weight above 0 for each of {len(sizes)} micro-batches at step {step}, or for each of its rows",
            repr([w.tolist() for w in each]),
            "weights and ids were cut differently",
            "pass weights=[…] as the loop multiplies each micro-batch's mean loss, or leave it out for equal ones",
        )
    )


def _other_parameters(name: str, step: int) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a loss that reaches the same parameters at every step",
            f"'{name}' with a gradient at some steps and none at others, first at step {step}",
            "the model skips layers depending on the batch, or parameters are frozen on the way",
            "let every layer take part, for instance multiplied by zero, or record each phase by itself",
        )
    )


def _other_groups(before: list[int], now: list[int], step: int) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "an optimiser that holds the same parameters from the first recorded step to the last",
            f"groups of {', '.join(map(str, now))} parameters at step {step}, and of {', '.join(map(str, before))} "
            "at the start",
            "add_param_group was called, or parameters were taken out on the way",
            "give all groups to the optimiser before fi.Tape.record (a learning rate of 0 holds one still), or record "
            "each phase by itself",
        )
    )


def _changing() -> DataError:
    return DataError(
        explain(
            "a data set whose items are the same at every call",
            "an item that differs between two calls",
            "the data set augments at random",
            "pass the batch as the loop saw it, tape.step(ids=…, batch=batch), or augment inside the model or loss",
        )
    )


def _same(ids: Any, others: Any) -> bool:
    if isinstance(ids, Tensor) and isinstance(others, Tensor):
        return ids.shape == others.shape and bool((ids == others).all())
    return type(ids) is type(others) and not isinstance(ids, Tensor) and repr(ids) == repr(others)
