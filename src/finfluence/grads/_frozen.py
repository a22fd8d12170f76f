"""Operations with kinks held on the piece that they are on at one point: the derivative there, however far one goes.

A difference of gradients at θ and θ + εu is wrong where a kink lies between the two. `Pieces` notes, in a forward pass
at θ, on which side every ReLU, |x|, clamp, maximum, max pooling and comparison is; `Frozen` repeats the pass elsewhere
on the same sides. The model is not touched: both are modes of torch's function dispatch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from finfluence.errors import NotSupportedError, explain
from finfluence.grads._pieces import NOTES, Again, has_pieces


class Pieces(TorchFunctionMode):
    """Inside the block, operations run as they are, and leave in `noted` how to repeat them on the same piece."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[Any, torch.Size, Again]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`; note its piece if it has some."""
        kwargs = kwargs or {}
        if has_pieces(func, args, kwargs):
            with torch.no_grad():
                self.noted.append((func, args[0].shape, NOTES[func](*args, **kwargs)))
        return func(*args, **kwargs)


class Frozen(TorchFunctionMode):
    """Inside the block, operations with pieces take those that `pieces` noted, in the same order.

    Examples
    --------
    >>> with Pieces() as pieces:
    ...     at = torch.relu(torch.tensor([1.0, -1.0]))
    >>> with Frozen(pieces):
    ...     beside = torch.relu(torch.tensor([-2.0, 2.0]))
    >>> beside.tolist()
    [-2.0, 0.0]
    """

    def __init__(self, pieces: Pieces) -> None:
        super().__init__()
        self._noted = iter(pieces.noted)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, on the piece noted for it."""
        kwargs = kwargs or {}
        if not has_pieces(func, args, kwargs):
            return func(*args, **kwargs)
        noted = next(self._noted, None)
        if noted is None or noted[0] is not func or noted[1] != args[0].shape:
            raise NotSupportedError(
                explain(
                    "a forward pass that runs the same operations at θ and beside it",
                    f"{getattr(func, '__name__', func)} out of order at the second point",
                    "its code depends on values, or a fused kernel runs where no gradient is asked for",
                    "use differentiation='exact'",
                )
            )
        return noted[2](*args, **kwargs)
