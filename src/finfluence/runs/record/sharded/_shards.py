"""What fully_shard leaves a process of a model's parameters, and states made whole from the parts of all.

A parameter of n rows is cut into R parts of ⌈n/R⌉ consecutive rows, of which the last are smaller or empty. Flattened,
a part is a range of θ: a process holds the same ranges of θ and of every optimiser slot, and keeps nothing else while
the loop runs. Only `whole` and `made_whole` exchange anything.
"""

from typing import Any

import torch
from torch import Tensor, nn

from finfluence.distributed import Processes
from finfluence.grads import Layout


def is_sharded(tensor: Tensor) -> bool:
    """Whether a process holds a part of the tensor only, as a DTensor."""
    return hasattr(tensor, "device_mesh")


def held(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, on the same memory: its part, or all of it."""
    if not is_sharded(tensor):
        return tensor.detach()
    part: Any = tensor
    with torch.no_grad():  # the part itself, and nothing for autograd
        return part.to_local()


def rows_held(count: int, parts: int) -> list[range]:
    """Return which of `count` rows each of `parts` processes holds.

    Returns
    -------
    list[range]

    Examples
    --------
    >>> rows_held(3, 2), rows_held(1, 2)
    ([range(0, 2), range(2, 3)], [range(0, 1), range(1, 1)])
    """
    each = -(-count // parts)
    return [range(min(r * each, count), min((r + 1) * each, count)) for r in range(parts)]


class Shards:
    """Which ranges of θ, and of each of `vectors` vectors like it in a state, each process holds.

    Attributes
    ----------
    sizes : list of int
        Numbers of θ that each process holds.
    size, width, whole_width : int
        Numbers of θ, and of a state, that this process holds; numbers of a whole state.
    """

    def __init__(self, layout: Layout, vectors: int, processes: Processes) -> None:
        self._processes, self._vectors = processes, vectors
        self._ranges: list[list[range]] = [[] for _ in range(processes.size)]
        start = 0
        for shape, size in zip(layout.shapes, layout.sizes, strict=True):
            row = size // shape[0] if size else 0
            for ranges, rows in zip(self._ranges, rows_held(shape[0], processes.size), strict=True):
                ranges.append(range(start + rows.start * row, start + rows.stop * row))
            start += size
        self.sizes = [sum(map(len, ranges)) for ranges in self._ranges]
        self.size = self.sizes[processes.rank]
        self.width, self.whole_width = vectors * self.size, vectors * layout.size

    def places(self, own: Tensor) -> Tensor:
        """Return where in θ this process's numbers `own` lie."""
        ranges = self._ranges[self._processes.rank]
        starts = torch.tensor([r.start for r in ranges])
        lengths = torch.tensor([len(r) for r in ranges])
        ends = lengths.cumsum(0)
        part = torch.searchsorted(ends, own.cpu(), right=True)
        return starts[part] + own.cpu() - (ends - lengths)[part]

    def whole(self, part: Tensor) -> Tensor:
        """Return [θ | slots] as one vector, of which every process passes its part. Every process calls it."""
        joined = self._processes.joined(part.view(self._vectors, self.size), self.sizes)
        state = torch.empty(self._vectors, self.whole_width // self._vectors, dtype=part.dtype)
        at = 0
        for ranges in self._ranges:
            for r in ranges:
                state[:, r.start : r.stop] = joined[:, at : at + len(r)]
                at += len(r)
        return state.view(-1)


def made_whole(model: nn.Module, processes: Processes) -> dict[int, nn.Parameter]:
    """Return plain parameters by the id of the sharded one, with the parts of all. Every process calls it."""
    found = {}
    for parameter in model.parameters():
        if is_sharded(parameter):
            parts = processes.gathered({"part": held(parameter)})
            values = torch.cat([part["part"] for part in parts]).to(parameter.device)
            found[id(parameter)] = nn.Parameter(values, parameter.requires_grad)
    return found
