"""Reshapes and transpositions that differentiation and vmap leave behind, taken out of a graph."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def drop_reshapes(graph: fx.Graph) -> None:
    """Reshape once where reshapes follow each other, not at all to the same shape, nor transpose twice."""
    for node in list(graph.nodes):
        if node.target is aten.reshape.default:
            source = node.args[0]
            while source.target is aten.reshape.default:
                source = source.args[0]
            node.args = (source, node.args[1])
            if _shape(source) is not None and _shape(source) == _shape(node):
                node.replace_all_uses_with(source)
        elif node.target is aten.t.default and node.args[0].target is aten.t.default:
            node.replace_all_uses_with(node.args[0].args[0])


def _shape(node: Any) -> tuple[int, ...] | None:
    value = node.meta.get("tensor_meta")
    return tuple(value.shape) if hasattr(value, "shape") else None
