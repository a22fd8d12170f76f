"""The processes that work on one thing together: what they tell each other, each in a named method.

Every method is to be called by all of them, in the same order. Alone, each returns what it was given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from finfluence._files import digest
from finfluence.errors import ConfigError, DataError, explain

Together = Literal["one", "all"]


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is; `of` makes it.

    Attributes
    ----------
    rank, size : int
        This process's number, and how many there are.

    Examples
    --------
    >>> Processes.of("one").size
    1
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of(cls, processes: Together) -> "Processes":
        """Return this process alone ("one"), or with all others of torch.distributed's default group ("all").

        Returns
        -------
        Processes

        Raises
        ------
        ConfigError
            Another word, or "all" without a process group.
        """
        if processes not in get_args(Together):
            raise ConfigError(
                explain(
                    "processes to be 'one' or 'all'",
                    repr(processes),
                    "a number was passed: torchrun sets how many there are",
                    "pass processes='all' in every process of torchrun, or leave it out",
                )
            )
        if processes == "one":
            return cls()
        if not (dist.is_available() and dist.is_initialized()):
            raise ConfigError(
                explain(
                    "a process group, for processes='all'",
                    "none",
                    "torch.distributed.init_process_group was not called, or the script was started without torchrun",
                    "call it first in every process (backend 'gloo' on CPUs, 'nccl' on GPUs), or leave processes out",
                )
            )
        return cls(dist.get_rank(), dist.get_world_size())

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of every process's tensor; of the same bits everywhere."""
        if self.size == 1:
            return tensor
        there = self._to_wire(tensor).clone()
        dist.all_reduce(there)
        return there.to(tensor.device)

    def joined(self, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return [Q, ΣB] from every process's [Q, B_r], B_r in `sizes`."""
        if self.size == 1:
            return tensor
        widest = max(sizes)
        mine = torch.zeros(len(tensor), widest, dtype=tensor.dtype, device=tensor.device)
        mine[:, : tensor.shape[1]] = tensor
        mine = self._to_wire(mine)
        parts = [torch.empty_like(mine) for _ in sizes]
        dist.all_gather(parts, mine)
        return torch.cat([p[:, :size] for p, size in zip(parts, sizes, strict=True)], 1).to(tensor.device)

    def shared(self, tensors: dict[str, Tensor] | None, owner: int) -> dict[str, Tensor]:
        """Return the tensors of process `owner`, on the CPU; the others pass None."""
        if self.size == 1:
            assert tensors is not None
            return tensors
        content = self._bytes(tensors) if self.rank == owner else torch.empty(0, dtype=torch.uint8)
        length = self._to_wire(torch.tensor([len(content)]))
        dist.broadcast(length, owner)
        there = self._to_wire(content if self.rank == owner else torch.empty(int(length), dtype=torch.uint8))
        dist.broadcast(there, owner)
        return load(there.cpu().numpy().tobytes())

    def gathered(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return every process's tensors, in the order of ranks, on the CPU."""
        return [self.shared(tensors if self.rank == owner else None, owner) for owner in range(self.size)]

    def text_of_first(self, text: str) -> str:
        """Return the text of process 0."""
        if self.size == 1:
            return text
        own = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return bytes(self.shared({"text": own} if self.rank == 0 else None, 0)["text"].tolist()).decode()

    def agree(self, name: str, text: str) -> None:
        """Check that every process means the same.

        Raises
        ------
        DataError
            They do not: `name` says in what they differ.
        """
        if self.size == 1:
            return
        own = int(digest(text.encode())[:15], 16)
        all_of_them = self.joined(torch.tensor([[own]]), [1] * self.size)[0].tolist()
        differing = [rank for rank, other in enumerate(all_of_them) if other != all_of_them[0]]
        if differing:
            raise DataError(
                explain(
                    f"the same {name} in all {self.size} processes",
                    f"another one in process {differing[0]} than in process 0",
                    "each process made its own from other data, seeds or options",
                    "make it in every process from the same files and seeds, on the same kind of device",
                )
            )

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.sum(torch.zeros(1))

    def _to_wire(self, tensor: Tensor) -> Tensor:
        """Return the tensor where the group's backend can take it: on the GPU for NCCL, else on the CPU."""
        backend = str(dist.get_backend())
        if "nccl" in backend and (tensor.is_cuda or "gloo" not in backend):
            return tensor.contiguous().to(tensor.device if tensor.is_cuda else torch.device("cuda"))
        return tensor.contiguous().cpu()

    @staticmethod
    def _bytes(tensors: dict[str, Tensor] | None) -> Tensor:
        held = {k: v.detach().cpu().contiguous() for k, v in (tensors or {}).items()}
        return torch.frombuffer(bytearray(save(held)), dtype=torch.uint8)
