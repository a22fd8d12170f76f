"""A computation in double precision, whatever its code asks for."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map


def in_double(model: nn.Module) -> nn.Module:
    """Return a copy of the model in double precision; what a forward pass left on it is copied without its graph.

    Returns
    -------
    nn.Module

    Examples
    --------
    >>> model = nn.Linear(1, 1)
    >>> model.last = model(torch.ones(1))
    >>> in_double(model).weight.dtype
    torch.float64
    """
    left = (t for module in model.modules() for t in tree_leaves(vars(module)) if isinstance(t, Tensor))
    computed = {id(t): t.detach() for t in left if not t.is_leaf}
    return copy.deepcopy(model, computed).double()


class InDouble(TorchFunctionMode):
    """Inside the block, floating tensors are float64: constants and casts to a lower precision, too.

    Examples
    --------
    >>> weight = torch.tensor([0.1], dtype=torch.float64)
    >>> with InDouble():
    ...     out = torch.ones(1) * weight.float()
    >>> out.dtype, bool(out == weight)
    (torch.float64, True)
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func` on float64 tensors, and for float64 where it is told another precision."""
        args, kwargs = _raised((args, kwargs or {}))
        return _raised(_CASTS.get(func, func)(*args, **kwargs))


_LOWER = {torch.float32, torch.float16, torch.bfloat16}
_CASTS: dict[Any, Callable[..., Any]] = {
    Tensor.float: Tensor.double, Tensor.half: Tensor.double, Tensor.bfloat16: Tensor.double,
}  # fmt: skip


_PLAIN = (bool, int, float, str, type(None))


def _raised(value: Any) -> Any:
    """Return a value with its tensors in double precision; common containers by hand, for the time it takes."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return kind(map(_raised, value))
    if kind is dict:
        return {key: _raised(part) for key, part in value.items()}
    return _raised_leaf(value) if isinstance(value, Tensor) else tree_map(_raised_leaf, value)


def _raised_leaf(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _LOWER else value
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOWER else value
