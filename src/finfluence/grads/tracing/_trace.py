"""Trace a tensor function once into a flat graph of primitive operations, then clean the graph.

Differentiation transforms cost a millisecond of Python per call; a small model trains a step in a tenth of
that. The traced graph repeats only the arithmetic. Cleaning removes what forward-over-reverse leaves behind:
aliases, products with tangents known to be zero, and the primal pass computed twice.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from finfluence.grads.tracing._clean import clean
from finfluence.grads.tracing._value_shapes import shaped_by_values


class Traced:
    """A traced function: call it like the original, with tensors of the same shapes.

    `reason` is None when the graph runs, otherwise why the function itself is called instead.
    """

    def __init__(
        self, function: Callable[..., Any], graph: fx.GraphModule | None, reason: str | None
    ) -> None:
        self._function = function
        self.graph = graph
        self.reason = reason

    def __call__(self, *tensors: Tensor) -> Any:
        if self.graph is None:
            return self._function(*tensors)
        with torch.no_grad():
            return self.graph.forward(*tensors)  # without what a call of a module does beside


def trace(
    function: Callable[..., Any], *example: Tensor, otherwise: Callable[..., Any] | None = None
) -> Traced:
    """Trace `function` at `example` (tensors in, tensors out) and clean the graph.

    The graph is kept only if it reproduces the function at `example`; a function whose Python depends on
    tensor values cannot be traced and is called as it is (`Traced.reason` says so), or `otherwise` in its place.

    Returns
    -------
    Traced

    Examples
    --------
    >>> square = trace(lambda t: t * t + 0 * t, torch.ones(2))
    >>> square(torch.tensor([2.0, 3.0])).tolist()
    [4.0, 9.0]
    """
    plain = function if otherwise is None else otherwise
    try:
        with no_collection(), tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
            raw = make_fx(function)(*example)
    except Exception as error:  # any Python the tracer cannot follow: the function itself still works
        return Traced(plain, None, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
    if (name := shaped_by_values(raw.graph)) is not None:
        return Traced(plain, None, f"the shape of a result of {name} depends on values")
    graph = clean(raw)
    want, got = function(*example), Traced(plain, graph, None)(*example)
    if not equal(want, got):
        return Traced(plain, None, "the traced graph does not reproduce the function")
    return Traced(plain, graph, None)


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause cyclic garbage collection: tracing makes many small objects, and collecting took half its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def equal(want: Any, got: Any) -> bool:
    """Return whether tensors, or tuples of them, agree to 1e-4 of the largest entry."""
    if isinstance(want, Tensor):
        scale = want.abs().max().clamp_min(1e-30) if want.numel() else 1.0
        close = (want - got).abs().max() <= 1e-4 * scale if want.numel() else torch.tensor(True)
        return bool(close) or bool(torch.equal(want.isnan(), got.isnan()) and want.isnan().any())
    return all(equal(w, g) for w, g in zip(want, got, strict=True))
