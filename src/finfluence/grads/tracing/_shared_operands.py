"""Batched products with an operand common to the batch, as one plain product."""

from typing import Any

import torch
from torch import Tensor, fx

from finfluence.grads.tracing._nodes import on_cpu, shape_and_dtype

aten = torch.ops.aten


def unbatch_shared_operands(graph: fx.Graph) -> None:
    """Turn a batched product with one operand common to the batch into one plain product.

    A·B_q for all q is (stacked B_qᵀ)·Aᵀ, and A_q·B is (stacked A_q)·B: no copy of the common operand per query.
    On a CPU, where a batched product takes the common operand without a copy, only where the stack needs none either.
    """
    for node in list(graph.nodes):
        if node.target is not aten.bmm.default or shape_and_dtype(node) is None:
            continue
        left, right = node.args
        batch, m, n = shape_and_dtype(node)[0]
        k = shape_and_dtype(left)[0][2]
        shared_left, shared_right = _common(left), _common(right)
        if batch == 1 or (shared_left is None) == (shared_right is None):
            continue
        with graph.inserting_before(node):
            if on_cpu(node) and (shared_right is None or not _contiguous(left)):
                if shared_right is not None:
                    whole = graph.call_function(aten.expand.default, (shared_right, [batch, k, n]))
                    out = graph.call_function(aten.bmm.default, (left, whole))
                else:
                    whole = graph.call_function(aten.expand.default, (shared_left, [batch, m, k]))
                    out = graph.call_function(aten.bmm.default, (whole, right))
            elif shared_right is not None:
                flat = graph.call_function(aten.reshape.default, (left, [batch * m, k]))
                product = graph.call_function(aten.mm.default, (flat, shared_right))
                out = graph.call_function(aten.view.default, (product, [batch, m, n]))
            else:
                turned = graph.call_function(aten.transpose.int, (right, 1, 2))
                flat = graph.call_function(aten.reshape.default, (turned, [batch * n, k]))
                across = graph.call_function(aten.t.default, (shared_left,))
                product = graph.call_function(aten.mm.default, (flat, across))
                square = graph.call_function(aten.view.default, (product, [batch, n, m]))
                out = graph.call_function(aten.transpose.int, (square, 1, 2))
        out.meta = dict(node.meta)
        node.replace_all_uses_with(out)
        graph.erase_node(node)
    for node in graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def _contiguous(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, Tensor) and value.is_contiguous()


def _common(node: Any) -> fx.Node | None:
    """Return the matrix that `node` repeats along its leading axis, if it does."""
    while node.target is aten.view.default and shape_and_dtype(node) == shape_and_dtype(node.args[0]):
        node = node.args[0]
    source = node.args[0] if node.target is aten.expand.default else None
    meta = shape_and_dtype(source)
    return source if isinstance(source, fx.Node) and meta is not None and len(meta[0]) == 2 else None
