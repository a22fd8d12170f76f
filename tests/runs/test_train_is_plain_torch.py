"""`train` gives the parameters of a plain torch.optim loop, bit for bit."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import finfluence.runs as fr
import plain_training as pt


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3)
    )


def images(n: int = 10, dtype: torch.dtype = torch.float32) -> fr.Rows:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n, 2, 4, 4))).to(dtype)
    return fr.Rows(x=x, y=torch.from_numpy(rng.integers(0, 3, n)))


def assert_plain(described: fr.Recipe, torch_optimizer, seed: int = 5) -> None:
    tape = fr.train(described, seed=seed)
    model = copy.deepcopy(described.model)
    rates = [described.rate(t) for t in range(described.steps)]
    model, losses = pt.plain(
        described, model, described.order(seed), torch_optimizer(model.parameters()), rates
    )
    trained = tape.model()
    for (name, ours), theirs in zip(trained.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(pt.flat(trained), pt.flat(described.model))
    assert tape.losses.tolist() == losses


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("name", pt.OPTIMIZERS)
@pytest.mark.quick(12)
def test_every_optimizer_and_schedule(name, schedule):
    ours, theirs = pt.OPTIMIZERS[name]
    assert_plain(pt.recipe(optimizer=ours, schedule=schedule, epochs=4), theirs)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_smaller_last_batch_in_float32(name):
    ours, theirs = pt.OPTIMIZERS[name]
    data = pt.table(11, dtype=torch.float32)
    model = pt.made(pt.mlp, dtype=torch.float32)
    described = pt.recipe(data=data, model=model, optimizer=ours, drop_last=False)
    assert [len(b) for b in described.order(0)] == [4, 4, 3] * 3
    assert_plain(described, theirs)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_convolutions(name):
    ours, theirs = pt.OPTIMIZERS[name]
    model = pt.made(conv, dtype=torch.float32)
    assert_plain(pt.recipe(data=images(), model=model, optimizer=ours, sampling="independent"), theirs)


def test_frozen_and_unused_parameters():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.body, self.unused, self.head = (
                nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(2, 7), nn.Linear(5, 3)
            )  # fmt: skip
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.head(torch.tanh(self.body(self.frozen(x))))

    for name in ("momentum", "adamw"):
        ours, theirs = pt.OPTIMIZERS[name]
        assert_plain(pt.recipe(model=pt.made(Partly), optimizer=ours), theirs)


def test_own_schedule():
    ours, theirs = pt.OPTIMIZERS["adam"]

    def warm_up(step: int, total: int) -> float:
        return min(1.0, (step + 1) / 3) * math.exp(-step / total)

    assert_plain(pt.recipe(optimizer=ours, schedule=warm_up), theirs)


def test_schedules_have_their_closed_forms():
    described = pt.recipe(schedule="cosine", epochs=4)
    assert described.steps == 12
    assert described.rate(0) == 1.0 and math.isclose(described.rate(6), 0.5)
    assert math.isclose(described.rate(3), (1 + math.sqrt(0.5)) / 2)
    assert pt.recipe(schedule="linear", epochs=4).rate(3) == 0.75


@pytest.mark.parametrize("name", pt.OPTIMIZERS)
def test_functional_update_is_the_optimizers_step(name):
    """Ten steps on random gradients in float64, with a changing learning rate: relative 1e-12 after each."""
    ours, theirs = pt.OPTIMIZERS[name]
    generator = torch.Generator().manual_seed(1)
    parameter = nn.Parameter(torch.randn(7, dtype=pt.DOUBLE, generator=generator))
    optimizer = theirs([parameter])
    theta = parameter.detach().clone()
    slots = tuple(torch.zeros_like(theta) for _ in ours.slots)
    for t in range(10):
        rate = 1 - t / 20
        optimizer.param_groups[0]["lr"] = ours.lr * rate
        grad = torch.randn(7, dtype=pt.DOUBLE, generator=generator)
        parameter.grad = grad.clone()
        optimizer.step()
        hyper = torch.tensor(ours.hyper(t, rate), dtype=pt.DOUBLE).unbind()
        theta, slots = ours.update(theta, slots, grad, hyper)
        torch.testing.assert_close(theta, parameter.detach(), rtol=1e-12, atol=0)
        for slot, held in zip(ours.slots, slots, strict=True):
            torch.testing.assert_close(held, optimizer.state[parameter][slot], rtol=1e-12, atol=1e-300)


def test_adam_leaves_coordinates_without_gradient_where_they_are():
    ours, _ = pt.OPTIMIZERS["adam"]
    theta, zero = torch.tensor([1.0, 2.0], dtype=pt.DOUBLE), torch.zeros(2, dtype=pt.DOUBLE)
    hyper = torch.tensor(ours.hyper(0, 1.0), dtype=pt.DOUBLE).unbind()

    def step(grad):
        return ours.update(theta, (zero, zero), grad, hyper)[0]

    grad = torch.tensor([0.0, 0.5], dtype=pt.DOUBLE)
    assert step(grad)[0] == 1.0 and step(grad)[1] < 2.0
    slope = torch.func.jacrev(step)(grad)
    assert torch.isfinite(slope).all() and slope[0].tolist() == [0.0, 0.0]


def test_optimizer_defaults_are_torchs():
    parameters = [nn.Parameter(torch.ones(1))]
    for ours, theirs in (
        (fr.SGD(), torch.optim.SGD),
        (fr.Adam(), torch.optim.Adam),
        (fr.AdamW(), torch.optim.AdamW),
    ):
        defaults = theirs(parameters).defaults
        for name, value in ours.describe().items():
            if name != "name":
                expected = defaults[name]
                assert value == (list(expected) if isinstance(expected, tuple) else expected), name
