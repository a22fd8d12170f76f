"""What depends on shapes only, computed once."""

import operator

import torch
from torch import Tensor, fx

from finfluence.grads.tracing._nodes import pure, shape_and_dtype

aten = torch.ops.aten

_CONSTANT_LIKE = {aten.zeros_like.default, aten.ones_like.default, aten.full_like.default}


def fold_constants(module: fx.GraphModule) -> None:
    """Compute once what depends on shapes only (`ones_like` and scalars) and keep it as a buffer."""
    graph = module.graph
    known: dict[fx.Node, Tensor] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not pure(node) or node.target is operator.getitem:
            continue
        meta = shape_and_dtype(node)
        inputs = node.all_input_nodes
        if node.target in _CONSTANT_LIKE and meta is not None:
            like = node.args[0].meta.get("val", None) if isinstance(node.args[0], fx.Node) else None
            device = like.device if like is not None else node.kwargs.get("device")
            if device is None:
                continue
            fill = {aten.zeros_like.default: 0, aten.ones_like.default: 1}.get(node.target)
            value = torch.full(meta[0], node.args[1] if fill is None else fill, dtype=meta[1], device=device)
        elif all(i in known for i in inputs) and isinstance(node.target, torch._ops.OpOverload):
            replaced = fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
            value = node.target(*replaced[0], **replaced[1])
            if not isinstance(value, Tensor):
                continue
        else:
            continue
        known[node] = value
    for index, (node, value) in enumerate(known.items()):
        if all(user in known for user in node.users):
            continue
        name = f"_constant{index}"
        module.register_buffer(name, value)
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
