"""All rewrites of a traced graph, in order."""

from torch import fx

from finfluence.grads.tracing._activations import share_derivatives
from finfluence.grads.tracing._constants import fold_constants
from finfluence.grads.tracing._convolutions import share_convolutions
from finfluence.grads.tracing._functionalise import functionalise
from finfluence.grads.tracing._identities import drop_identities
from finfluence.grads.tracing._nodes import mutates
from finfluence.grads.tracing._repeats import merge_repeats
from finfluence.grads.tracing._reshapes import drop_reshapes
from finfluence.grads.tracing._shared_operands import unbatch_shared_operands
from finfluence.grads.tracing._zeros import drop_zeros


def clean(module: fx.GraphModule) -> fx.GraphModule:
    """Return `module` without aliases, zero tangents, repeated subexpressions and dead code."""
    graph = module.graph
    if any(mutates(node) for node in graph.nodes) and not functionalise(graph):
        return module
    drop_identities(graph)
    drop_zeros(graph)
    merge_repeats(graph)
    unbatch_shared_operands(graph)
    graph.eliminate_dead_code()
    share_convolutions(graph)
    share_derivatives(graph)
    drop_reshapes(graph)
    merge_repeats(graph)
    fold_constants(module)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return module
