"""The most memory that tensors made in a piece of work hold at one time."""

import weakref
from typing import Any

from torch import Tensor
from torch import strided as _STRIDED
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors while it is entered: those made inside, until they are freed.

    What an operation needs for itself is not seen, nor what lies outside torch.

    Attributes
    ----------
    peak : int
        The most bytes at one time.
    held : int
        Those of now.

    Examples
    --------
    >>> import torch
    >>> with PeakMemory() as counted:
    ...     small = sum(torch.ones(1000) for _ in range(3))
    >>> 8_000 <= counted.peak <= 12_000
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.held = 0
        self._held: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        given: set[int] | None = None
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor) or tensor.layout is not _STRIDED:
                continue
            storage = tensor.untyped_storage()
            if storage.device.type == "meta":  # shapes alone, as tracing makes
                continue
            address = storage._cdata
            if address in self._held:
                continue
            if given is None:
                given = {
                    t.untyped_storage()._cdata
                    for t in tree_leaves((args, kwargs))
                    if isinstance(t, Tensor) and t.layout is _STRIDED
                }
            if address not in given:
                self._held[address] = weakref.finalize(storage, self._freed, address, storage.nbytes())
                self.held += storage.nbytes()
                self.peak = max(self.peak, self.held)
        return out

    def _freed(self, address: int, size: int) -> None:
        self._held.pop(address, None)
        self.held -= size
