"""A kernel that is slow over short rows on a CPU, written as several quick ones: the same numbers up to rounding.

Where gradients vanish but for rounding, Adam divides rounding by rounding: a graph is compared with its function before
this is done to it, not after. Softmax stays as it is: shares that sum to 1 less exactly make that noise larger.
"""

import torch
from torch import fx

from finfluence.grads.tracing._nodes import mutates, on_cpu
from finfluence.grads.tracing._repeats import merge_repeats

aten = torch.ops.aten


def split_short_rows(module: fx.GraphModule) -> None:
    """Write out, in place, mean and variance, which the second derivative of layer norm takes."""
    graph = module.graph
    if any(mutates(node) for node in graph.nodes):
        return
    for node in list(graph.nodes):
        if not on_cpu(node):
            continue
        if node.target is aten.var_mean.correction and node.kwargs.get("correction") == 0:
            _mean_and_variance(graph, node)
    merge_repeats(graph)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _mean_and_variance(graph: fx.Graph, node: fx.Node) -> None:
    """x̄ and the mean of (x − x̄)²; the difference is one that a normalisation needs anyway."""
    x, dims = node.args[0], node.args[1]
    kept = bool(node.kwargs.get("keepdim", False))
    with graph.inserting_before(node):
        mean = graph.call_function(aten.mean.dim, (x, dims, True))
        centred = graph.call_function(aten.sub.Tensor, (x, mean))
        square = graph.call_function(aten.mul.Tensor, (centred, centred))
        variance = graph.call_function(aten.mean.dim, (square, dims, kept))
        if not kept:
            mean = graph.call_function(aten.mean.dim, (x, dims, False))
    for user in list(node.users):
        new = variance if user.args[1] == 0 else mean
        new.meta = dict(user.meta)
        user.replace_all_uses_with(new)
        graph.erase_node(user)
