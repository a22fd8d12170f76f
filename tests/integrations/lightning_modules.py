"""The loops of `recorded_loops` as LightningModules and loaders."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import finfluence.runs as fr
from finfluence.runs import seeded
from recorded_loops import Loop


class Items(Dataset):
    """Rows as a map-style data set of dicts with an id."""

    def __init__(self, rows: fr.Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**{k: v[i] for k, v in self.rows.fields.items()}, "id": i}


class Given:
    """A batch sampler that yields given batches, some each epoch."""

    def __init__(self, batches: list[Tensor], epochs: int) -> None:
        self._batches, self._size, self._epoch = batches, len(batches) // epochs, 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[list[int]]:
        first, self._epoch = self._epoch * self._size, self._epoch + 1
        return iter([b.tolist() for b in self._batches[first : first + self._size]])


class Module(L.LightningModule):
    """A module that trains as a loop does."""

    def __init__(self, loop: Loop, loss: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.loop, self.loss, self.net = loop, loss or loop.loss, loop.start()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self.loss(self, batch).mean()

    def configure_optimizers(self) -> Any:
        optimizer = self.loop.optimizer(self)
        if self.loop.scheduler is None:
            return optimizer
        return [optimizer], [{"scheduler": self.loop.scheduler(optimizer), "interval": "step"}]


class Validated(Module):
    """A module that also looks at its rows between epochs."""

    seen = 0

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.seen += len(self.loss(self, batch))


def trainer(*callbacks: L.Callback, **options: Any) -> L.Trainer:
    return L.Trainer(**{
        "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "accelerator": "cpu", "devices": 1, "max_epochs": 4, "callbacks": list(callbacks), **options,
    })  # fmt: skip


def batches_of(loop: Loop) -> list[Tensor]:
    return [part for ids in loop.order() for part in (ids.chunk(len(loop.micro)) if loop.micro else [ids])]


def fit(
    loop: Loop,
    *callbacks: L.Callback,
    module: nn.Module | None = None,
    validate: bool = False,
    **options: Any,
) -> nn.Module:
    """Train a copy of the module with a Trainer, on the batches of the plain loop."""
    module, items = copy.deepcopy(module or (Validated if validate else Module)(loop)), Items(loop.data())
    own = torch.Generator()  # else each epoch's iterator draws from the generator that dropout draws from
    loader = DataLoader(items, batch_sampler=Given(batches_of(loop), loop.epochs), generator=own)  # type: ignore[arg-type]
    looked_at = DataLoader(items, batch_size=5) if validate else None
    with seeded(3):
        trainer(*callbacks, max_epochs=loop.epochs, **options).fit(module, loader, looked_at)
    return module
