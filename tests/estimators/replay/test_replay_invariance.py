"""What must not change a replay's numbers: chunks of queries, order of queries and rows, kept states, interruptions."""

import numpy as np
import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, DataError
from finfluence.estimators.replay import SavedProgress
from four_parts import assert_parts

ESTIMATES = ("effect", "effect_se", "spread", "mu", "se", "p_value")


def recipe(**changes: object) -> fr.Recipe:
    return pt.recipe(optimizer=fr.AdamW(lr=0.02, eps=1e-4), epochs=4, **changes)


QUERIES = [fi.own_loss([0, 3, 5]), fi.own_loss([7])]


def assert_equal(a, b, rtol: float = 0.0, atol: float = 0.0) -> None:
    for name in ESTIMATES:
        np.testing.assert_allclose(
            a.data[name].values, b.data[name].values, rtol=rtol, atol=atol, err_msg=name
        )


@pytest.mark.parametrize("method", ["online", "full"])
@pytest.mark.slow
def test_memory_bound_and_order_of_queries(method):
    tape = fi.train(recipe())
    together = fi.replay(tape, QUERIES, method=method)
    least = pt.least_memory(tape, QUERIES, method=method)
    apart = fi.replay(tape, QUERIES, method=method, memory_bytes=least)
    assert_equal(together, apart, rtol=1e-8, atol=1e-14)
    turned = fi.replay(tape, QUERIES[::-1], method=method)
    assert turned.queries == ["own loss[7]", "own loss[0]", "own loss[3]", "own loss[5]"]
    for name in ESTIMATES:
        np.testing.assert_allclose(
            turned.data[name].sel(query=together.queries).values,
            together.data[name].values,
            rtol=1e-8,
            atol=1e-14,
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("online", marks=pytest.mark.slow), "full"])
def test_kept_states_do_not_change_a_bit(method, tmp_path):
    whole = fi.train(recipe())
    sparse = fi.train(recipe(), snapshot_bytes=1)
    folder = fi.train(recipe(), out=tmp_path, snapshot_bytes=4 * whole.stepper.width * 8)
    assert (whole.interval, sparse.interval, folder.interval) == (1, 12, 3)
    expected = fi.replay(whole, QUERIES, method=method)
    for tape in (sparse, folder, fr.Tape.open(tmp_path, recipe())):
        found = fi.replay(tape, QUERIES, method=method)
        assert_equal(found, expected)


def test_same_call_same_bits_and_replays_do_not_disturb_the_tape():
    tape = fi.train(recipe())
    final = tape.state().clone()
    first = fi.replay(tape, QUERIES)
    fi.replay(tape, QUERIES[0], method="full")
    assert_equal(first, fi.replay(tape, QUERIES))
    assert torch.equal(final, tape.state())


def test_permuted_rows_permute_the_result(monkeypatch):
    """The same rows in another arrangement, trained in the corresponding order."""
    rows = pt.table()
    turn = np.random.default_rng(0).permutation(12)
    names = [f"row {i}" for i in range(12)]
    before = recipe(data=fi.Rows(**rows.fields, ids=names))
    after = recipe(data=fi.Rows(**{k: v[turn] for k, v in rows.fields.items()}, ids=[names[i] for i in turn]))
    x = torch.ones(2, 4, dtype=pt.DOUBLE)
    query = fi.mean_loss(x, torch.tensor([0, 1]))
    expected = {m: fi.replay(fi.train(before), query, method=m) for m in ("online", "full")}
    place = torch.from_numpy(np.argsort(turn))
    plain_order = fr.Recipe.epoch_order
    monkeypatch.setattr(
        fr.Recipe, "epoch_order", lambda self, *args: [place[b] for b in plain_order(self, *args)]
    )
    for method, want in expected.items():
        found = fi.replay(fi.train(after), query, method=method).data.sel(subset=names)
        for name in ("effect", "spread", "own_loss"):
            np.testing.assert_allclose(found[name], want.data[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("memory_bytes", [2**30, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop", [1, pytest.param(3, marks=pytest.mark.slow), 4])
def test_interrupted_replay_goes_on_to_the_same_bits(tmp_path, monkeypatch, stop, memory_bytes):
    monkeypatch.setattr(SavedProgress, "seconds", 0.0)
    tape = fi.train(recipe())
    alone = memory_bytes == 1
    memory_bytes = pt.least_memory(tape, QUERIES) if alone else memory_bytes
    whole = fi.replay(tape, QUERIES, memory_bytes=memory_bytes)
    calls = []

    def interrupt(stage, done, total):
        calls.append((stage, done, total))
        if len(calls) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fi.replay(tape, QUERIES, memory_bytes=memory_bytes, out=tmp_path, progress=interrupt)
    assert calls[0][:2] == ("replay", 1) and (calls[0][2] in (8, 16) if alone else calls[0][2] == 4)
    seen = []
    resumed = fi.replay(
        tape, QUERIES, memory_bytes=memory_bytes, out=tmp_path, progress=lambda *a: seen.append(a)
    )
    assert_equal(whole, resumed)
    assert len(seen) <= len(calls) + 16 and seen[-1][1] == seen[-1][2]
    again = fi.replay(fi.train(recipe()), QUERIES, memory_bytes=memory_bytes, out=tmp_path)
    assert_equal(whole, again)
    other = fi.replay(tape, QUERIES, method="full", memory_bytes=memory_bytes, out=tmp_path)
    assert not np.array_equal(other.data.effect.values, whole.data.effect.values)


@pytest.mark.slow
def test_single_precision_is_close_to_double():
    """Relative to the largest effect: 1e-3, and the spread too."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        described = recipe(data=pt.table(dtype=dtype), model=pt.made(pt.mlp).to(dtype))
        found[dtype] = fi.replay(fi.train(described), QUERIES, method="full", horizon=4).data
    for name in ("effect", "spread"):
        double = found[torch.float64][name].values
        assert np.abs(found[torch.float32][name].values - double).max() < 1e-3 * np.abs(double).max()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_stochastic_loss_repeats_itself(dropout):
    def dropping():
        return torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(6, 3)
        )

    described = recipe(model=pt.made(dropping))
    first, second = (fi.replay(fi.train(described), QUERIES) for _ in range(2))
    assert_equal(first, second)
    assert ("dropout" in first.data.attrs["uncovered"]) == (dropout > 0)


def refused(kind, parts, **arguments):
    tape = arguments.pop("tape", None) or fi.train(recipe())
    with pytest.raises(kind) as caught:
        fi.replay(tape, QUERIES, **arguments)
    assert_parts(caught.value, *parts)


def test_errors():
    refused(
        ConfigError,
        ("a method among 'online', 'full'", "'fulll'", "mistyped", "did you mean 'full'?"),
        method="fulll",
    )
    for budget in (0, -1.0, float("inf"), float("nan")):
        refused(
            ConfigError,
            ("probe_budget above 0", repr(budget), "share was mistyped", "the default"),
            probe_budget=budget,
        )
    for horizon in (0, 5, "all", 2.0, True):
        refused(
            ConfigError, ("'auto' or a number of epochs from 1 to 4", repr(horizon), "more epochs", "horizon='auto'"),
            horizon=horizon,
        )  # fmt: skip
    refused(
        DataError, ("one row to be left without subset 'all'", "all 12 rows", "whole data set", "smaller subset"),
        subsets={"all": range(12)},
    )  # fmt: skip
    for method in ("fine", "fine-mc"):
        refused(
            ConfigError,
            (
                "method 'online' or 'full' in fi.replay", repr(method), "an estimator of its own",
                f"fi.estimate(tape, queries, method={method!r})",
            ),
            method=method,
        )  # fmt: skip


def test_a_numpy_horizon_is_a_horizon():
    tape = fi.train(recipe())
    assert_equal(fi.replay(tape, QUERIES, horizon=np.int64(2)), fi.replay(tape, QUERIES, horizon=2))
