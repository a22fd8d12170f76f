"""Fused losses written out: PyTorch crashes on, or lacks, their forward-over-reverse derivative."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Elementary(TorchFunctionMode):
    """Inside the block, `mse_loss` and `huber_loss` are computed by elementary operations; same values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the written-out twin of `func` if it has one, else `func`."""
        return _TWINS.get(func, func)(*args, **(kwargs or {}))


def _mse(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error, reduced as `torch.nn.functional.mse_loss` does."""
    each = (input - target) ** 2
    if weight is not None:
        each = each * weight
        if reduction == "mean":
            return each.sum() / weight.expand_as(each).sum()
    return _reduce(each, _reduction(size_average, reduce, reduction))


def _huber(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Huber loss, reduced as `torch.nn.functional.huber_loss` does."""
    error = (input - target).abs()
    each = torch.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta))
    return _reduce(each if weight is None else each * weight, reduction)


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is None and reduce is None:
        return reduction
    return "none" if reduce is False else "sum" if size_average is False else "mean"


def _reduce(each: Tensor, reduction: str) -> Tensor:
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


_TWINS: dict[Any, Callable[..., Tensor]] = {F.mse_loss: _mse, F.huber_loss: _huber}
