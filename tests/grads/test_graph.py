"""What the autograd graph says of a loss, and the work that a traced graph shares."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from finfluence.grads import kinks, operations, trace

aten = torch.ops.aten
OTHER = torch.linspace(-1.0, 1.0, 24).view(4, 6)

KINKED = {
    "Relu": F.relu, "LeakyRelu": F.leaky_relu, "Hardtanh": F.relu6, "Hardswish": F.hardswish, "Abs": torch.abs,
    "Hardsigmoid": F.hardsigmoid, "Softshrink": F.softshrink, "Threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "Clamp": lambda x: x.clamp(-0.5, 0.5), "ClampMin": lambda x: x.clamp_min(0.0), "Elu": F.selu,
    "Maximum": lambda x: torch.maximum(x, OTHER), "Max": lambda x: x.max(1).values, "Amax": lambda x: x.amax(1),
    "Sort": lambda x: x.sort().values, "Topk": lambda x: x.topk(2).values, "Median": lambda x: x.median(1).values,
    "MaxPool2DWithIndices": lambda x: F.max_pool2d(x.view(1, 1, 4, 6), 2),
    "LinalgVectorNorm": lambda x: torch.linalg.vector_norm(x, 1, dim=1), "Cdist": lambda x: torch.cdist(x, OTHER, p=1.0),
    "EmbeddingBag": lambda x: F.embedding_bag(torch.tensor([[0, 1], [2, 3]]), x, mode="max"),
}  # fmt: skip
SMOOTH = {
    "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh, "softplus": F.softplus, "mish": F.mish, "elu": F.elu,
    "celu": lambda x: F.celu(x, 2.0), "glu": F.glu, "norm": lambda x: x.norm(dim=1), "unit": F.normalize,
    "distance": lambda x: torch.cdist(x, OTHER), "logsumexp": lambda x: x.logsumexp(1),
    "classes": lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2, 3])),
    "bag": lambda x: F.embedding_bag(torch.tensor([[0, 1], [2, 3]]), x),
    "held": lambda x: x.clamp(-9.0, 9.0), "data alone": lambda x: x * OTHER.abs().relu(),
    "detached": lambda x: (x - x.detach().amax(1, keepdim=True)).logsumexp(1),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.view(1, 1, 4, 6)] * 3),
}  # fmt: skip


def parameter() -> Tensor:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return x.requires_grad_(True)


@pytest.mark.parametrize("name", KINKED)
def test_kinks_are_named(name):
    assert kinks((KINKED[name](parameter()) * 2).sum()) == [name]


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_operations_are_not(name):
    assert kinks(SMOOTH[name](parameter()).sum()) == []


def test_operations_lists_what_lies_on_the_way():
    names = operations(F.conv2d(parameter().view(1, 1, 4, 6), torch.ones(1, 1, 2, 2)).tanh().sum())
    assert {"Convolution", "Tanh", "Sum"} <= set(names)


def count(traced, target) -> int:
    return sum(node.target is target for node in traced.graph.graph.nodes)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_one_derivative_serves_several_gradients(approximate):
    def function(x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        _, pull = torch.func.vjp(lambda v: F.gelu(v, approximate=approximate), x)
        return pull(a)[0], pull(b)[0]

    x, a, b = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()
    traced = trace(function, x, a, b)
    assert traced.reason is None and count(traced, aten.gelu_backward.default) == 1
    for values in ((x, a, b), (2 * b, x, a)):
        for got, want in zip(traced(*values), function(*values), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_one_derivative_serves_all_queries():
    def function(x: Tensor, a: Tensor) -> Tensor:
        _, pull = torch.func.vjp(F.gelu, x)
        return torch.func.vmap(lambda g: pull(g)[0] + pull(g * g)[0])(a)

    x, a = torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    traced = trace(function, x, a)
    assert count(traced, aten.gelu_backward.default) == 1
    torch.testing.assert_close(traced(-x, a), function(-x, a), rtol=1e-12, atol=1e-14)


def test_convolution_derivatives_come_from_one_call_and_zero_ones_from_none():
    def gradient(w: Tensor, x: Tensor) -> Tensor:
        return torch.func.grad(
            lambda v: F.conv2d(F.conv2d(x, v[:2]).tanh(), v[2:].view(1, 2, 2, 2)).exp().sum()
        )(w)

    def function(w: Tensor, x: Tensor, u: Tensor) -> Tensor:
        return torch.func.jvp(lambda v: gradient(v, x), (w,), (u,))[1]

    generator = torch.Generator().manual_seed(2)
    w, u = torch.randn(2, 4, 1, 2, 2, dtype=torch.float64, generator=generator).unbind()
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64, generator=generator)
    raw = sum(n.target is aten.convolution_backward.default for n in make_fx(function)(w, x, u).graph.nodes)
    traced = trace(function, w, x, u)
    assert traced.reason is None and count(traced, aten.convolution_backward.default) < raw
    for values in ((w, x, u), (u, 2 * x, w)):
        torch.testing.assert_close(traced(*values), function(*values), rtol=1e-10, atol=1e-12)
