"""Aliases and copies that change nothing, taken out of a graph."""

import torch
from torch import fx

from finfluence.grads.tracing._nodes import IDENTITY, shape_and_dtype

aten = torch.ops.aten


def drop_identities(graph: fx.Graph) -> None:
    """Let the users of an alias, a detached tensor or a copy to the same type use what it was made of."""
    for node in list(graph.nodes):
        if (
            node.target is aten.copy.default
            and shape_and_dtype(node) is not None
            and shape_and_dtype(node) == shape_and_dtype(node.args[1])
        ):
            node.replace_all_uses_with(node.args[1])
            graph.erase_node(node)
            continue
        same_copy = (
            node.target is aten._to_copy.default
            and shape_and_dtype(node) is not None
            and shape_and_dtype(node) == shape_and_dtype(node.args[0])
            and "memory_format" not in node.kwargs
        )
        if node.target in IDENTITY or same_copy:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
