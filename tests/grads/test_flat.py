"""One flat vector of the trainable parameters, and losses as a function of it."""

import torch
from torch import nn

import plain_training as pt
from finfluence.grads import Layout, RowLosses


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.b(torch.tanh(self.a(self.frozen(x))))


def test_layout_names_each_trainable_tensor_once():
    layout = Layout(Tied())
    assert (
        layout.names == ["a.weight", "a.bias", "b.bias"] and layout.sizes == [9, 3, 3] and layout.size == 15
    )


def test_round_trip_and_assignment():
    model = pt.made(Tied)
    layout = Layout(model)
    theta = torch.arange(15, dtype=pt.DOUBLE)
    frozen = model.frozen.weight.clone()
    layout.assign(model, theta)
    assert torch.equal(layout.theta(model), theta) and torch.equal(pt.flat(model), theta)
    assert model.b.weight is model.a.weight and torch.equal(model.frozen.weight, frozen)
    assert {k: tuple(v.shape) for k, v in layout.split(theta).items()} == {
        "a.weight": (3, 3), "a.bias": (3,), "b.bias": (3,)
    }  # fmt: skip


def test_losses_at_any_point_without_touching_the_model():
    model = pt.made(Tied)
    layout = Layout(model)
    start = layout.theta(model)
    losses = RowLosses(model, lambda m, b: m(b["x"]).pow(2).sum(1), layout)
    batch = {"x": torch.randn(5, 3, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(0))}
    moved = 2 * start + 1
    at = losses(moved, batch)
    assert torch.equal(layout.theta(model), start)
    layout.assign(model, moved)
    torch.testing.assert_close(at, model(batch["x"]).pow(2).sum(1).detach(), rtol=1e-14, atol=0)


def test_non_contiguous_parameters_keep_their_order():
    model = nn.Conv2d(2, 3, 2, dtype=pt.DOUBLE).to(memory_format=torch.channels_last)
    layout = Layout(model)
    theta = layout.theta(model)
    assert torch.equal(theta[: 3 * 2 * 4].view(3, 2, 2, 2), model.weight)
    layout.assign(model, theta + 1)
    assert torch.equal(layout.theta(model), theta + 1)
