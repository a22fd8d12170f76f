"""Trace a tensor function once into a flat graph of primitive operations, then clean the graph.

Differentiation transforms cost a millisecond of Python per call; a small model trains a step in a tenth of
that. The traced graph repeats only the arithmetic. Cleaning removes what forward-over-reverse leaves behind:
aliases, products with tangents known to be zero, and the primal pass computed twice.
"""

import gc
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from finfluence.grads.tracing._reshapes import drop_reshapes
from finfluence.grads.tracing._share import share_convolutions, share_derivatives
from finfluence.grads.tracing._value_shapes import shaped_by_values

aten = torch.ops.aten

_IDENTITY = {aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
_ZERO_SOURCES = {
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten._efficientzerotensor.default,
}
_SHAPE_ONLY = {
    aten.expand.default, aten.view.default, aten.t.default, aten.transpose.int, aten.permute.default,
    aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.reshape.default,
    aten._to_copy.default, aten.clone.default, aten.select.int, aten.slice.Tensor, aten.neg.default,
    aten._reshape_alias.default,
}  # fmt: skip
_BILINEAR = {aten.mm.default, aten.bmm.default, aten.mul.Tensor, aten.mv.default, aten.dot.default}
_CONSTANT_LIKE = {aten.zeros_like.default, aten.ones_like.default, aten.full_like.default}


class Traced:
    """A traced function: call it like the original, with tensors of the same shapes.

    `reason` is None when the graph runs, otherwise why the function itself is called instead.
    """

    def __init__(
        self, function: Callable[..., Any], graph: fx.GraphModule | None, reason: str | None
    ) -> None:
        self._call: Callable[..., Any] = graph if graph is not None else function
        self.graph = graph
        self.reason = reason

    def __call__(self, *tensors: Tensor) -> Any:
        if self.graph is None:
            return self._call(*tensors)
        with torch.no_grad():
            return self._call(*tensors)


def trace(
    function: Callable[..., Any], *example: Tensor, otherwise: Callable[..., Any] | None = None
) -> Traced:
    """Trace `function` at `example` (tensors in, tensors out) and clean the graph.

    The graph is kept only if it reproduces the function at `example`; a function whose Python depends on
    tensor values cannot be traced and is called as it is (`Traced.reason` says so), or `otherwise` in its place.

    Examples
    --------
    >>> square = trace(lambda t: t * t + 0 * t, torch.ones(2))
    >>> square(torch.tensor([2.0, 3.0])).tolist()
    [4.0, 9.0]
    """
    plain = function if otherwise is None else otherwise
    try:
        with _no_collection(), tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
            raw = make_fx(function)(*example)
    except Exception as error:  # any Python the tracer cannot follow: the function itself still works
        return Traced(plain, None, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
    if (name := shaped_by_values(raw.graph)) is not None:
        return Traced(plain, None, f"the shape of a result of {name} depends on values")
    graph = clean(raw)
    want, got = function(*example), Traced(plain, graph, None)(*example)
    if not _equal(want, got):
        return Traced(plain, None, "the traced graph does not reproduce the function")
    return Traced(plain, graph, None)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause cyclic garbage collection: tracing makes many small objects, and collecting took half its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def clean(module: fx.GraphModule) -> fx.GraphModule:
    """Return `module` without aliases, zero tangents, repeated subexpressions and dead code."""
    graph = module.graph
    if any(mutates(node) for node in graph.nodes) and not _functionalise(graph):
        return module
    _drop_identities(graph)
    _drop_zeros(graph)
    merge_repeats(graph)
    _unbatch_shared_operands(graph)
    graph.eliminate_dead_code()
    share_convolutions(graph)
    share_derivatives(graph)
    drop_reshapes(graph)
    merge_repeats(graph)
    _fold_constants(module)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return module


def mutates(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _functionalise(graph: fx.Graph) -> bool:
    """Replace in-place operations on temporaries by their out-of-place twins; False if one has no twin."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not mutates(node):
            continue
        name = node.target._schema.name.removeprefix("aten::")
        target = node.args[0]
        twin = getattr(aten, name[:-1], None) if name.endswith("_") else None
        twin = getattr(twin, node.target._overloadname, None) if twin is not None else None
        if twin is None or target.op != "call_function" or _meta(target) != _meta(node):
            return False
        if (
            any(user.target in _SHAPE_ONLY | _IDENTITY for user in target.users)
            or target.target in _SHAPE_ONLY
        ):
            return False
        node.target = twin
        for user in [u for u in target.users if u is not node and order[u] > order[node]]:
            user.replace_input_with(target, node)
    return True


def _meta(node: Any) -> Any:
    """Return (shape, dtype) of what a node computes, or None if unknown."""
    value = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return (tuple(value.shape), value.dtype) if value is not None and hasattr(value, "shape") else None


def _drop_identities(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if (
            node.target is aten.copy.default
            and _meta(node) is not None
            and _meta(node) == _meta(node.args[1])
        ):
            node.replace_all_uses_with(node.args[1])
            graph.erase_node(node)
            continue
        same_copy = (
            node.target is aten._to_copy.default
            and _meta(node) is not None
            and _meta(node) == _meta(node.args[0])
            and "memory_format" not in node.kwargs
        )
        if node.target in _IDENTITY or same_copy:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _zero_part(node: fx.Node, zero: set[fx.Node]) -> bool:
    """Return whether `node` picks a part of a convolution's derivative that vanishes with its zero operand."""
    whole = node.args[0] if node.target is operator.getitem else None
    if not isinstance(whole, fx.Node) or whole.target is not aten.convolution_backward.default:
        return False
    gradient, x, weight = whole.args[:3]
    other = weight if node.args[1] == 0 else x if node.args[1] == 1 else None
    return gradient in zero or other in zero


def _drop_zeros(graph: fx.Graph) -> None:
    """Replace `a + 0` by `a` and mark products with zero as zero, where shapes and dtypes agree."""
    zero: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        args = [a for a in node.args if isinstance(a, fx.Node)]
        if (
            node.target in _ZERO_SOURCES
            or _zero_part(node, zero)
            or (node.target in _SHAPE_ONLY and args and args[0] in zero)
            or (node.target in _BILINEAR and any(a in zero for a in args))
            or (
                node.target is aten.convolution.default
                and (node.args[0] in zero or node.args[1] in zero)
                and node.args[2] is None
            )
        ):
            zero.add(node)
        elif node.target is aten.add.Tensor and not node.kwargs and len(args) == 2:
            if all(a in zero for a in args):
                zero.add(node)
                continue
            kept = next((k for k, other in (args, args[::-1]) if other in zero), None)
            if kept is None or _meta(kept) is None or _meta(node) is None or _meta(kept)[1] != _meta(node)[1]:
                continue
            if _meta(kept) != _meta(node):
                with graph.inserting_before(node):
                    shaped = graph.call_function(aten.expand.default, (kept, list(_meta(node)[0])))
                shaped.meta = dict(node.meta)
                kept = shaped
            node.replace_all_uses_with(kept)
    graph.eliminate_dead_code()


def _unbatch_shared_operands(graph: fx.Graph) -> None:
    """Turn a batched product with one operand common to the batch into one plain product.

    A·B_q for all q is (stacked B_qᵀ)·Aᵀ, and A_q·B is (stacked A_q)·B: no copy of the common operand per query.
    On a CPU, where a batched product takes the common operand without a copy, only where the stack needs none either.
    """
    for node in list(graph.nodes):
        if node.target is not aten.bmm.default or _meta(node) is None:
            continue
        left, right = node.args
        batch, m, n = _meta(node)[0]
        k = _meta(left)[0][2]
        shared_left, shared_right = _common(left), _common(right)
        if batch == 1 or (shared_left is None) == (shared_right is None):
            continue
        with graph.inserting_before(node):
            if on_cpu(node) and (shared_right is None or not _contiguous(left)):
                if shared_right is not None:
                    whole = graph.call_function(aten.expand.default, (shared_right, [batch, k, n]))
                    out = graph.call_function(aten.bmm.default, (left, whole))
                else:
                    whole = graph.call_function(aten.expand.default, (shared_left, [batch, m, k]))
                    out = graph.call_function(aten.bmm.default, (whole, right))
            elif shared_right is not None:
                flat = graph.call_function(aten.reshape.default, (left, [batch * m, k]))
                product = graph.call_function(aten.mm.default, (flat, shared_right))
                out = graph.call_function(aten.view.default, (product, [batch, m, n]))
            else:
                turned = graph.call_function(aten.transpose.int, (right, 1, 2))
                flat = graph.call_function(aten.reshape.default, (turned, [batch * n, k]))
                across = graph.call_function(aten.t.default, (shared_left,))
                product = graph.call_function(aten.mm.default, (flat, across))
                square = graph.call_function(aten.view.default, (product, [batch, n, m]))
                out = graph.call_function(aten.transpose.int, (square, 1, 2))
        out.meta = dict(node.meta)
        node.replace_all_uses_with(out)
        graph.erase_node(node)
    for node in graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def on_cpu(node: fx.Node) -> bool:
    """Whether what the node gives, the first of it if it is several, lies on a CPU."""
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return isinstance(first, Tensor) and first.device.type == "cpu"


def _contiguous(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, Tensor) and value.is_contiguous()


def _common(node: Any) -> fx.Node | None:
    """Return the matrix that `node` repeats along its leading axis, if it does."""
    while node.target is aten.view.default and _meta(node) == _meta(node.args[0]):
        node = node.args[0]
    source = node.args[0] if node.target is aten.expand.default else None
    meta = _meta(source)
    return source if isinstance(source, fx.Node) and meta is not None and len(meta[0]) == 2 else None


def merge_repeats(graph: fx.Graph) -> None:
    """Common-subexpression elimination over pure operations."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not _pure(node):
            continue
        key = (node.target, _frozen(node.args), _frozen(node.kwargs))
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)
        else:
            seen[key] = node


def _pure(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and not node.target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in node.target.tags
    )


def _frozen(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _frozen(v)) for k, v in sorted(value.items()))
    return (type(value), value)


def _fold_constants(module: fx.GraphModule) -> None:
    """Compute once what depends on shapes only (`ones_like` and scalars) and keep it as a buffer."""
    graph = module.graph
    known: dict[fx.Node, Tensor] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not _pure(node) or node.target is operator.getitem:
            continue
        meta = _meta(node)
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


def _equal(want: Any, got: Any) -> bool:
    if isinstance(want, Tensor):
        scale = want.abs().max().clamp_min(1e-30) if want.numel() else 1.0
        close = (want - got).abs().max() <= 1e-4 * scale if want.numel() else torch.tensor(True)
        return bool(close) or bool(torch.equal(want.isnan(), got.isnan()) and want.isnan().any())
    return all(_equal(w, g) for w, g in zip(want, got, strict=True))
