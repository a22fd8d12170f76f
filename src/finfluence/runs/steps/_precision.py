"""How coarsely a loss is computed: autocast, or frozen layers of fewer bits than what is trained.

A loss may say under `exact` which loss its derivatives are to be taken of: the same without autocast. Steps are taken
again by the loss itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finfluence.grads import RowLoss

COARSE = {torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""By how much two ways to sum the same gradient may differ, relative to its norm."""
RECAST = 0.25
"""By how much the gradient without autocast may differ from that of the training."""


class CoarsestDtype(TorchDispatchMode):
    """Inside the block, notes the coarsest floating type in which something is computed.

    Examples
    --------
    >>> with CoarsestDtype() as seen, torch.autocast("cpu", torch.bfloat16):
    ...     _ = torch.ones(2, 2) @ torch.ones(2, 2)
    >>> seen.dtype
    torch.bfloat16
    """

    def __init__(self) -> None:
        super().__init__()
        self.dtype: torch.dtype | None = None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func` and look at what it returns."""
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, Tensor) and value.dtype in COARSE:
                rougher = self.dtype is None or torch.finfo(value.dtype).eps > torch.finfo(self.dtype).eps
                self.dtype = value.dtype if rougher else self.dtype
        return found


def precision_named(name: str | None) -> torch.dtype | None:
    """Return the type of this name, as `str` gives it."""
    return next((dtype for dtype in COARSE if str(dtype) == name), None)


def exact(loss: RowLoss) -> RowLoss:
    """Return the loss that derivatives are taken of."""
    found: RowLoss = getattr(loss, "exact", loss)
    return found


def tolerance_of(known: float, precision: torch.dtype | None) -> float:
    """Return a relative tolerance that is known for the parameters' own type, or that of the coarser one."""
    return known if precision is None else max(known, COARSE[precision])
