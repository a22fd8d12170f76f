"""A tape and a recipe belong to the loss they were made with: what it reads must stay, and it must be steady."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, FinfluenceError, NotSupportedError
from finfluence.runs.describe import values_read
from four_parts import assert_parts

QUERY = fi.own_loss([2, 7])
WEIGHTS = torch.tensor([1.0, 3.0, 2.0], dtype=pt.DOUBLE)
SETTINGS = {"scale": 1.0}


def weighted(model, batch, weights):
    return F.cross_entropy(model(batch["x"]), batch["y"], weight=weights, reduction="none")


def by_global(model, batch):
    return weighted(model, batch, WEIGHTS)


def by_setting(model, batch):
    return pt.class_loss(model, batch) * SETTINGS["scale"]


class WithBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weights", WEIGHTS.clone())

    def forward(self, model, batch):
        return weighted(model, batch, self.weights)


class WithPower:
    def __init__(self):
        self.power = 2.0

    def losses(self, model, batch):
        return pt.class_loss(model, batch) ** self.power


class Reversed(torch.autograd.Function):
    strength = 0.5

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -Reversed.strength * gradient


def reversing(model, batch):
    return pt.class_loss(model, batch) + F.cross_entropy(
        Reversed.apply(model(batch["x"])), 2 - batch["y"], reduction="none"
    )


def of_closure():
    weights = WEIGHTS.clone()
    return lambda model, batch: weighted(model, batch, weights), lambda: weights.mul_(
        torch.tensor([1.0, 2.0, 1.0])
    )


def of_teacher():
    teacher = pt.made(pt.mlp)
    teacher[2].weight.data.mul_(-1)

    def loss(model, batch):
        with torch.no_grad():
            target = F.softmax(teacher(batch["x"]), 1)
        return -(target * F.log_softmax(model(batch["x"]), 1)).sum(1)

    return loss, lambda: teacher[0].weight.data.mul_(2)


def of_partial():
    weights = WEIGHTS.clone()
    return partial(weighted, weights=weights), lambda: weights[1].mul_(2)


def of_module():
    loss = WithBuffer()
    return loss, lambda: loss.weights[1].mul_(2)


def of_method():
    held = WithPower()
    return held.losses, lambda: setattr(held, "power", 1.0)


CHANGES = {
    "closure": (of_closure, "weights"),
    "partial": (of_partial, "argument weights"),
    "module": (of_module, "weights"),
    "method": (of_method, "self.power"),
    "teacher": (of_teacher, "teacher.0.weight"),
    "global": (lambda: (by_global, lambda: WEIGHTS[1].mul_(2)), "WEIGHTS"),
    "setting": (lambda: (by_setting, lambda: SETTINGS.update(scale=3.0)), "SETTINGS.'scale'"),
    "class": (lambda: (reversing, lambda: setattr(Reversed, "strength", 0.9)), "Reversed.strength"),
}


@pytest.fixture(autouse=True)
def same_globals():
    yield
    WEIGHTS[1], SETTINGS["scale"], Reversed.strength = 3.0, 1.0, 0.5


def tape_of(loss) -> fr.Tape:
    model, rows = pt.made(pt.mlp), pt.table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = fi.Tape.record(model, optimizer, loss=loss, data=rows)
    for ids in pt.recipe().order(1):
        loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.step(ids=ids)
    return recorder.finish()


def use_of(way: str, loss):
    """Something that is done twice, with a change between."""
    if way == "recorded":
        tape = tape_of(loss)
        return lambda: fi.replay(tape, QUERY).data.effect.values
    described = pt.recipe(
        loss=loss, model=pt.made(pt.mlp) if way != "factory" else lambda seed: pt.made(pt.mlp)
    )
    if way == "trained":
        tape = fi.train(described)
        return lambda: fi.replay(tape, QUERY).data.effect.values
    return lambda: fi.retrain(described, QUERY, {"a": [1, 2]}, runs=4).data.effect.values


WAYS = ("recorded", "trained", "retrained", "factory")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.quick(5)
def test_what_the_loss_reads_and_was_changed_is_named(name, way):
    make, named = CHANGES[name]
    loss, change = make()
    use = use_of(way, loss)
    np.testing.assert_array_equal(use(), use())
    change()
    with pytest.raises(ConfigError) as caught:
        use()
    assert_parts(
        caught.value, "the loss that the run was made with", f"other values of '{named}', which the loss reads",
        "class weights, a teacher", "make loss and run anew",
    )  # fmt: skip


def test_a_factory_whose_shared_module_was_trained_meanwhile():
    model = pt.made(pt.mlp)
    described = pt.recipe(model=lambda seed: model)
    fi.retrain(described, QUERY, {"a": [1, 2]}, runs=4)
    with torch.no_grad():
        model[2].bias.add_(1)
    with pytest.raises(ConfigError, match=r"other values of '2\.bias'"):
        fi.retrain(described, QUERY, {"a": [1, 2]}, runs=4)


def test_what_is_written_down_beside_a_loss_may_change():
    seen = []

    def loss(model, batch):
        losses = pt.class_loss(model, batch)
        seen.append(float(losses.detach().mean()))
        return losses

    described = pt.recipe(loss=loss)
    first, second = (fi.retrain(described, QUERY, {"a": [1]}, runs=4).data.effect.values for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert seen


def counting():
    calls = [0.0]

    def loss(model, batch):
        calls[0] += 1
        return pt.class_loss(model, batch) * (1 + 0.1 * calls[0])

    return loss


def own_generator():
    generator = torch.Generator().manual_seed(0)

    def loss(model, batch):
        noise = torch.randn(batch["x"].shape, dtype=pt.DOUBLE, generator=generator)
        return pt.class_loss(model, {**batch, "x": batch["x"] + 0.1 * noise})

    return loss


@pytest.mark.parametrize("make", [counting, own_generator])
@pytest.mark.parametrize("way", ["recorded", "trained", pytest.param("retrained", marks=pytest.mark.slow)])
def test_a_loss_that_gives_other_numbers_each_time(make, way):
    with pytest.raises(ConfigError) as caught:
        use_of(way, make())()
    assert_parts(
        caught.value, "the same numbers for the same weights, rows and random seeds", "when it is called again",
        "counts its calls", "torch's default generator",
    )  # fmt: skip


def backward_inside(model, batch):
    x = batch["x"].clone().requires_grad_(True)
    with torch.enable_grad():
        F.cross_entropy(model(x), batch["y"]).backward()
    return pt.class_loss(model, {**batch, "x": batch["x"] + 0.1 * x.grad.sign()})


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (backward_inside, ("leaves gradients of parameters", "fills them itself", "calls backward()", "torch.autograd.grad")),
        (
            lambda m, b: pt.class_loss(m, b).detach(),
            ("depends on the trained parameters", "without a gradient", "detached values", "compute it from model"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["recorded", "trained", pytest.param("retrained", marks=pytest.mark.slow)])
def test_a_loss_that_no_loop_can_descend_is_refused_before_the_first_step(loss, words, way):
    with pytest.raises(ConfigError) as caught:
        if way == "recorded":
            model = pt.made(pt.mlp)
            fi.Tape.record(model, torch.optim.SGD(model.parameters(), lr=0.1), loss=loss, data=pt.table())
        else:
            use_of(way, loss)()
    assert_parts(caught.value, *words)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_recipe_of_a_model_with_hooks_on_parameters(register):
    model = pt.made(pt.mlp)
    getattr(model[2].weight, register)(lambda p: None)
    for use in (
        lambda: pt.recipe(model=model), lambda: fi.train(pt.recipe(model=lambda seed: model)),
    ):  # fmt: skip
        with pytest.raises(NotSupportedError) as caught:
            use()
        assert_parts(
            caught.value, "pass through no hook", "on '2.weight'", "does not copy hooks", "fi.Tape.record"
        )


def test_values_read_are_named_by_how_they_are_reached():
    held = WithPower()
    found = values_read(held.losses)
    assert found["self.power"] == "2.0"
    loss, change = of_teacher()
    before = values_read(loss)
    change()
    now = values_read(loss)
    assert [n for n in before if before[n] != now[n]] == ["teacher.0.weight"]
    array = np.arange(3)
    names = values_read(lambda: (array, {"a": [held]}))
    assert list(names) == ["array", "held.power"]
    assert issubclass(ConfigError, FinfluenceError)
