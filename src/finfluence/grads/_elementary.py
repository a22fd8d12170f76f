"""Functions written out whose own code PyTorch cannot trace, or has no forward-over-reverse derivative of."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Elementary(TorchFunctionMode):
    """Inside the block, some functions are computed by elementary operations; same values."""

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


def _margins(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, *further: Any, **named: Any
) -> Tensor:
    """Hinge loss over classes, reduced as `torch.nn.functional.multi_margin_loss` does."""
    if input.dim() != 2:
        return F.multi_margin_loss(input, target, p, margin, *further, **named)
    given: dict[str, Any] = {"weight": None, "size_average": None, "reduce": None, "reduction": "mean"}
    given |= dict(zip(given, further, strict=False)) | named
    right = target.unsqueeze(1)
    short = (margin - input.gather(1, right) + input).clamp_min(0.0)
    others = right != torch.arange(input.shape[1], device=input.device)
    each = torch.where(others, short if p == 1 else short**p, 0.0)
    if given["weight"] is not None:
        each = each * given["weight"][right]
    reduction = _reduction(given["size_average"], given["reduce"], given["reduction"])
    return _reduce(each.sum(1) / input.shape[1], reduction)


def _hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Piecewise linear sigmoid, as `torch.nn.functional.hardsigmoid`."""
    return (input + 3.0).clamp(0.0, 6.0) / 6.0


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """One-hot codes without a look at the values, as `torch.nn.functional.one_hot` has."""
    if num_classes < 0:
        return F.one_hot(tensor)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Weight of a direction and a length, as `torch.nn.utils.parametrizations.weight_norm` has it."""
    if dim == -1:
        return v * (g / v.norm())
    axes = [axis for axis in range(v.ndim) if axis != dim % v.ndim]
    return v * (g / (v.norm(dim=axes, keepdim=True) if axes else v.abs()))


def _embedding_bag(input: Tensor, weight: Tensor, *further: Any, **named: Any) -> Tensor:
    """Sums and means of embeddings of bags of one size, as `torch.nn.functional.embedding_bag`."""
    given: dict[str, Any] = {
        "offsets": None, "max_norm": None, "norm_type": 2, "scale_grad_by_freq": False, "mode": "mean",
        "sparse": False, "per_sample_weights": None, "include_last_offset": False, "padding_idx": None,
    }  # fmt: skip
    given |= dict(zip(given, further, strict=False)) | named
    plain = input.dim() == 2 and given["mode"] in ("sum", "mean") and given["max_norm"] is None
    if not plain or given["scale_grad_by_freq"] or given["sparse"]:
        return F.embedding_bag(input, weight, *further, **named)
    padding = given["padding_idx"]
    kept = torch.ones_like(input) if padding is None else (input != padding % len(weight)).long()
    each = F.embedding(input, weight, padding) * kept.unsqueeze(2)
    if given["per_sample_weights"] is not None:
        each = each * given["per_sample_weights"].unsqueeze(2)
    total = each.sum(1)
    return total if given["mode"] == "sum" else total / kept.sum(1, keepdim=True).clamp_min(1)


def _view_as_complex(input: Tensor) -> Tensor:
    """Complex numbers of pairs, which tangents need not lie in memory for as `torch.view_as_complex` wants."""
    return torch.complex(input[..., 0], input[..., 1])


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout with the numbers that the CPU's `torch.nn.functional.dropout` draws, in the order of `input` in memory.

    Under forward derivatives torch's own forgets that order where `input` is transposed.

    Returns
    -------
    Tensor
    """
    if not _draws(input, p, training):
        return F.dropout(input, p, training, inplace)
    kept = torch.empty_like(input).bernoulli_(1 - p).div_(1 - p)
    return input.mul_(kept) if inplace else input * kept


def _alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Alpha dropout, as `_dropout`: dropped entries become −α' and all are scaled to keep mean and variance."""
    if not _draws(input, p, training):
        return F.alpha_dropout(input, p, training, inplace)
    kept, alpha = torch.empty_like(input).bernoulli_(1 - p), 1.7580993408473766
    scale = 1 / ((alpha**2 * p + 1) * (1 - p)) ** 0.5
    shift = (kept - 1) * (alpha * scale) + alpha * scale * p
    return input.mul_(kept * scale).add_(shift) if inplace else input * (kept * scale) + shift


def _draws(input: Tensor, p: float, training: bool) -> bool:
    """Whether the CPU draws a number for each entry of `input`."""
    return training and 0 < p < 1 and input.numel() > 0 and input.device.type == "cpu"


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is None and reduce is None:
        return reduction
    return "none" if reduce is False else "sum" if size_average is False else "mean"


def _reduce(each: Tensor, reduction: str) -> Tensor:
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


_TWINS: dict[Any, Callable[..., Tensor]] = {
    F.mse_loss: _mse, F.huber_loss: _huber, F.multi_margin_loss: _margins, F.one_hot: _one_hot,
    F.hardsigmoid: _hard_sigmoid, torch.view_as_complex: _view_as_complex, torch._weight_norm: _weight_norm,
    F.embedding_bag: _embedding_bag, F.dropout: _dropout, F.alpha_dropout: _alpha_dropout,
    torch.dropout: lambda input, p, train: _dropout(input, p, train),
}  # fmt: skip
