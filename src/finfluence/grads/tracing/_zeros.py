"""Sums and products with tangents known to be zero, taken out of a graph."""

import operator

import torch
from torch import fx

from finfluence.grads.tracing._nodes import SHAPE_ONLY, shape_and_dtype

aten = torch.ops.aten

_ZERO_SOURCES = {
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten._efficientzerotensor.default,
}
_BILINEAR = {aten.mm.default, aten.bmm.default, aten.mul.Tensor, aten.mv.default, aten.dot.default}


def _zero_part(node: fx.Node, zero: set[fx.Node]) -> bool:
    """Return whether `node` picks a part of a convolution's derivative that vanishes with its zero operand."""
    whole = node.args[0] if node.target is operator.getitem else None
    if not isinstance(whole, fx.Node) or whole.target is not aten.convolution_backward.default:
        return False
    gradient, x, weight = whole.args[:3]
    other = weight if node.args[1] == 0 else x if node.args[1] == 1 else None
    return gradient in zero or other in zero


def drop_zeros(graph: fx.Graph) -> None:
    """Replace `a + 0` by `a` and mark products with zero as zero, where shapes and dtypes agree."""
    zero: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        args = [a for a in node.args if isinstance(a, fx.Node)]
        if (
            node.target in _ZERO_SOURCES
            or _zero_part(node, zero)
            or (node.target in SHAPE_ONLY and args and args[0] in zero)
            or (node.target in _BILINEAR and any(a in zero for a in args))
            or (
                node.target is aten.convolution.default
                and (node.args[0] in zero or node.args[1] in zero)
                and node.args[2] is None
            )
        ):
            zero.add(node)
        elif node.target is aten.add.Tensor and not node.kwargs and len(args) == 2:
            if all(a in zero for a in args):
                zero.add(node)
                continue
            kept = next((k for k, other in (args, args[::-1]) if other in zero), None)
            if (
                kept is None
                or shape_and_dtype(kept) is None
                or shape_and_dtype(node) is None
                or shape_and_dtype(kept)[1] != shape_and_dtype(node)[1]
            ):
                continue
            if shape_and_dtype(kept) != shape_and_dtype(node):
                with graph.inserting_before(node):
                    shaped = graph.call_function(aten.expand.default, (kept, list(shape_and_dtype(node)[0])))
                shaped.meta = dict(node.meta)
                kept = shaped
            node.replace_all_uses_with(kept)
    graph.eliminate_dead_code()
