"""The gradient that autograd returns, as a graph of plain operations whose own derivatives are true.

Stopped gradients, custom backward functions, hooks and `no_grad` decide which operations autograd runs. Once they have
run, what is left is a list of operations on numbers, g(θ, v): differentiated as such, it gives the derivative of the
returned gradient, whatever that is the gradient of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from finfluence.grads.tracing._clean import clean
from finfluence.grads.tracing._trace import Traced, equal, no_collection
from finfluence.grads.tracing._value_shapes import shaped_by_values

aten = torch.ops.aten


def trace_gradient(
    losses: Callable[..., Tensor], theta: Tensor, cotangent: Tensor, *fields: Tensor
) -> Traced:
    """Trace g(θ, v) = Σ_i v_i ∇ℓ_i(θ), as autograd returns it, at an example.

    Parameters
    ----------
    losses : callable
        `losses(theta, *fields) -> Tensor[B]`.
    theta, cotangent, *fields : Tensor
        θ [P], v [B], and what else the losses read.

    Returns
    -------
    Traced
        The map (θ, v, *fields) to g [P]; without a graph, `reason` says why there is none.

    Examples
    --------
    >>> traced = trace_gradient(lambda p, x: p.detach() * p * x, torch.ones(1), torch.ones(1), torch.ones(1))
    >>> torch.autograd.functional.vjp(lambda p: traced.graph(p, torch.ones(1), torch.ones(1)), torch.ones(1),
    ...                               torch.ones(1))[1]
    tensor([1.])
    """

    def gradient(theta: Tensor, cotangent: Tensor, *fields: Tensor) -> Tensor:
        with torch.enable_grad():
            point = theta.detach().requires_grad_(True)
            (found,) = torch.autograd.grad(losses(point, *fields), point, cotangent, create_graph=True)
        return found.detach()

    return trace_values(gradient, theta, cotangent, *fields)


def trace_values(function: Callable[..., Tensor], *example: Tensor) -> Traced:
    """Trace a function into operations whose derivatives are those of its values, whatever autograd would give.

    Parameters
    ----------
    function : callable
        Tensors in, a tensor out.
    *example : Tensor

    Returns
    -------
    Traced
        Without a graph, `reason` says why there is none.

    Examples
    --------
    >>> traced = trace_values(lambda p: p.detach() * p, torch.ones(1))
    >>> torch.autograd.functional.jacobian(traced.graph, torch.ones(1))
    tensor([[2.]])
    """
    try:
        with no_collection():
            raw = make_fx(function, decomposition_table=_TRUE)(*example)
    except Exception as error:  # any Python the tracer cannot follow
        return Traced(function, None, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
    if (name := shaped_by_values(raw.graph)) is not None:
        return Traced(function, None, f"the shape of a result of {name} depends on values")
    graph = clean(raw)
    _connect(graph)
    if not equal(function(*example).detach(), graph(*example)):
        return Traced(function, None, "the traced graph does not reproduce the function")
    return Traced(function, graph, None)


def _connect(module: fx.GraphModule) -> None:
    """Take out what stops derivatives but leaves values; `clean` does, unless it left the graph alone."""
    for node in list(module.graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.recompile()


def _lookup(
    weight: Tensor, indices: Tensor, padding: int = -1, by_count: bool = False, sparse: bool = False
) -> Tensor:
    """Rows of a table: the padding's row is a value like others, though no gradient is returned for it."""
    return weight.index_select(0, indices.reshape(-1)).view(*indices.shape, *weight.shape[1:])


def _lookup_gradient(gradient: Tensor, indices: Tensor, count: int, padding: int, by_count: bool) -> Tensor:
    """Sum gradients by row of the table, leaving out the padding's, divided by how often a row occurs if asked."""
    flat = indices.reshape(-1)
    rows = gradient.reshape(len(flat), -1)
    if by_count:
        times = rows.new_zeros(count).index_add(0, flat, torch.ones_like(flat, dtype=rows.dtype))
        rows = rows / times[flat].unsqueeze(-1)
    if padding >= 0:
        rows = rows * (flat != padding).unsqueeze(-1)
    return rows.new_zeros(count, rows.shape[1]).index_add(0, flat, rows)


def _norms(v: Tensor, dim: int) -> Tensor:
    """Return norms over all axes but one; over all if it is −1."""
    kept = [] if dim == -1 else [dim % v.dim()]
    return (v * v).sum([k for k in range(v.dim()) if k not in kept], keepdim=True).sqrt()


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Return g·v/‖v‖ and ‖v‖."""
    norms = _norms(v, dim)
    return v * (g / norms), norms


def _weight_norm_gradient(
    gradient: Tensor, v: Tensor, g: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and g; norms are those of v, which they depend on."""
    norms = _norms(v, dim)
    along = (gradient * v).sum([k for k in range(v.dim()) if norms.shape[k] == 1], keepdim=True) / norms
    return (g / norms) * (gradient - v * (along / norms)), along.reshape(g.shape)


_TRUE: dict[Any, Callable[..., Any]] = {
    aten._weight_norm_interface.default: _weight_norm,
    aten._weight_norm_interface_backward.default: _weight_norm_gradient,
    aten.embedding.default: _lookup,
    aten.embedding_dense_backward.default: _lookup_gradient,
}
