"""Traced graphs of one object's functions, kept by what they do and the shapes they were traced at."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from finfluence.grads.tracing._bindings import call_directly
from finfluence.grads.tracing._trace import Traced, equal, trace


class Graphs:
    """Graphs of functions that several objects have in common, such as the steps of all runs of one training.

    It lives as long as who holds it. Copies of it are empty, and so is what another process gets of it.

    Examples
    --------
    >>> import torch
    >>> graphs, one = Graphs(), torch.ones(1)
    >>> first, second = (Traces(graphs=graphs, owner="doubling") for _ in range(2))
    >>> first.of("twice", lambda t: 2 * t, one).graph is second.of("twice", lambda t: 2 * t, one).graph
    True
    >>> second.of("twice", lambda t: 3 * t, torch.ones(2)).graph is None, len(graphs)
    (False, 2)
    """

    def __init__(self) -> None:
        self._kept: dict[Any, fx.GraphModule] = {}

    def __reduce__(self) -> tuple[type["Graphs"], tuple[()]]:
        return Graphs, ()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Any, function: Callable[..., Any], *example: Tensor) -> fx.GraphModule | None:
        """Return the graph of `key`, if there is one and it reproduces `function` at an example."""
        graph = self._kept.get(key)
        if graph is None or not equal(function(*example), Traced(function, graph, None)(*example)):
            return None
        return graph

    def keep(self, key: Any, graph: fx.GraphModule) -> None:
        """Keep a graph."""
        self._kept[key] = graph


class Traces:
    """Functions traced once for each kind and each set of shapes.

    Parameters
    ----------
    stochastic : bool
        The functions draw random numbers: `run` calls them as they are.
    finish : callable, optional
        Works over each new graph in place.
    graphs : Graphs, optional
        Where graphs are looked for before a function is traced, and left for others.
    owner : str
        What the functions belong to, there.
    """

    def __init__(
        self,
        stochastic: bool = False,
        finish: Callable[[fx.GraphModule], Any] | None = None,
        graphs: Graphs | None = None,
        owner: str = "",
    ) -> None:
        self._stochastic = stochastic
        self._finish = finish
        self._graphs, self._owner = Graphs() if graphs is None else graphs, owner
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
            plain, shared = otherwise or function, (self._owner, *key)
            graph = self._graphs.find(shared, plain, *tensors)
            if graph is not None:
                self._kept[key] = Traced(plain, graph, None)
                return self._kept[key]
            traced = trace(function, *tensors, otherwise=otherwise)
            if traced.graph is not None:
                if self._finish is not None:
                    self._finish(traced.graph)
                call_directly(traced.graph)
                self._graphs.keep(shared, traced.graph)
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
