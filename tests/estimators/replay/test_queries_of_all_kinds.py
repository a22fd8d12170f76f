"""A query reads the trained model and leaves it as it is; what it cannot tell is refused or said."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, DataError
from four_parts import assert_parts

ROWS = pt.table()
X, Y = ROWS.fields["x"], ROWS.fields["y"]


def loss_of(model):
    return F.cross_entropy(model(X), Y)


def parts():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))


@pytest.fixture(scope="module")
def tape():
    return fi.train(pt.recipe())


@pytest.fixture(scope="module")
def of_parts():
    """A loop in which batch normalisation stays in evaluation mode."""
    model = pt.made(parts).train()
    model[1].eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=ROWS)
    for ids in pt.recipe().order(0):
        pt.class_loss(model, ROWS.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.step(ids=ids)
    return recorder.finish()


def replayed(tape, *queries):
    return fi.replay(tape, list(queries), late=0.0, horizon=3)


PLAIN = fi.Query(loss_of, name="plain")


def dropout_on(model):
    for module in model.modules():
        module.training = not isinstance(module, nn.BatchNorm1d)
    return loss_of(model)


def test_a_mode_that_a_query_sets_is_not_that_of_the_next(of_parts):
    alone = replayed(of_parts, PLAIN)
    after = replayed(of_parts, fi.Query(dropout_on, name="other"), PLAIN)
    np.testing.assert_allclose(after.data.effect.values[:, 1], alone.data.effect.values[:, 0], rtol=1e-9)


def statistics(model):
    return loss_of(model.train())


def edits(model):
    with torch.no_grad():
        model[0].weight.mul_(0.9)
    return loss_of(model)


def freezes(model):
    found = loss_of(model)
    model[0].requires_grad_(False)
    return found


def replaces(model):
    model[4] = nn.Linear(5, 3, dtype=pt.DOUBLE)
    return loss_of(model)


@pytest.mark.parametrize(
    ("fn", "named"),
    [
        (statistics, "1.num_batches_tracked"),
        (edits, "0.weight"),
        (freezes, "0.weight"),
        (replaces, "4.weight"),
    ],
)
def test_a_query_that_changes_the_model_is_refused(fn, named, of_parts):
    with pytest.raises(ConfigError) as caught:
        replayed(of_parts, fi.Query(fn, name="q"), PLAIN)
    assert_parts(
        caught.value,
        "'q' that leaves the model as it is",
        f"changes '{named}'",
        "queries after it",
        "only read the model",
    )


@pytest.mark.parametrize("fn", [statistics, edits])
def test_so_it_is_where_many_models_are_asked(fn):
    described = pt.recipe(model=lambda seed: pt.made(parts, seed)) if fn is statistics else pt.recipe()
    if fn is statistics:
        described = pt.recipe(
            model=lambda seed: pt.made(lambda: nn.Sequential(parts().eval()[:3], nn.Linear(5, 3)), seed)
        )
    with pytest.raises((ConfigError, DataError)) as caught:
        fi.retrain(described, [fi.Query(fn, name="q")], {"a": [1]}, runs=4)
    assert (
        "leaves the model as it is" in str(caught.value) or "batch normalisation" in str(caught.value).lower()
    )


def test_random_numbers_and_flat_queries_are_said(tape):
    asked = {
        "noisy": lambda m: F.cross_entropy(m(X + 0.1 * torch.randn_like(X)), Y),
        "rounded": lambda m: (loss_of(m) * 100).round() / 100,
        "cancelled": lambda m: loss_of(m) / loss_of(m).detach(),
    }
    found = replayed(tape, *(fi.Query(fn, name=name) for name, fn in asked.items()), PLAIN)
    findings = found.data.attrs["findings"]
    (drawing,) = (f for f in findings if "random numbers are drawn by the query" in f)
    (flat,) = (f for f in findings if "does not change with any trained parameter" in f)
    assert "'noisy'" in drawing and "'rounded', 'cancelled'" in flat and "'plain'" not in drawing + flat
    assert not found.data.effect.values[:, 1:3].any()
    assert not any("the query" in f for f in replayed(tape, PLAIN).data.attrs["findings"])


def of_another_model(model, other=pt.made(pt.mlp)):  # noqa: B008 - one model for all calls
    return loss_of(other)


FAILING = {
    "another model": (
        fi.Query(of_another_model, name="q"), "'q' to be differentiable", "without a gradient", "ignores the model", "model it is given",
    ),
    "complex": (
        fi.Query(lambda m: torch.complex(loss_of(m), loss_of(m)), name="q"), "one number as a tensor", "torch.complex128",
        "complex", "fi.each_loss",
    ),
    "other precision": (
        fi.Query(lambda m: m(X.float()).sum(), name="q"), "'q' that can be asked", "RuntimeError: ", "another model or precision",
        "query.fn(tape.model().eval())",
    ),
    "other fields": (fi.mean_loss(z=X, name="q"), "'q' that can be asked", "KeyError: 'x'", "other fields", "of the same names"),
    "other labels": (
        fi.each_loss(X[:2], Y[:2] + 7), "'loss[0]' that can be asked", "IndexError: Target", "labels", "shapes and types",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_queries_that_cannot_be_asked(name, tape):
    query, *words = FAILING[name]
    with pytest.raises(ConfigError) as caught:
        replayed(tape, query)
    assert_parts(caught.value, *words)


def test_a_mean_over_no_rows():
    with pytest.raises(ConfigError) as caught:
        fi.mean_loss(X[:0], Y[:0], name="q")
    assert_parts(caught.value, "a row or more in query 'q'", "none", "a filter", "mean loss is asked")


@pytest.mark.parametrize(("given", "kind"), [(loss_of, "function"), (None, "NoneType"), (3, "int")])
def test_what_is_no_query(given, kind, tape):
    with pytest.raises(ConfigError) as caught:
        fi.replay(tape, given)
    assert_parts(
        caught.value,
        "one or more queries",
        f"objects of type {kind}",
        "bare function",
        "fi.Query(fn, name=…)",
    )


def test_what_is_no_subset(tape):
    with pytest.raises(DataError) as caught:
        fi.replay(tape, PLAIN, subsets=3)
    assert_parts(caught.value, "{name: row ids}", "3", "one id", "write a row as [id]")
