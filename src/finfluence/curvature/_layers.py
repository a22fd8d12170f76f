"""Layers whose gradients are products of two factors, and what goes in and comes back during a pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.grads import Layout
from finfluence.grads.rules import Outer, is_linear_map, is_transposed, rule_of


@dataclass(frozen=True)
class Layer:
    """A linear or convolution layer whose weight is trained.

    Parameters
    ----------
    name : str
        Of the module.
    module : nn.Module
    weight : slice
        Its weight in θ.
    bias : slice or None
        Its bias in θ, if that is trained.
    shape : tuple
        Outputs and inputs of the weight as a matrix, without the bias.
    """

    name: str
    module: nn.Module
    weight: slice
    bias: slice | None
    shape: tuple[int, int]

    def matrices(self, vectors: Tensor) -> Tensor:
        """Return the layer's part of vectors [K, P] as matrices [K, out, in], a bias as the last column."""
        weight = vectors[:, self.weight].reshape(len(vectors), *self.shape)
        if self.bias is None:
            return weight
        return torch.cat([weight, vectors[:, self.bias].unsqueeze(2)], 2)

    def put(self, matrices: Tensor, vectors: Tensor) -> None:
        """Write matrices [K, out, in] into vectors [K, P]."""
        columns = self.shape[1]
        vectors[:, self.weight] = matrices[:, :, :columns].reshape(len(vectors), -1)
        if self.bias is not None:
            vectors[:, self.bias] = matrices[:, :, columns]


@dataclass
class Factors:
    """Inputs a [B, T, in] and gradients of outputs b [B, T, out] of one layer: G_i = Σ_t b_it a_itᵀ."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


def factorised_layers(model: nn.Module, layout: Layout) -> list[Layer]:
    """Return the layers of a model that have factors: linear ones, and convolutions of one group.

    A parameter that several modules share belongs to none. GPT-2's linear layers, whose weight is [in, out], are held
    without their bias: it would be a row of the matrix, not a column.

    Returns
    -------
    list of Layer

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    >>> [(layer.name, layer.shape) for layer in factorised_layers(model, Layout(model))]
    [('0', (2, 3))]
    """
    place: dict[str, slice] = {}
    at = 0
    for name, size in zip(layout.names, layout.sizes, strict=True):
        place[name] = slice(at, at + size)
        at += size
    names = {id(p): name for name, p in model.named_parameters() if name in place}
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = []
    for name, module in model.named_modules():
        if not is_linear_map(module) or id(module.weight) not in names or owners[id(module.weight)] > 1:
            continue
        weight, bias = module.weight, module.bias
        trained = isinstance(bias, Tensor) and id(bias) in names and owners[id(bias)] == 1
        trained &= not is_transposed(module)
        shape = (weight.shape[0], weight[0].numel())
        at_bias = place[names[id(bias)]] if trained else None
        found.append(Layer(name, module, place[names[id(weight)]], at_bias, shape))
    return found


@contextmanager
def factors_of(
    layers: list[Layer], rows: int
) -> Iterator[Callable[[Tensor], list[tuple[Tensor, Tensor] | None]]]:
    """Watch the layers during forward passes; the function yielded turns a scalar into factors of each layer.

    Parameters
    ----------
    layers : list of Layer
        Of a model that is ours; the hooks are removed at the end.
    rows : int
        B, of the batch that will be evaluated.

    Yields
    ------
    callable
        Scalar to, for each layer, a [B, T, in] and b [B, T, out] of the scalar's gradient; None for a layer that was
        not
        called, or whose leading axis holds no rows.
    """
    seen = [Factors() for _ in layers]

    def watch(factors: Factors) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            factors.inputs.append(args[0].detach())
            factors.outputs.append(output)
            return output.clone()  # what follows may write on it

        return hook

    def read(total: Tensor) -> list[tuple[Tensor, Tensor] | None]:
        outputs = [o for f in seen for o in f.outputs]
        found = iter(torch.autograd.grad(total, outputs, allow_unused=True) if outputs else ())
        read = []
        for layer, factors in zip(layers, seen, strict=True):
            back = [
                torch.zeros_like(o) if g is None else g for o, g in zip(factors.outputs, found, strict=False)
            ]
            read.append(_read(layer, factors.inputs, back, rows))
            factors.inputs.clear()
            factors.outputs.clear()
        return read

    handles = [
        layer.module.register_forward_hook(watch(factors))
        for layer, factors in zip(layers, seen, strict=True)
    ]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def _read(layer: Layer, inputs: list[Tensor], back: list[Tensor], rows: int) -> tuple[Tensor, Tensor] | None:
    """Return the factors of all calls of a layer, a row's positions of all calls second."""
    parts = [_of_call(layer.module, a, b, rows) for a, b in zip(inputs, back, strict=True)]
    if not parts or any(part is None for part in parts):
        return None
    a = torch.cat([part[0] for part in parts if part is not None], 1)
    b = torch.cat([part[1] for part in parts if part is not None], 1)
    if layer.bias is not None:
        a = torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2)
    return a, b


def _of_call(module: nn.Module, a: Tensor, b: Tensor, rows: int) -> tuple[Tensor, Tensor] | None:
    """Return one call's factors with the rows first and all positions of a row second, by the layer's rule."""
    rule = rule_of(module)
    terms = rule(module, a, b) if rule is not None else None
    weight = None if terms is None else terms["weight"]
    if not isinstance(weight, Outer) or weight.rows % rows:
        return None
    weight = weight.regrouped(rows)
    assert isinstance(weight, Outer), "entries of an outer product are one"
    return weight.a[:, :, 0], weight.b[:, :, 0]
