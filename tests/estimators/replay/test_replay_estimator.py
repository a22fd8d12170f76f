"""Replay as an estimator: what it supports and costs, its options, and the short way to it."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators import option_docs
from finfluence.estimators.replay import Replay, ReplayOptions
from four_parts import assert_parts

QUERIES = [fi.own_loss([0, 3])]


def test_the_short_way_is_the_estimator():
    tape = fi.train(pt.recipe(epochs=4))
    short = fi.replay(tape, QUERIES, "full", {"g": [1, 2]}, horizon=3, groups="linear").data
    long = Replay(ReplayOptions(rows="full", horizon=3, groups="linear")).estimate(
        tape, QUERIES, {"g": [1, 2]}
    )
    assert long.data.identical(short)
    assert Replay.takes_candidates() and Replay().options == ReplayOptions()


def test_every_option_is_frozen_and_documented():
    assert all(option_docs(ReplayOptions).values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        ReplayOptions().late = 0.3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": "fulll"}, ("a rows among 'online', 'full'", "'fulll'", "mistyped", "did you mean 'full'?")),
        ({"differentiation": "forward"}, ("a differentiation among", "'forward'", "mistyped", "listed")),
        ({"groups": "pared"}, ("a groups among", "'pared'", "mistyped", "did you mean 'paired'?")),
        ({"probe_budget": 0}, ("probe_budget above 0", "0", "mistyped", "0.25")),
        ({"late": 0.7}, ("late from 0 to 0.5", "0.7", "per cent", "0.1")),
    ],
)
def test_options_that_cannot_be_used(options, words):
    with pytest.raises(ConfigError) as caught:
        ReplayOptions(**options)
    assert_parts(caught.value, *words)


def test_supports_says_what_estimate_would():
    tape, kinked = (
        fi.train(pt.recipe()),
        fi.train(pt.recipe(model=pt.made(lambda: pt.mlp(activation=nn.SELU)))),
    )
    assert Replay().supports(tape) and Replay().supports(kinked)
    differences = Replay(ReplayOptions(differentiation="finite-difference"))
    assert differences.supports(tape) and not differences.supports(kinked)
    with pytest.raises(NotSupportedError) as caught:
        differences.estimate(kinked, QUERIES)
    assert str(caught.value) == differences.supports(kinked).reason
    assert (
        "horizon to be 'auto' or a number of epochs from 1 to 3"
        in Replay(ReplayOptions(horizon=4)).supports(tape).reason
    )
    assert "a tape for method 'replay'" in Replay().supports(pt.recipe()).reason


def counting(n: int = 40, epochs: int = 6) -> tuple[fr.Recipe, list[int]]:
    """A recipe whose loss counts the rows it sees; dropout keeps it from being traced, and so from being left out."""
    seen: list[int] = []

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(len(batch["id"]))
        return pt.class_loss(model, batch)

    model = pt.made(lambda: nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Dropout(0.1), nn.Linear(5, 3)))
    return pt.recipe(data=pt.table(n), model=model, loss=loss, batch_size=5, epochs=epochs), seen


@pytest.mark.parametrize(
    "options",
    [
        {}, {"rows": "full"}, {"horizon": 2}, {"memory_bytes": 2**22}, {"probe_budget": 4.0}, {"differentiation": "exact", "late": 0.0},
    ],
)  # fmt: skip
@pytest.mark.parametrize("snapshot_bytes", [2**30, 1])
@pytest.mark.quick(3)
def test_cost_is_what_is_evaluated(options, snapshot_bytes):
    """Rows that the loss sees in a replay over those of a training: within a factor of 1.5 of what was said."""
    recipe, seen = counting()
    tape = fi.train(recipe, snapshot_bytes=snapshot_bytes)
    rows = sum(len(batch) for batch in tape.order)
    query = fi.Query(lambda m: sum(p.sum() for p in m.parameters()), name="sum")
    estimator = Replay(ReplayOptions(**{"horizon": 6, **options}))
    expected = estimator.cost(tape, query)
    estimator.estimate(tape, query)  # what is worked out once a tape
    seen.clear()
    found = estimator.estimate(tape, query)
    spent = sum(seen) / rows
    assert expected.trainings / 1.5 < spent < 1.5 * expected.trainings, (spent, expected)
    assert expected.memory_bytes > 0 and np.isfinite(found.data.effect.values).all()


def test_cost_of_paired_groups_of_a_budget_and_of_a_made_budget():
    tape = fi.train(pt.recipe(epochs=6))
    groups = {"a": [0, 1], "b": [4, 5]}
    alone = (
        Replay().cost(tape, QUERIES, groups).trainings
        - Replay(ReplayOptions(groups="linear")).cost(tape, QUERIES, groups).trainings
    )
    assert alone == pytest.approx(2 + 4 + 1), "each group, the negative controls, the run itself"
    assert Replay(ReplayOptions(rows="full", budget=0.5)).cost(tape, QUERIES).trainings == 0.5
    made = fi.replay(tape, QUERIES, budget=1e-3).provenance.budget
    last = Replay(ReplayOptions(budget=made)).cost(tape, QUERIES).trainings
    assert last < Replay().cost(tape, QUERIES).trainings
