"""An activation's derivative, which forward over reverse takes several times, taken once."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_DERIVATIVES = {aten.gelu_backward.default}
_SPREAD = {aten.expand.default}


def share_derivatives(graph: fx.Graph) -> None:
    """Compute an activation's derivative once where several gradients pass through the same activation.

    backward(g, x) = g·f′(x), and f′ is dear: with f′(x) = backward(1, x) each further gradient costs a product.
    """
    groups: dict[Any, list[fx.Node]] = {}
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.target in _DERIVATIVES and "val" in node.meta:
            source = _source(node.args[1])
            groups.setdefault((node.target, source, tuple(sorted(node.kwargs.items()))), []).append(node)
    for (target, source, kwargs), nodes in groups.items():
        if len(nodes) < 2:
            continue
        first = min(nodes, key=order.__getitem__)
        with graph.inserting_before(first):
            ones = graph.call_function(aten.ones_like.default, (source,))
            ones.meta = dict(source.meta)
            slope = graph.call_function(target, (ones, source), dict(kwargs))
            slope.meta = dict(source.meta)
        for node in nodes:
            with graph.inserting_before(node):
                product = graph.call_function(aten.mul.Tensor, (node.args[0], slope))
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
            graph.erase_node(node)


def _source(node: Any) -> Any:
    """Return what `node` repeats along new leading axes, or itself."""
    if node.target in _SPREAD and isinstance(node.args[0], fx.Node) and "val" in node.args[0].meta:
        inner = node.args[0].meta["val"]
        if tuple(node.meta["val"].shape[-inner.ndim :]) == tuple(inner.shape):
            return node.args[0]
    return node
