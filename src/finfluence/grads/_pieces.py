"""How operations with kinks are repeated on the piece that they are on at some point, by torch's function.

A note is made of a call's arguments and returns the function to call in its place elsewhere. Elementwise operations
are y = s·x + c on each piece; pooling and maxima pick the same entries again; comparisons and roundings have the same
result. What is not listed keeps its kink, which `kinks` then names.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Again = Callable[..., Any]
Line = tuple[Tensor, Tensor | None, bool]


def has_pieces(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the call is one that can be repeated on its piece."""
    if func not in NOTES or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return False
    bounds = (*args[1:], *kwargs.values())
    return func not in _CLAMPS or not any(isinstance(bound, Tensor) for bound in bounds)


def _line(of: Callable[..., Line]) -> Callable[..., Again]:
    """Return the note of an elementwise operation: `of` gives s, c (None: 0) and whether it works in place."""

    def note(*args: Any, **kwargs: Any) -> Again:
        slope, offset, inplace = of(*args, **kwargs)

        def again(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out = input.mul_(slope) if inplace else input * slope
            if offset is None:
                return out
            return out.add_(offset) if inplace else out + offset

        return again

    return note


def _inplace(of: Callable[..., Line]) -> Callable[..., Line]:
    return lambda *args, **kwargs: (*of(*args, **kwargs)[:2], True)


def _where(condition: Tensor, like: Tensor) -> Tensor:
    return condition.to(like.dtype)


def _relu(input: Tensor, inplace: bool = False) -> Line:
    return _where(input > 0, input), None, inplace


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Line:
    return _where(input > 0, input).mul_(1 - negative_slope).add_(negative_slope), None, inplace


def _abs(input: Tensor) -> Line:
    return input.sign(), None, False


def _between(input: Tensor, low: float | None, high: float | None) -> tuple[Tensor, Tensor]:
    value = input.clamp(low, high)
    inside = _where(value == input, input)
    return inside, value * (1 - inside)


def _clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Line:
    return *_between(input, min, max), False


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Line:
    return *_between(input, min_val, max_val), inplace


def _relu6(input: Tensor, inplace: bool = False) -> Line:
    return _hardtanh(input, 0.0, 6.0, inplace)


def _threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Line:
    over = _where(input > threshold, input)
    return over, value * (1 - over), inplace


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Line:
    slope, offset = _between(input / 6 + 0.5, 0.0, 1.0)
    return slope / 6, offset + slope / 2, inplace


def _hardswish(input: Tensor, inplace: bool = False) -> Again:
    slope, offset = _between(input / 6 + 0.5, 0.0, 1.0)
    slope, offset = slope / 6, offset + slope / 2

    def again(input: Tensor, inplace: bool = False) -> Tensor:
        gate = input * slope + offset
        return input.mul_(gate) if inplace else input * gate

    return again


def _prelu(input: Tensor, weight: Tensor) -> Again:
    over = _where(input > 0, input)

    def again(input: Tensor, weight: Tensor) -> Tensor:
        wide = weight if weight.numel() == 1 else weight.view(-1, *[1] * (input.ndim - 2))
        return input * over + wide * (input * (1 - over))

    return again


def _pooling(pool: Callable[..., tuple[Tensor, Tensor]], axes: int) -> Callable[..., Again]:
    """Return the note of a max pooling over the last axes; `pool` returns values and indices."""

    def note(*args: Any, **kwargs: Any) -> Again:
        indices = pool(*args, **{k: v for k, v in kwargs.items() if k != "return_indices"})[1]
        flat = indices.flatten(-axes)

        def again(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return input.flatten(-axes).gather(-1, flat).view(indices.shape)

        return again

    return note


def _extreme(pick: Callable[..., Any]) -> Callable[..., Again]:
    """Return the note of `max` or `min`: of all entries, along one axis, or of two tensors."""
    largest = pick is torch.max

    def note(input: Tensor, *args: Any, **kwargs: Any) -> Again:
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Tensor):
            return _of_two(torch.ge if largest else torch.le)(input, other)
        found = pick(input, *args, **kwargs)
        if isinstance(found, Tensor):
            place = input.argmax() if largest else input.argmin()
            return lambda input: input.flatten()[place]
        dim = args[0] if args else kwargs["dim"]
        keep = found.indices.ndim == input.ndim
        indices = found.indices if keep else found.indices.unsqueeze(dim)

        def again(input: Tensor, *args: Any, **kwargs: Any) -> Any:
            values = input.gather(dim, indices)
            return type(found)((values if keep else values.squeeze(dim), found.indices))

        return again

    return note


def _of_two(first: Callable[..., Tensor]) -> Callable[..., Again]:
    """Return the note of a maximum or minimum of two tensors; `first` says where it is the first of them."""

    def note(input: Tensor, other: Tensor) -> Again:
        chosen = _where(first(input, other), input)
        return lambda input, other: input * chosen + other * (1 - chosen)

    return note


def _same(func: Callable[..., Any]) -> Callable[..., Again]:
    """Return the note of an operation that is constant on each piece."""

    def note(*args: Any, **kwargs: Any) -> Again:
        found = func(*args, **kwargs)
        return lambda *args, **kwargs: found

    return note


def _l1_loss(input: Tensor, target: Tensor, **kwargs: Any) -> Again:
    sign = (input - target).sign()

    def again(input: Tensor, target: Tensor, reduction: str = "mean", **kwargs: Any) -> Tensor:
        each = (input - target) * sign
        return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]

    return again


_LINES: dict[Callable[..., Line], list[Any]] = {
    _relu: [F.relu, torch.relu, Tensor.relu],
    _inplace(_relu): [F.relu_, torch.relu_, Tensor.relu_],
    _leaky_relu: [F.leaky_relu],
    _inplace(_leaky_relu): [F.leaky_relu_],
    _abs: [torch.abs, Tensor.abs, torch.absolute, Tensor.absolute, Tensor.__abs__],
    _inplace(_abs): [torch.abs_, Tensor.abs_],
    _clamp: [torch.clamp, Tensor.clamp, torch.clip, Tensor.clip],
    _inplace(_clamp): [torch.clamp_, Tensor.clamp_],
    _hardtanh: [F.hardtanh],
    _inplace(_hardtanh): [F.hardtanh_],
    _relu6: [F.relu6],
    _threshold: [F.threshold, torch.threshold, vars(F)["_threshold"]],
    _hardsigmoid: [F.hardsigmoid],
}
_LINES[lambda input, min: _clamp(input, min)] = [torch.clamp_min, Tensor.clamp_min]
_LINES[lambda input, max: _clamp(input, None, max)] = [torch.clamp_max, Tensor.clamp_max]

_CLAMPS: set[Any] = {
    f for of, some in _LINES.items() for f in some if "clamp" in f.__name__ or "clip" in f.__name__
}

_OTHERS: dict[Callable[..., Again], list[Any]] = {
    _hardswish: [F.hardswish],
    _prelu: [F.prelu, torch.prelu],
    _pooling(F.max_pool1d_with_indices, 1): [F.max_pool1d, torch.max_pool1d],
    _pooling(F.max_pool2d_with_indices, 2): [F.max_pool2d, torch.max_pool2d],
    _pooling(F.max_pool3d_with_indices, 3): [F.max_pool3d, torch.max_pool3d],
    _pooling(F.adaptive_max_pool1d_with_indices, 1): [F.adaptive_max_pool1d],
    _pooling(F.adaptive_max_pool2d_with_indices, 2): [F.adaptive_max_pool2d],
    _pooling(F.adaptive_max_pool3d_with_indices, 3): [F.adaptive_max_pool3d],
    _extreme(torch.max): [torch.max, Tensor.max],
    _extreme(torch.min): [torch.min, Tensor.min],
    _of_two(torch.ge): [torch.maximum, Tensor.maximum],
    _of_two(torch.le): [torch.minimum, Tensor.minimum],
    _l1_loss: [F.l1_loss],
}
_COMPARISONS = (
    torch.gt, torch.lt, torch.ge, torch.le, torch.sign, torch.floor, torch.ceil, torch.round, torch.trunc,
    torch.argmax, torch.argmin, torch.heaviside,
)  # fmt: skip

NOTES: dict[Any, Callable[..., Again]] = {
    **{func: _line(of) for of, some in _LINES.items() for func in some},
    **{func: note for note, some in _OTHERS.items() for func in some},
    **{func: _same(func) for func in _COMPARISONS},
    **{f: _same(f) for f in (getattr(Tensor, c.__name__) for c in _COMPARISONS)},
    **{f: _same(f) for f in (Tensor.__gt__, Tensor.__lt__, Tensor.__ge__, Tensor.__le__)},
}
