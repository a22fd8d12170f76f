"""Both derivatives of a convolution, which forward over reverse takes apart, taken in one call."""

from typing import Any, cast

import torch
from torch import fx

aten = torch.ops.aten

_BY_INPUT, _BY_WEIGHT, _BOTH = [True, False, False], [False, True, False], [True, True, False]


def share_convolutions(graph: fx.Graph) -> None:
    """Take both derivatives of a convolution with one gradient in one call.

    The derivative by the input needs gradient and weight, that by the weight gradient and input.
    """
    earlier: dict[Any, fx.Node] = {}
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.target is not aten.convolution_backward.default:
            continue
        gradient, x, weight, sizes, *how, mask = cast(tuple[Any, ...], node.args)
        if list(mask) not in (_BY_INPUT, _BY_WEIGHT) or None in (_shape(x), _shape(weight)):
            continue
        key = (gradient, _shape(x), _shape(weight), str(how))
        first = earlier.setdefault(key, node)
        taken: Any = first.args[-1]
        if first is node or list(taken) in (list(mask), _BOTH):
            continue
        by_input, by_weight = (node, first) if list(mask) == _BY_INPUT else (first, node)
        needed = (by_weight.args[1], by_input.args[2])
        if all(order[n] < order[first] for n in needed):
            first.args = (gradient, *needed, sizes, *how, _BOTH)
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _shape(node: Any) -> tuple[int, ...] | None:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None
