"""What the autograd graph of a loss says about it: kinks, fused attention, convolutions."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_KINKED = {
    "Abs", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "Amax", "Amin", "Aminmax", "Cummax", "Cummin", "Floor", "Fmax",
    "Fmin", "Fmod", "Frac", "FractionalMaxPool2D", "FractionalMaxPool3D", "Hardshrink", "Hardsigmoid", "Hardswish",
    "Hardtanh", "Kthvalue", "LeakyRelu", "Max", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Maximum", "Median",
    "Min", "Minimum", "Mode", "MultiMarginLoss", "MultilabelMarginLoss", "Nanmedian", "PreluKernel", "Relu", "Relu6",
    "Remainder", "Round", "RreluWithNoise", "Sign", "Softshrink", "Sort", "Threshold", "Topk", "Trunc",
}  # fmt: skip


def _elu(node: Any) -> bool:
    return bool(node._saved_alpha * node._saved_input_scale != 1)


def _clamp(node: Any) -> bool:
    """A clamp that holds no value at its bounds on this batch, or all of them, bends nowhere near."""
    value = node._saved_self
    held = torch.zeros(value.shape, dtype=torch.bool, device=value.device)
    for name, beyond in (("_saved_min", torch.lt), ("_saved_max", torch.gt)):
        bound = getattr(node, name, None)
        if bound is not None:
            held |= beyond(value, bound)
    return bool(held.any()) and not bool(held.all())


_DEPENDS: dict[str, Callable[[Any], bool]] = {
    "Clamp": _clamp,
    "ClampMin": _clamp,
    "ClampMax": _clamp,
    "Elu": _elu,
    "EmbeddingBag": lambda node: node._saved_mode == 2,
    "LinalgVectorNorm": lambda node: node._saved_ord in (1, float("inf"), -float("inf")),
    "Norm": lambda node: node._saved_p in (1, float("inf"), -float("inf")),
    "Cdist": lambda node: node._saved_p in (1, float("inf")),
}


def operations(losses: Tensor) -> dict[str, list[Any]]:
    """Return the operations between the parameters and `losses`, by torch's name, each with its graph nodes."""
    found: dict[str, list[Any]] = {}
    for node in _nodes(losses.grad_fn):
        name = node.name().partition("Backward")[0]
        found.setdefault(name.rpartition("::")[2], []).append(node)
    return found


def kinks(losses: Tensor) -> list[str]:
    """Name the operations between parameters and `losses` whose derivative jumps: ReLU, max pooling, |x| and others.

    Operations on data alone do not count, nor does a clamp that holds all values or none.

    Returns
    -------
    list of str
        In the order of the alphabet.

    Examples
    --------
    >>> weight = torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> kinks(torch.relu(weight).sum()), kinks(torch.nn.functional.gelu(weight).sum())
    (['Relu'], [])
    """
    return sorted(
        name
        for name, nodes in operations(losses).items()
        if name in _KINKED or (name in _DEPENDS and any(_DEPENDS[name](node) for node in nodes))
    )


def _nodes(root: Any) -> Iterator[Any]:
    seen, open_ = set(), [root]
    while open_:
        node = open_.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        open_.extend(following for following, _ in node.next_functions)
