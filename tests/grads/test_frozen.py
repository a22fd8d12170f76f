"""Operations with kinks, repeated on the piece that they were on: values and derivatives by central differences of none."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finfluence.errors import NotSupportedError
from finfluence.grads import Frozen, Pieces, kinks
from four_parts import assert_parts

ONE = torch.nn.Conv1d(1, 1, 1)

OPERATIONS = {
    "relu": F.relu, "relu module": nn.ReLU(), "relu_": lambda x: torch.relu_(x.clone()), "method": Tensor.relu,
    "inplace": lambda x: nn.ReLU(inplace=True)(x.clone()), "relu6": lambda x: nn.ReLU6()(5 * x),
    "leaky": nn.LeakyReLU(0.1), "leaky in place": lambda x: F.leaky_relu(x.clone(), 0.1, True),
    "hardtanh": nn.Hardtanh(-0.5, 0.7), "threshold": nn.Threshold(0.2, 0.4), "hardsigmoid": lambda x: F.hardsigmoid(3 * x),
    "hardswish": lambda x: F.hardswish(3 * x), "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)),
    "abs": torch.abs, "abs operator": abs, "clamp": lambda x: x.clamp(-0.5, 0.5), "clamp min": lambda x: x.clamp(min=0.1),
    "clamp_max": lambda x: x.clamp_max(0.1), "clip": lambda x: torch.clip(x, min=-0.3), "l1": lambda x: F.l1_loss(x, 0.1 * x, reduction="none"),
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(2), 2), "max_pool2d": nn.MaxPool2d(2, padding=1), "strided": lambda x: F.max_pool2d(x, 3, stride=1),
    "max_pool3d": lambda x: F.max_pool3d(x, 2), "adaptive": nn.AdaptiveMaxPool2d(2), "adaptive 1d": lambda x: F.adaptive_max_pool1d(x.flatten(2), 3),
    "max over axis": lambda x: x.max(-1).values, "max kept": lambda x: torch.max(x, dim=1, keepdim=True)[0], "max of all": torch.max,
    "min of two": lambda x: torch.min(x, 0.1 * x), "maximum": lambda x: torch.maximum(x, x.flip(0)), "where": lambda x: torch.where(x > 0, x, x**2),
    "sign": lambda x: x * x.sign(), "method argmax": lambda x: x.flatten(1).gather(1, x.flatten(1).argmax(1, keepdim=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_value_and_derivative_are_those_of_the_piece(name):
    """The value and derivative at x, and a step away still that derivative; 1e-7, for torch writes 1/6 in float32."""
    function, generator = OPERATIONS[name], torch.Generator().manual_seed(1)
    x, step = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64).unbind()
    x.requires_grad_(True)
    with Pieces() as pieces, torch.no_grad():
        noted = function(x)
    want = function(x)
    names = kinks(want)
    (slope,) = torch.autograd.grad(want.sum(), x)
    assert torch.equal(noted, want) and pieces.noted
    with Frozen(pieces):
        got = function(x)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), x)[0], slope, rtol=1e-7, atol=1e-14)
    if not names:
        return  # of comparisons: which side is taken is what matters
    assert not kinks(got)
    beside = (x.detach() + step).requires_grad_(True)
    with Frozen(pieces):
        far = function(beside)
    if name not in ("hardswish",):
        torch.testing.assert_close(torch.autograd.grad(far.sum(), beside)[0], slope, rtol=1e-7, atol=1e-14)


def test_in_place_operations_stay_in_place():
    x = torch.tensor([1.0, -1.0])
    with Pieces() as pieces:
        F.relu_(x.clone())
    there = torch.tensor([-3.0, 3.0])
    with Frozen(pieces):
        F.relu_(there)
    assert there.tolist() == [-3.0, 0.0]


def test_another_order_of_operations_is_an_error():
    with Pieces() as pieces:
        torch.relu(torch.ones(2))
    with pytest.raises(NotSupportedError) as caught, Frozen(pieces):
        torch.ones(2).abs()
    assert_parts(caught.value, "same operations", "abs", "depends on values", "differentiation='exact'")
    with pytest.raises(NotSupportedError), Frozen(pieces):
        torch.relu(torch.ones(3))
    with pytest.raises(NotSupportedError), Frozen(pieces):
        torch.relu(torch.relu(torch.ones(2)))


def test_what_cannot_be_frozen_keeps_its_name():
    x = torch.tensor([-2.0, 1.0, -0.5, 3.0, 0.25, -1.0], requires_grad=True)
    with Pieces() as pieces:
        x.sort()
    with Frozen(pieces):
        sorted_, clamped = x.sort().values, x.clamp(min=torch.zeros(6))
    assert kinks(sorted_) == ["Sort"] and kinks(clamped) == ["Clamp"]
