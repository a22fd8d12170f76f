"""Runs of one recipe trace their steps once; what they compute is bit for bit what a run by itself computes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import plain_training as pt
from finfluence.grads import Graphs, Traces

QUERY = [fi.own_loss([0, 5])]


class Shifted(nn.Module):
    """A model with a buffer that each seed draws anew."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner = pt.made(pt.mlp)
        self.register_buffer("shift", 1e-6 * torch.randn(4, generator=generator, dtype=pt.DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.shift)


def replayed(recipe: fi.Recipe, seed: int) -> fi.Influence:
    return fi.replay(fi.train(recipe, seed=seed), QUERY, differentiation="exact")


def assert_same(one: fi.Influence, other: fi.Influence) -> None:
    for name in ("effect", "spread", "mu"):
        np.testing.assert_array_equal(one.data[name].values, other.data[name].values)


class Counted:
    """A loss that counts how often Python evaluates it: a traced graph does not."""

    calls = 0

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return pt.class_loss(model, batch)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.quick(1)
def test_the_second_run_of_a_recipe_traces_nothing_and_says_the_same(random):
    loss, calls = Counted(), []
    model = (lambda seed: pt.made(pt.mlp, seed)) if random else pt.made(pt.mlp)
    recipe = pt.recipe(model=model, epochs=3, loss=loss)
    tapes = [fi.train(recipe, seed=seed) for seed in (1, 2)]
    for tape in tapes:
        before = loss.calls
        found = fi.replay(tape, QUERY, differentiation="exact")
        calls.append(loss.calls - before)
    assert tapes[0].graphs is tapes[1].graphs and len(tapes[0].graphs) > 1
    assert calls[1] <= calls[0] - len(tapes[0].graphs) and found.provenance.engine == "traced"
    assert_same(found, replayed(replace(recipe), 2))


def test_runs_with_other_buffers_share_no_graph():
    """A difference of 1e-6, which a comparison of values at an example would not see."""
    recipe = pt.recipe(model=Shifted, epochs=3)
    replayed(recipe, 1)
    assert_same(replayed(recipe, 2), replayed(replace(recipe), 2))


def test_a_graph_that_does_not_reproduce_the_function_is_not_taken():
    graphs, x = Graphs(), torch.ones(3)
    Traces(graphs=graphs).run("f", lambda t: t + 1, x)
    assert Traces(graphs=graphs).run("f", lambda t: t + 2, x).tolist() == [3.0] * 3
    assert Traces(graphs=graphs, owner="another").run("f", lambda t: t + 3, x).tolist() == [4.0] * 3


def test_copies_are_empty():
    graphs = Graphs()
    Traces(graphs=graphs).run("f", lambda t: t + 1, torch.ones(3))
    assert len(graphs) == 1 and len(copy.deepcopy(graphs)) == 0
