"""A new optimiser is one rule, registered: recorded, taken again, differentiated, written to a folder and read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.runs.describe.optimizers import Group, Rule, register, rule_named, rule_of
from four_parts import assert_parts
from recorded_loops import Loop, whole


class HeavyBall(torch.optim.Optimizer):
    """v ← β·v − lr·g;  θ ← θ + v: SGD with momentum, written otherwise."""

    def __init__(self, params, lr: float, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    v = self.state[p].setdefault("velocity", torch.zeros_like(p))
                    v.mul_(group["beta"]).sub_(group["lr"] * p.grad)
                    p.add_(v)


class HeavyBallRule(Rule):
    torch_class = HeavyBall
    numbers = ("lr", "beta")
    flags = ()

    def slots(self, groups: Sequence[Group]) -> tuple[str, ...]:
        return ("velocity",)

    def numbers_at(self, numbers: dict[str, np.ndarray], t: np.ndarray) -> dict[str, np.ndarray]:
        return numbers

    def step(
        self, theta: Tensor, slots: tuple[Tensor, ...], grad: Tensor, options: Mapping[str, Any], shapes: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        v = options["beta"] * slots[0] - options["lr"] * grad
        return theta + v, (v,)


def test_an_optimiser_in_one_rule(tmp_path):
    with pytest.raises(NotSupportedError, match="HeavyBall"):
        Loop(whole(HeavyBall, lr=0.05)).run(record=True)
    register(HeavyBallRule())
    loop = Loop(whole(HeavyBall, lr=0.05))
    model, recorder = loop.run(record=True, out=tmp_path, snapshot_bytes=1500)
    tape = recorder.finish()
    assert tape.interval > 1 and torch.equal(tape.state()[: tape.layout.size], pt.flat(model))
    query = fi.own_loss([0, 5])
    ours = fi.replay(tape, query, seed=0, late=0).data
    theirs = fi.replay(
        Loop(whole(torch.optim.SGD, lr=0.05, momentum=0.9)).run(record=True)[1], query, seed=0, late=0
    )
    np.testing.assert_allclose(ours.effect, theirs.data.effect, rtol=1e-9)
    np.testing.assert_allclose(ours.spread, theirs.data.spread, rtol=1e-9)
    opened = fr.Tape.open(tmp_path, model=loop.start(), loss=loop.loss, data=loop.data())
    assert (
        torch.equal(opened.state(5), tape.state(5)) and opened.describe()["optimizer"]["name"] == "HeavyBall"
    )


def test_sub_classes_may_step_otherwise_and_are_not_known():
    class Mine(torch.optim.SGD):
        pass

    with pytest.raises(NotSupportedError, match="Mine"):
        rule_of(Mine(pt.made(pt.mlp).parameters(), lr=0.1))
    assert rule_of(torch.optim.AdamW(pt.made(pt.mlp).parameters())).name == "AdamW"


def test_a_tape_of_an_optimiser_that_this_version_does_not_have():
    with pytest.raises(NotSupportedError) as caught:
        rule_named("Sophia")
    assert_parts(
        caught.value, "one of the optimisers Adam, AdamW", "Sophia", "another version", "open it with"
    )
