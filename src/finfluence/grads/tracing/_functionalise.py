"""In-place operations taken out of a graph."""

import torch
from torch import fx

from finfluence.grads.tracing._nodes import IDENTITY, SHAPE_ONLY, mutates, shape_and_dtype

aten = torch.ops.aten


def functionalise(graph: fx.Graph) -> bool:
    """Replace in-place operations on temporaries by their out-of-place twins; False if one has no twin."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not mutates(node):
            continue
        name = node.target._schema.name.removeprefix("aten::")
        target = node.args[0]
        twin = getattr(aten, name[:-1], None) if name.endswith("_") else None
        twin = getattr(twin, node.target._overloadname, None) if twin is not None else None
        if twin is None or target.op != "call_function" or shape_and_dtype(target) != shape_and_dtype(node):
            return False
        if any(user.target in SHAPE_ONLY | IDENTITY for user in target.users) or target.target in SHAPE_ONLY:
            return False
        node.target = twin
        for user in [u for u in target.users if u is not node and order[u] > order[node]]:
            user.replace_input_with(target, node)
    return True
