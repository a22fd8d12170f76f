"""Gradients and values written out as operations, and computations raised to double precision."""

import pytest
import torch
from torch import Tensor, nn

from finfluence.grads import InDouble, trace_gradient, trace_values


def test_the_written_out_gradient_goes_through_what_was_stopped():
    """ℓ_i = x_i·stop(p)·p has the gradient x_i·p, whose derivative is x_i."""
    x, point, v = torch.tensor([1.0, 2.0]), torch.tensor([3.0]), torch.tensor([0.5, 2.0])
    traced = trace_gradient(lambda p, x: x * p.detach() * p, point, v, x)
    assert traced.reason is None
    gradient, back = torch.func.vjp(lambda p, v: traced.graph(p, v, x), point, v)
    to_point, to_rows = back(torch.ones(1))
    assert (gradient.item(), to_point.item(), to_rows.tolist()) == (13.5, 4.5, [3.0, 6.0])


@pytest.mark.parametrize("options", [{"padding_idx": 1}, {"scale_grad_by_freq": True}])
def test_look_ups_return_what_autograd_returns(options):
    tokens, v = torch.tensor([[0, 1, 1], [2, 0, 1]]), torch.tensor([1.0, 0.5])
    table = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))

    def losses(p: Tensor, tokens: Tensor) -> Tensor:
        return (nn.functional.embedding(tokens, p.view(3, 2), **options) ** 3).sum((1, 2))

    point = table.reshape(-1).requires_grad_(True)
    (want,) = torch.autograd.grad(losses(point, tokens), point, v)
    traced = trace_gradient(losses, point.detach(), v, tokens)
    torch.testing.assert_close(traced.graph(point.detach(), v, tokens), want)


def test_what_depends_on_values_is_not_written_out():
    traced = trace_values(lambda p: p * p.sum().item(), torch.ones(2))
    assert traced.graph is None and traced.reason
    masked = trace_values(lambda p: p[p > 0].sum(), torch.ones(2))
    assert masked.graph is None and "depends on values" in masked.reason


def test_double_precision_reaches_constants_casts_and_what_is_made_inside():
    third = torch.tensor([1 / 3], dtype=torch.float64)
    with InDouble():
        cast = third.float() + third.to(torch.float32) + third.half()
        made = torch.zeros(1) + third
        constant = torch.tensor([2.0]) * third
        soft = torch.softmax(third, 0, dtype=torch.float32)
    assert {t.dtype for t in (cast, made, constant, soft)} == {torch.float64}
    assert torch.equal(cast, third + third + third) and torch.equal(made, third)
