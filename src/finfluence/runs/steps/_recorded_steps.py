"""The steps of a recorded loop: taken again with the same optimiser, differentiated with its functional update."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._files import digest
from finfluence.grads import Batch, Graphs, Layout, RowLoss, no_checkpointing, without_graph
from finfluence.runs.describe import changed_data, changed_model, copy_model, first_change, rows_checksums
from finfluence.runs.steps._behaviour import Behaviour
from finfluence.runs.steps._epochs import find_epochs
from finfluence.runs.steps._precision import exact
from finfluence.runs.steps._randomness import set_random_state, split_random_state, untouched
from finfluence.runs.steps._recorded_update import RecordedUpdate
from finfluence.runs.steps._recording import Recording
from finfluence.runs.steps._step_log import Entry
from finfluence.runs.steps._steps import Step, to_device
from finfluence.runs.steps._trained_part import (
    batch_norms,
    copied,
    frozen_checksums,
    set_module_modes,
    without_running_statistics,
)

_RANDOM = "finfluence/random/"
_WEIGHT = "finfluence/weight"
_MICRO = "finfluence/micro/"


class RecordedSteps:
    """What a recorded loop repeats: the rows, options and random states that it had at each step.

    Raises
    ------
    DataError
        A row comes twice in an epoch, or rows are missing from one.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = r = recording
        self.model = copied(r.model, r.names)
        if r.module_modes is not None:
            set_module_modes(self.model, r.module_modes)
        self.batch_dependent = batch_norms(self.model)
        without_running_statistics(self.model)
        self.layout = Layout(self.model)
        self.parameters = self.layout.parameters(self.model)
        self.width = (1 + len(r.optimizer.slots)) * self.layout.size
        self.rows, self.loss, self.count = r.rows, exact(r.loss), len(r.entries)
        order = [np.concatenate(e.rows) for e in r.entries]
        self.order = [torch.from_numpy(rows) for rows in order]
        self.numbers = np.array([e.numbers for e in r.entries], dtype=np.float64)
        self.optimizer = RecordedUpdate(r, self.numbers, self.layout)
        grouped = [
            [p for p, g in zip(self.parameters, r.optimizer.group_of, strict=True) if g == k]
            for k in range(len(r.optimizer.groups))
        ]
        self._torch = r.optimizer.rule.remake(r.optimizer.groups, grouped)
        self.epochs, self.reshuffled = find_epochs(
            order, r.rows.ids, r.sampling.kind, r.sampling.steps_per_epoch
        )
        self.last_losses: Tensor | None = None
        self.graphs = Graphs()
        self._behaviour: Behaviour | None = None
        self.stochastic = False
        self.stochastic = r.random and self._draws()
        several = any(len(e.rows) > 1 for e in r.entries)
        self.untraced = self.stochastic or (bool(self.batch_dependent) and several)

    @property
    def notes(self) -> list[str]:
        """What a reader of results should know of the recording."""
        return self.recording.notes

    @property
    def batch_size(self) -> int:
        """Rows of an ordinary step: the median."""
        return int(np.median([len(rows) for rows in self.order]))

    @cached_property
    def sizes(self) -> list[float]:
        """Rows of an equally weighed batch of the same noise, 1/Σp², of every step."""
        found = []
        for entry in self.recording.entries:
            each = entry.of_rows
            found.append(float(each.sum() ** 2 / (each**2).sum()))
        return found

    @cached_property
    def noise(self) -> tuple[float, ...]:
        """Σ of squared learning rates of each epoch, averaged over parameters where groups differ."""
        squares = (self.numbers[:, :, 0] ** 2) @ self._group_shares
        return tuple(float(squares[e.start : e.stop].sum()) for e in self.epochs)

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """Learning rate of every step, averaged over parameters where groups differ."""
        return tuple((self.numbers[:, :, 0] @ self._group_shares).tolist())

    def rates_at(self, t: int) -> list[float]:
        """Return the learning rate of a step for each parameter."""
        return self.options_at("lr", t)

    def options_at(self, name: str, t: int) -> list[float]:
        """Return a numeric option of the optimiser at a step for each parameter."""
        optimizer = self.recording.optimizer
        found: list[float] = self.numbers[t, optimizer.group_of, optimizer.rule.numbers.index(name)].tolist()
        return found

    @property
    def _group_shares(self) -> np.ndarray:
        """Return the share of the parameters in each group [G]."""
        optimizer = self.recording.optimizer
        counts = np.bincount(optimizer.group_of, self.layout.sizes, len(optimizer.groups))
        return counts / counts.sum()

    def at(self, t: int) -> Step:
        """Return step t."""
        entry, rows = self.recording.entries[t], self.order[t]
        each = entry.of_rows
        total = float(each.sum())
        alike = np.allclose(each, total / len(rows), rtol=1e-9)
        parts = self._parts(entry)
        batch = parts[0] if len(parts) == 1 else self._joined(entry, parts)
        if len(parts) > 1 and self.untraced:
            batch = {f"{_MICRO}{m}/{k}": v for m, part in enumerate(parts) for k, v in part.items()}
        if self.stochastic:
            batch.update(_random_fields(entry.random))
        shares = None
        if not alike or abs(total - 1.0) > 1e-9:
            weight = torch.from_numpy(each * len(rows))
            batch[_WEIGHT] = weight.to(self.layout.dtype).to(self.layout.device)
            shares = None if alike else weight / weight.sum()
            if alike:
                shares = torch.full((len(rows),), 1.0 / len(rows), dtype=torch.float64)
        return Step(rows, batch, self.optimizer.hyper[t], None, shares, total)

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return any rows on the parameters' device; with a step, under its random state."""
        batch = to_device(self.rows.batch(positions), self.layout.device)
        if t is not None and self.stochastic:
            batch.update(_random_fields(self.recording.entries[t].random))
        return batch

    def step_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return row losses of a batch of `at` or `batch`, times B·c_i where the step weighs rows unlike a mean."""
        plain = {k: v for k, v in batch.items() if not k.startswith("finfluence/")}
        micro = sorted({int(k.split("/")[2]) for k in batch if k.startswith(_MICRO)})
        parts = [
            {k.removeprefix(f"{_MICRO}{m}/"): v for k, v in batch.items() if k.startswith(f"{_MICRO}{m}/")}
            for m in micro
        ] or [plain]
        losses = []
        for m, part in enumerate(parts):
            random = [batch[k] for k in (f"{_RANDOM}{m}/0", f"{_RANDOM}{m}/1") if k in batch]
            if random:
                set_random_state(random, self.layout.device)
            losses.append(self.loss(model, part))
        joined = losses[0] if len(losses) == 1 else torch.cat(losses)
        return joined * batch[_WEIGHT] if _WEIGHT in batch else joined

    def run_step(self, t: int) -> Tensor:
        """Take step t from the state set; return the mean loss before it."""
        loss = self.backward(t)
        self.apply(t)
        return loss

    def apply(self, t: int) -> None:
        """Let the optimiser take step t with the gradients held, clipped as recorded, and forget them."""
        rule, clipping = self.recording.optimizer.rule, self.recording.clipping
        for group, numbers in zip(self._torch.param_groups, self.recording.entries[t].numbers, strict=True):
            rule.set_numbers(group, numbers)
        if clipping.norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, clipping.norm)
        if clipping.value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, clipping.value)
        self._torch.step()
        self._torch.zero_grad()

    def backward(self, t: int, by: RowLoss | None = None) -> Tensor:
        """Fill the gradients of step t at the state set, before clipping, by the training's loss; return its loss."""
        entry, row_loss = self.recording.entries[t], self.recording.loss if by is None else by
        total = torch.zeros((), dtype=self.layout.dtype, device=self.layout.device)
        for m, part in enumerate(self._parts(entry)):
            if self.stochastic:
                set_random_state(split_random_state(entry.random[m]), self.layout.device)
            losses = row_loss(self.model, part)
            if len(entry.shares):
                loss = losses @ torch.from_numpy(entry.shares[m]).to(losses)
            else:
                loss = losses.mean() if entry.weights[m] == 1.0 else losses.mean() * entry.weights[m]
            loss.backward()
            total += loss.detach()
        self._fill_gradients()
        plain = entry.weights == (1.0,) and not len(entry.shares) and row_loss is self.loss
        self.last_losses = losses.detach() if plain else None
        return total

    def _fill_gradients(self) -> None:
        """Set gradients to zero that the loop had without its loss (`zero_grad(set_to_none=False)`): steps use them."""
        for p, had in zip(self.parameters, self.recording.has_grad or [], strict=False):
            if had and p.grad is None:
                p.grad = torch.zeros_like(p)

    def gradient(self) -> Tensor:
        """Return the gradients held as one vector [P], and forget them."""
        flat = self.held_gradient()
        self._torch.zero_grad()
        return flat

    def held_gradient(self) -> Tensor:
        """Return the gradients held as one vector [P]."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return torch.cat([g.reshape(-1) for g in parts])

    def set_state(self, t: int, state: Tensor) -> None:
        """Set parameters and optimiser to `state`, as they were before step t."""
        size, optimizer = self.layout.size, self.recording.optimizer
        steps_done = optimizer.steps_done + t
        self.layout.assign(self.model, state[:size])
        self._torch.state.clear()
        if steps_done == 0:
            return
        slots = [
            self.layout.split(state[k * size : (k + 1) * size])
            for k in range(1, 1 + len(self.optimizer.slots))
        ]
        for index, (name, parameter) in enumerate(zip(self.layout.names, self.parameters, strict=True)):
            group = self._torch.param_groups[optimizer.group_of[index]]
            own = {slot: part[name].clone() for slot, part in zip(self.optimizer.slots, slots, strict=True)}
            held = optimizer.rule.state_of(group, own, steps_done, parameter.device)
            if held:
                self._torch.state[parameter].update(held)

    def get_state(self, out: Tensor) -> None:
        """Copy the current state into `out` [width]."""
        parts = [p.detach() for p in self.parameters]
        for slot in self.optimizer.slots:
            parts += [_held(self._torch, p, slot) for p in self.parameters]
        out.copy_(torch.cat([p.reshape(-1) for p in parts]))

    def initial_model(self) -> nn.Module:
        """Return a fresh copy of the model as it was before the first step."""
        return copy_model(self.recording.model)

    def check_unchanged(self, initial: Tensor) -> None:
        """Check that frozen parameters, rows and loss are still those of the recording.

        Raises
        ------
        ConfigError, DataError
            A parameter, a field or what the loss reads has other values now; it is named.
        """  # noqa: DOC501 - made by a function
        r = self.recording
        parameter = first_change(r.checksums["frozen"], frozen_checksums(r.model))
        if parameter is not None:
            raise changed_model(parameter)
        if not r.checksums["data"]:
            return
        with untouched(0):
            field = first_change(r.checksums["data"], rows_checksums(r.rows))
        if field is not None:
            raise changed_data(field)
        with untouched(0):
            model = self._fresh_model()
            self.layout.assign(model, initial[: self.layout.size].to(self.layout.device))
            now = Behaviour.of(model, self.loss, self.rows, self.layout, self.batch_size)
        if self._behaviour is None:
            self._behaviour = now
        self._behaviour.check(now)

    def _fresh_model(self) -> nn.Module:
        """Return a copy of the model in the modes of the loop, whose losses keep no statistics of batches."""
        r = self.recording
        model = copied(r.model, r.names)
        if r.module_modes is not None:
            set_module_modes(model, r.module_modes)
        without_running_statistics(model)
        return model

    def describe(self) -> dict[str, Any]:
        """Return what every run of this loop has in common, as plain values."""
        r = self.recording
        options = [
            {k: v for k, v in sorted(group.items()) if k != "initial_lr"} for group in r.optimizer.groups
        ]
        return {
            "rows": len(r.rows),
            "data": r.data,
            "model": type(r.model).__name__,
            "initialisation": "recorded",
            "loss": getattr(r.loss, "__qualname__", type(r.loss).__name__),
            "optimizer": {
                "name": r.optimizer.rule.name,
                **(options[0] if len(options) == 1 else {"groups": options}),
            },
            "clip_norm": r.clipping.norm,
            "clip_value": r.clipping.value,
            "batch_size": self.batch_size,
            "epochs": len(self.epochs),
            "steps": self.count,
            "sampling": "reshuffle" if self.reshuffled else "independent",
        }

    def identity(self) -> dict[str, Any]:
        """Return a hash of the run's own batches and weights."""
        start = self.layout.theta(self.recording.model).cpu().view(torch.uint8).numpy().tobytes()
        random = [state.numpy().tobytes() for state in self.recording.entries[0].random]
        return {"run": digest(start, *random, *(rows.numpy().tobytes() for rows in self.order))}

    def uncovered(self) -> list[str]:
        """Name the randomness of training that one run does not show."""
        seen = any(e.batches for e in self.recording.entries)
        return ["initialisation", *["dropout"] * self.stochastic, *["augmentation"] * seen]

    def _parts(self, entry: Entry) -> list[Batch]:
        if entry.batches:
            found = [
                {**b, "id": torch.from_numpy(rows)} for b, rows in zip(entry.batches, entry.rows, strict=True)
            ]
        else:
            found = [self.rows.batch(torch.from_numpy(rows)) for rows in entry.rows]
        return [to_device(dict(part), self.layout.device) for part in found]

    def _joined(self, entry: Entry, parts: list[Batch]) -> Batch:
        if not entry.batches:
            return to_device(
                dict(self.rows.batch(torch.from_numpy(np.concatenate(entry.rows)))), self.layout.device
            )
        return {k: torch.cat([part[k] for part in parts]) for k in parts[0]}

    def _draws(self) -> bool:
        """Whether the loss draws random numbers in the mode that the loop trains in."""
        entry = self.recording.entries[0]
        if not entry.random:
            return False
        set_random_state(split_random_state(entry.random[0]), self.layout.device)
        before = [torch.default_generator.get_state(), *_cuda_state(self.layout.device)]
        with no_checkpointing():
            without_graph(lambda: self.loss(self.model, self._parts(entry)[0]))
        after = [torch.default_generator.get_state(), *_cuda_state(self.layout.device)]
        return not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _random_fields(states: Sequence[Tensor]) -> Batch:
    return {
        f"{_RANDOM}{m}/{k}": part
        for m, state in enumerate(states)
        for k, part in enumerate(split_random_state(state))
    }


def _held(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, slot: str) -> Tensor:
    held = optimizer.state.get(parameter, {}).get(slot)
    return torch.zeros_like(parameter) if held is None else held


def _cuda_state(device: torch.device) -> list[Tensor]:
    return [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
