"""Traced graphs of one object's functions, kept by what they do and the shapes they were traced at."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from finfluence.grads.tracing._bindings import call_directly
from finfluence.grads.tracing._trace import Traced, trace


class Traces:
    """Functions traced once for each kind and each set of shapes.

    Parameters
    ----------
    stochastic : bool
        The functions draw random numbers: `run` calls them as they are.
    finish : callable, optional
        Works over each new graph in place.
    """

    def __init__(
        self, stochastic: bool = False, finish: Callable[[fx.GraphModule], Any] | None = None
    ) -> None:
        self._stochastic = stochastic
        self._finish = finish
        self._kept: dict[Any, Traced] = {}

    @property
    def engine(self) -> str:
        """How the functions ran: "traced", or "eager" with the reason."""
        reasons = sorted({t.reason for t in self._kept.values() if t.reason})
        if self._stochastic:
            reasons = ["the loss draws random numbers"]
        return f"eager: {'; '.join(reasons)}" if reasons else "traced"

    def of(
        self,
        kind: str,
        function: Callable[..., Any],
        *tensors: Tensor,
        otherwise: Callable[..., Any] | None = None,
    ) -> Traced:
        """Return `function` traced at tensors of these shapes; `otherwise` is called if it cannot be."""
        key = (kind, *((tuple(t.shape), t.dtype) for t in tensors))
        if key not in self._kept:
            traced = trace(function, *tensors, otherwise=otherwise)
            if traced.graph is not None:
                if self._finish is not None:
                    self._finish(traced.graph)
                call_directly(traced.graph)
            self._kept[key] = traced
        return self._kept[key]

    def run(
        self,
        kind: str,
        function: Callable[..., Any],
        *tensors: Tensor,
        otherwise: Callable[..., Any] | None = None,
    ) -> Any:
        """Call `function`, traced; or `otherwise` (default: the function itself) where nothing is traced."""
        if self._stochastic:
            return (otherwise or function)(*tensors)
        return self.of(kind, function, *tensors, otherwise=otherwise)(*tensors)
