"""A model gives what its weights and inputs make; one that reads what an earlier pass left is refused before it trains."""

import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError
from four_parts import assert_parts
from recorded_loops import begin


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.left = nn.Linear(4, 4), nn.Linear(4, 3), {}

    def with_weight(self, x, weight):
        return self.b(x @ weight.T + torch.tanh(self.a(x)))


class CachedAtFirst(Body):
    def forward(self, x):
        weight = self.left.setdefault("weight", self.a.weight.detach().tanh())
        return self.with_weight(x, weight)


class CachedInTraining(Body):
    """Right in training; in evaluation it lags a step behind."""

    def forward(self, x):
        if self.training or not self.left:
            self.left["weight"] = self.a.weight.detach().tanh()
        return self.with_weight(x, self.left["weight"])


class CachedInEvaluation(Body):
    def forward(self, x):
        if self.training or not self.left:
            found = self.a.weight.detach().tanh()
            if self.training:
                return self.with_weight(x, found)
            self.left["weight"] = found
        return self.with_weight(x, self.left["weight"])


class LastOutput(Body):
    """What it mixes in is the output of the pass before."""

    def forward(self, x):
        before = self.left.get("out", torch.zeros(3, dtype=x.dtype))
        out = self.b(torch.tanh(self.a(x)))
        self.left["out"] = out.detach().mean(0)
        return out + before


def record(model):
    begin(pt.made(model))


def train(model):
    fi.train(pt.recipe(model=pt.made(model)))


def train_by_factory(model):
    fi.train(pt.recipe(model=lambda seed: pt.made(model)))


@pytest.mark.parametrize("way", [record, train, train_by_factory])
@pytest.mark.parametrize("model", [CachedAtFirst, CachedInTraining, CachedInEvaluation])
def test_what_an_earlier_pass_left_is_not_read(model, way):
    with pytest.raises(ConfigError) as caught:
        way(model)
    assert_parts(
        caught.value, "those of its weights and inputs alone", "depending on what it was asked before",
        "keeps weights, outputs or statistics of an earlier forward pass", "compute them anew",
    )  # fmt: skip


@pytest.mark.parametrize("way", [record, train])
def test_an_output_that_is_mixed_into_the_next_one(way):
    with pytest.raises(ConfigError):
        way(LastOutput)


class Kept(Body):
    """Writes down what nobody reads later, and reads what it just wrote."""

    def forward(self, x):
        self.left["weight"] = self.a.weight.tanh()
        found = self.with_weight(x, self.left["weight"])
        self.left = {"weight": self.left["weight"].detach(), "calls": self.left.get("calls", 0) + 1}
        return found


class Constant(Body):
    """A cache of what does not depend on weights."""

    def forward(self, x):
        return self.with_weight(x, self.left.setdefault("eye", torch.eye(4, dtype=x.dtype)))


def normalised():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Linear(5, 3))


@pytest.mark.parametrize("way", [record, train])
@pytest.mark.parametrize("model", [Kept, Constant, normalised])
def test_what_is_written_down_and_not_read_later_does_no_harm(model, way):
    if way is train and model is normalised:
        return
    way(model)


def coarse(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        return pt.class_loss(model, batch).float()


def test_a_rounding_loss_has_no_memory():
    rows = pt.table(dtype=torch.float32)
    begin(pt.made(pt.mlp, dtype=torch.float32), loss=coarse, data=rows)
