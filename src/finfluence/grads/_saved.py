"""What autograd saves of a computation for its backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def saved_tensors(compute: Callable[[], object]) -> list[tuple[int, int]]:
    """Return address and bytes of each tensor that autograd saves, as often as it is saved.

    Where the computation lets nobody look (`torch.func` inside it), those of all results of its operations, which are
    more.

    Returns
    -------
    list of (int, int)

    Raises
    ------
    RuntimeError
        Whatever `compute` raises.

    Examples
    --------
    >>> x = torch.ones(3, requires_grad=True)
    >>> sum(size for _, size in saved_tensors(lambda: x.exp()))
    12
    """
    held: list[tuple[int, int]] = []

    def note(tensor: Tensor) -> Tensor:
        held.append((tensor.data_ptr(), tensor.numel() * tensor.itemsize))
        return tensor

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            made = compute()
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        with torch.enable_grad(), _Results() as results:
            made = compute()
        held = [(-k, size) for k, size in enumerate(results.sizes)]
    del made  # until here it keeps the addresses apart
    return held


class _Results(TorchDispatchMode):
    """Inside the block, `sizes` grows by the bytes of every result."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`; note how large its results are."""
        out = func(*args, **(kwargs or {}))
        self.sizes += [t.numel() * t.itemsize for t in tree_leaves(out) if isinstance(t, Tensor)]
        return out
