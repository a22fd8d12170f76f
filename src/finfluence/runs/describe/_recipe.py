"""Recipe: a frozen, replayable description of a training."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._files import digest
from finfluence._seeds import stream
from finfluence.errors import ConfigError, DataError, explain
from finfluence.grads import Graphs, RowLoss
from finfluence.runs.describe._checksum import (
    Checksums,
    changed_data,
    changed_model,
    checksums,
    first_change,
    rows_checksums,
)
from finfluence.runs.describe._loss import check_loss
from finfluence.runs.describe._model import check_model, check_unhooked, copy_model
from finfluence.runs.describe._rows import RowSource, as_rows
from finfluence.runs.describe.optimizers import Optimizer

Schedule = Callable[[int, int], float]


def constant(step: int, total: int) -> float:
    """Learning-rate factor 1 at every step."""
    return 1.0


def linear(step: int, total: int) -> float:
    """Learning-rate factor 1 − step/total."""
    return 1.0 - step / total


def cosine(step: int, total: int) -> float:
    """Learning-rate factor (1 + cos(π·step/total)) / 2."""
    return 0.5 * (1.0 + math.cos(math.pi * step / total))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}


@dataclass(frozen=True)
class Recipe:
    """A training run that can be repeated, with or without some of its rows.

    θ_{t+1} = U_t(θ_t, mean_{i∈B_t} ∇ℓ_i(θ_t)), B_t the batches of `order(seed)`.

    Parameters
    ----------
    data : Rows, dict of arrays, or map-style Dataset
        The training rows.
    model : callable or nn.Module
        `callable(seed) -> nn.Module`: each run draws its own initialisation. An `nn.Module`: every run starts
        from its weights as they are now, of which the recipe keeps a copy; frozen ones are shared, and compared
        before each use. The module itself is never written on.
    loss : callable
        `loss(model, batch) -> Tensor[B]`, one loss per row; `batch` is a dict of the data's fields and "id".
    optimizer : SGD, Adam or AdamW
        torch.optim's names and defaults.
    batch_size, epochs : int
        Rows per step; passes over the data.
    drop_last : bool
        Leave out the last, smaller batch of an epoch.
    sampling : {"reshuffle", "independent"}
        A new permutation each epoch (every usual loader), or batches drawn independently with replacement.
    schedule : str or callable
        "constant", "linear", "cosine", or `callable(step, total_steps) -> factor` on the learning rate.

    Raises
    ------
    ConfigError
        A value that no training can use, named.
    DataError
        Fewer rows than a batch, or rows that cannot be used.

    Examples
    --------
    >>> from finfluence.runs import SGD, Rows
    >>> recipe = Recipe(
    ...     data=Rows(x=np.ones((8, 2)), y=np.zeros(8)), model=nn.Linear(2, 1),
    ...     loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, optimizer=SGD(lr=0.1), batch_size=4, epochs=3)
    >>> recipe.steps
    6
    """

    data: Any
    model: Callable[[int], nn.Module] | nn.Module
    loss: RowLoss
    optimizer: Optimizer
    batch_size: int
    epochs: int
    drop_last: bool = True
    sampling: Literal["reshuffle", "independent"] = "reshuffle"
    schedule: str | Schedule = "constant"
    rows: RowSource = field(init=False, repr=False)
    _frozen: Checksums = field(init=False, repr=False, compare=False)
    _data: Checksums | None = field(default=None, init=False, repr=False, compare=False)
    _graphs: dict[str, Graphs] = field(default_factory=dict, init=False, repr=False, compare=False)
    start: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", as_rows(self.data))
        check_model(self.model)
        check_loss(self.loss)
        check_unhooked(self.model)
        if isinstance(self.model, nn.Module):
            frozen = [p for p in self.model.parameters() if not p.requires_grad]
            object.__setattr__(self, "model", copy_model(self.model, frozen))
        object.__setattr__(self, "_frozen", self._frozen_checksums())
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                object.__setattr__(self, name, int(value))
            elif not isinstance(value, int) or isinstance(value, bool):
                value = 0
            if value < 1:
                raise _config(
                    f"{name} to be a whole number of at least 1",
                    repr(getattr(self, name)),
                    f"set {name} to 1 or more",
                )
        if not isinstance(self.optimizer, Optimizer):
            raise _config(
                "optimizer to be fi.SGD, fi.Adam or fi.AdamW",
                type(self.optimizer).__name__,
                "pass for instance fi.AdamW(lr=1e-3): a description, not a torch.optim object",
            )
        if self.sampling not in ("reshuffle", "independent"):
            raise _config(
                "sampling to be 'reshuffle' or 'independent'", repr(self.sampling), "use one of the two"
            )
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise _config(
                f"schedule to be one of {', '.join(SCHEDULES)} or a callable",
                repr(self.schedule),
                "use one of these names, or pass callable(step, total_steps) -> factor",
            )
        if len(self.rows) < max(2, self.batch_size):
            raise DataError(
                explain(
                    f"at least {max(2, self.batch_size)} rows (one batch)",
                    f"{len(self.rows)} rows",
                    "the batch size is larger than the data",
                    f"lower batch_size to {max(1, len(self.rows) // 4)} or add rows",
                )
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        n = len(self.rows)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    @property
    def steps(self) -> int:
        """Optimiser steps T in the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def random_initialisation(self) -> bool:
        """Whether each seed draws its own initial weights."""
        return not isinstance(self.model, nn.Module)

    def _frozen_checksums(self) -> Checksums:
        if not isinstance(self.model, nn.Module):
            return {}
        return checksums((n, p) for n, p in self.model.named_parameters() if not p.requires_grad)

    def check_unchanged(self) -> None:
        """Check that frozen weights and rows are those that the recipe was given.

        Raises
        ------
        ConfigError
            A frozen parameter was written on since; it is named.
        DataError
            A field of the rows was, since the recipe was first used.
        """  # noqa: DOC501 - made by a function
        parameter = first_change(self._frozen, self._frozen_checksums())
        if parameter is not None:
            raise changed_model(parameter)
        rows = rows_checksums(self.rows)
        if self._data is None:  # the first use
            object.__setattr__(self, "_data", rows)
            return
        field = first_change(self._data, rows)
        if field is not None:
            raise changed_data(field)

    def graphs(self, constants: Checksums) -> Graphs:
        """Return the traced graphs that runs share whose frozen weights and buffers have these checksums."""
        return self._graphs.setdefault(repr(sorted(constants.items())), Graphs())

    def rate(self, step: int) -> float:
        """Return the factor on the learning rate at `step`."""
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        return float(schedule(step, self.steps))

    @property
    def noise(self) -> tuple[float, ...]:
        """Σ of squared learning-rate factors of each epoch."""
        length = self.steps_per_epoch
        return tuple(sum(self.rate(e * length + j) ** 2 for j in range(length)) for e in range(self.epochs))

    def epoch_order(self, seed: int, epoch: int, keep: np.ndarray | None = None) -> list[Tensor]:
        """Return the row positions of each step of one epoch under order seed `seed`.

        Parameters
        ----------
        keep : array of int, optional
            Train on these rows only (the others removed). The number of steps is that of all rows: a batch
            order over fewer rows is continued into the next permutation where it runs out.

        Returns
        -------
        list[Tensor]
        """
        n = len(self.rows)
        rows = np.arange(n) if keep is None else np.asarray(keep)
        sizes = [self.batch_size] * self.steps_per_epoch
        if not self.drop_last and n % self.batch_size:
            sizes[-1] = n % self.batch_size
        rng = stream(seed, "order", epoch)
        if self.sampling == "independent":
            drawn = rows[rng.integers(len(rows), size=sum(sizes))]
        elif len(rows) >= sum(sizes):
            drawn = rows[rng.permutation(len(rows))[: sum(sizes)]]
        else:
            turns = -(-sum(sizes) // len(rows))
            drawn = rows[np.concatenate([rng.permutation(len(rows)) for _ in range(turns)])[: sum(sizes)]]
        return list(torch.from_numpy(drawn.astype(np.int64)).split(sizes))

    def order(self, seed: int, keep: np.ndarray | None = None) -> list[Tensor]:
        """Return the row positions of every step of the run under order seed `seed`."""
        return [batch for epoch in range(self.epochs) for batch in self.epoch_order(seed, epoch, keep)]

    def describe(self) -> dict[str, Any]:
        """Return what the run depends on, as plain values (the model by its name)."""
        model = self.model
        name = type(model).__name__ if isinstance(model, nn.Module) else _qualified(model)
        return {
            "rows": len(self.rows),
            "data": self.rows.digest(),
            "model": name,
            "initialisation": "random" if self.random_initialisation else "fixed",
            "loss": _qualified(self.loss),
            "optimizer": self.optimizer.describe(),
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "drop_last": self.drop_last,
            "sampling": self.sampling,
            "schedule": self.schedule if isinstance(self.schedule, str) else _qualified(self.schedule),
        }

    def digest(self) -> str:
        """Return a hash of `describe()`."""
        return description_digest(self.describe())


def description_digest(description: dict[str, Any]) -> str:
    """Return a hash of what `describe()` of a recipe or of a run says."""
    return digest(repr(sorted(description.items())).encode())


def _qualified(function: Any) -> str:
    return (
        f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__name__)}"
    )


def _config(expected: str, got: str, next_step: str) -> ConfigError:
    return ConfigError(explain(expected, got, "a mistyped argument", next_step))
