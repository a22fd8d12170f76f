"""What a recorded loop did at each step: rows, weights, options, random states, and batches given as seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from finfluence._files import atomic
from finfluence.errors import StorageError
from finfluence.grads import Batch
from finfluence.runs.checkpoints import read_tensors


@dataclass(eq=False, slots=True)
class Entry:
    """One step: its micro-batches and the optimiser's options as they were.

    rows : positions of each micro-batch, once ids are looked up.
    weights : of each micro-batch's mean loss.
    numbers : options of each parameter group.
    random : torch's random state before the forward pass of each micro-batch.
    batches : of each micro-batch as the loop saw it, if given.
    shares : of each micro-batch, what the loss of each row is multiplied by, if rows of one count differently.
    """

    numbers: tuple[tuple[float, ...], ...]
    rows: Sequence[np.ndarray] = ()
    weights: tuple[float, ...] = ()
    random: Sequence[Tensor] = ()
    batches: Sequence[Batch] = ()
    shares: Sequence[np.ndarray] = ()

    @property
    def of_rows(self) -> np.ndarray:
        """What the loss of each row is multiplied by, in the order of `rows`."""
        if len(self.shares):
            return np.concatenate(self.shares)
        sizes = np.array([len(rows) for rows in self.rows])
        return np.repeat(np.array(self.weights) / sizes, sizes)


@dataclass(frozen=True)
class Flags:
    """Of each module, whether it trains (`module_modes`); of each trained parameter, whether it has a gradient."""

    module_modes: list[bool] = field(default_factory=list)
    has_grad: list[bool] = field(default_factory=list)


_FLAGS = {"training": "module_modes", "reached": "has_grad"}  # their names in files


def write_entries(folder: Path, first: int, entries: list[Entry], flags: Flags) -> None:
    """Write steps `first`, `first` + 1, … and the flags as one file."""
    tensors = {name: torch.tensor(getattr(flags, of), dtype=torch.uint8) for name, of in _FLAGS.items()}
    with atomic(folder / f"steps-{first:010d}.safetensors") as part:
        save_file({**tensors, **tensors_of(entries, first)}, part)


def tensors_of(entries: list[Entry], first: int) -> dict[str, Tensor]:
    """Return steps `first`, `first` + 1, … as tensors, on the CPU."""
    sizes = [[len(rows) for rows in e.rows] for e in entries]
    tensors = {
        "rows": torch.from_numpy(np.concatenate([rows for e in entries for rows in e.rows])),
        "micro_batches": torch.tensor([len(s) for s in sizes]),
        "sizes": torch.tensor([n for s in sizes for n in s]),
        "weights": torch.tensor([w for e in entries for w in e.weights], dtype=torch.float64),
        "numbers": torch.tensor(
            [[[float(x) for x in g] for g in e.numbers] for e in entries], dtype=torch.float64
        ),
    }
    if any(len(e.shares) for e in entries):
        tensors["shares"] = torch.from_numpy(np.concatenate([e.of_rows for e in entries]))
    states = [state.cpu() for e in entries for state in e.random]
    if states:
        tensors["random"] = torch.stack(states)
    for t, entry in enumerate(entries, start=first):
        for m, batch in enumerate(entry.batches):
            tensors.update({f"batch/{t}/{m}/{k}": v.detach().cpu().contiguous() for k, v in batch.items()})
    return tensors


def read_entries(folder: Path) -> tuple[list[Entry], Flags, str | None]:
    """Return the whole steps in `folder` up to the first gap, the flags, and the file where they end if broken."""
    entries: list[Entry] = []
    flags = Flags()
    for path in sorted(folder.glob("steps-*.safetensors")):
        if int(path.stem.split("-")[1]) != len(entries):
            return entries, flags, path.name
        try:
            tensors = read_tensors(path)
        except StorageError:
            return entries, flags, path.name
        entries.extend(entries_of(tensors, len(entries)))
        flags = flags_of(tensors)
    return entries, flags, None


def cut_entries(folder: Path, count: int) -> None:
    """Remove all but the first `count` steps from the files in `folder`, which hold at least as many."""
    for path in sorted(folder.glob("steps-*.safetensors")):
        first = int(path.stem.split("-")[1])
        if first >= count:
            path.unlink()
            continue
        tensors = read_tensors(path)
        entries = entries_of(tensors, first)
        if first + len(entries) > count:
            write_entries(folder, first, entries[: count - first], flags_of(tensors))


def flags_of(tensors: dict[str, Tensor]) -> Flags:
    """Return the flags of a file."""
    return Flags(**{of: [bool(f) for f in tensors[name].tolist()] for name, of in _FLAGS.items()})


def entries_of(tensors: dict[str, Tensor], first: int) -> list[Entry]:
    """Return the steps that `tensors_of` was given."""
    rows = iter(tensors["rows"].split(tensors["sizes"].tolist()))
    weights = iter(tensors["weights"].tolist())
    random = iter(tensors["random"].unbind()) if "random" in tensors else None
    shares = iter(tensors["shares"].split(tensors["sizes"].tolist())) if "shares" in tensors else None
    found = []
    steps = zip(tensors["micro_batches"].tolist(), tensors["numbers"].tolist(), strict=True)
    for t, (count, numbers) in enumerate(steps, start=first):
        batches: list[Batch] = []
        for m in range(count):
            prefix = f"batch/{t}/{m}/"
            batch = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if batch:
                batches.append(batch)
        found.append(
            Entry(
                tuple(tuple(group) for group in numbers),
                [next(rows).numpy() for _ in range(count)],
                tuple(next(weights) for _ in range(count)),
                [next(random) for _ in range(count)] if random is not None else [],
                batches,
                [next(shares).numpy() for _ in range(count)] if shares is not None else [],
            )
        )
    return found
