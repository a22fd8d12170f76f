"""What a node of a traced graph computes: shape, device, and whether it may be moved or merged."""

import operator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

IDENTITY = {aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
SHAPE_ONLY = {
    aten.expand.default, aten.view.default, aten.t.default, aten.transpose.int, aten.permute.default,
    aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.reshape.default,
    aten._to_copy.default, aten.clone.default, aten.select.int, aten.slice.Tensor, aten.neg.default,
    aten._reshape_alias.default,
}  # fmt: skip


def mutates(node: fx.Node) -> bool:
    """Return whether the node writes on one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def pure(node: fx.Node) -> bool:
    """Return whether the node gives the same whenever it is called with the same."""
    if node.target is operator.getitem:
        return True
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and not node.target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in node.target.tags
    )


def shape_and_dtype(node: Any) -> Any:
    """Return (shape, dtype) of what a node computes, or None if unknown."""
    value = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return (tuple(value.shape), value.dtype) if value is not None and hasattr(value, "shape") else None


def on_cpu(node: fx.Node) -> bool:
    """Whether what the node gives, the first of it if it is several, lies on a CPU."""
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return isinstance(first, Tensor) and first.device.type == "cpu"
