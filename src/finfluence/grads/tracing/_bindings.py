"""Call an operation by torch's own function: the same kernel, at half the cost of the call."""

import torch
from torch import fx

aten = torch.ops.aten

_FUNCTIONS = {
    aten.add.Tensor: torch.add,
    aten.addmm.default: torch.addmm,
    aten.bmm.default: torch.bmm,
    aten.cat.default: torch.cat,
    aten.div.Scalar: torch.div,
    aten.div.Tensor: torch.div,
    aten.exp.default: torch.exp,
    aten.mean.dim: torch.mean,
    aten.mm.default: torch.mm,
    aten.mul.Scalar: torch.mul,
    aten.mul.Tensor: torch.mul,
    aten.neg.default: torch.neg,
    aten.pow.Tensor_Scalar: torch.pow,
    aten.reciprocal.default: torch.reciprocal,
    aten.relu.default: torch.relu,
    aten.reshape.default: torch.reshape,
    aten.rsqrt.default: torch.rsqrt,
    aten.select.int: torch.select,
    aten.split_with_sizes.default: torch.split_with_sizes,
    aten.sqrt.default: torch.sqrt,
    aten.stack.default: torch.stack,
    aten.sub.Tensor: torch.sub,
    aten.sum.dim_IntList: torch.sum,
    aten.t.default: torch.t,
    aten.transpose.int: torch.transpose,
    aten.unbind.int: torch.unbind,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.where.self: torch.where,
}


def call_directly(module: fx.GraphModule) -> None:
    """Replace operations by the functions of `torch` that call them; nothing else about the graph changes."""
    for node in module.graph.nodes:
        if node.target is aten.expand.default and not node.kwargs:
            node.op, node.target = "call_method", "expand"
        elif node.op == "call_function" and node.target in _FUNCTIONS:
            node.target = _FUNCTIONS[node.target]
    module.recompile()
