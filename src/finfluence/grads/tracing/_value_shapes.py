"""Operations whose result has another shape for other values: a traced graph would freeze the first one."""

import torch
from torch import fx

aten = torch.ops.aten


def shaped_by_values(graph: fx.Graph) -> str | None:
    """Name an operation in `graph` whose result's shape depends on values, such as a mask used as index."""
    for node in graph.nodes:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or torch.Tag.dynamic_output_shape not in target.tags:
            continue
        indices = [i for i in node.args[1] if i is not None] if target is aten.index.Tensor else []
        if not indices or any(_dtype(i) in (torch.bool, torch.uint8, None) for i in indices):
            return str(target)
    return None


def _dtype(node: fx.Node) -> torch.dtype | None:
    return getattr(node.meta.get("tensor_meta"), "dtype", None)
