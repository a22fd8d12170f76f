"""One-sided differences that reuse what training left, against the exact pass, over whole runs."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.estimators.derivatives import Adjoint, Known, OneSided
from finfluence.estimators.replay import SavedProgress
from finfluence.grads import RowLosses
from four_parts import assert_parts


class LowRank(nn.Module):
    """A frozen layer with a trained correction of rank 2, which starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.down, self.up = (
            nn.Linear(4, 6),
            nn.Linear(4, 2, bias=False),
            nn.Linear(2, 6, bias=False),
        )
        self.head = nn.Linear(6, 3)
        self.base.requires_grad_(False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.base(x) + self.up(self.down(x))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(2, 4), nn.Linear(4, 12)
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.view(-1, 2, 2))
        q, k, v = self.mix(self.norm(h)).chunk(3, -1)
        h = h + (q @ k.transpose(1, 2) / 2).softmax(-1) @ v
        return self.out(torch.relu(h).mean(1))


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 1),
        nn.Conv2d(4, 4, 1), nn.LeakyReLU(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


MODELS = {
    "relu": lambda: pt.mlp(activation=nn.ReLU), "gelu": pt.mlp, "hardtanh": lambda: pt.mlp(activation=nn.Hardtanh),
    "pooled": pooled, "attention": Attention, "low rank": LowRank,
}  # fmt: skip
OPTIMIZERS = {
    "adamw": fr.AdamW(lr=0.01, eps=1e-3),
    "sgd": fr.SGD(lr=0.05),
    "momentum": fr.SGD(lr=0.02, momentum=0.9),
}
QUERIES = [fi.own_loss([0, 5])]


def tape_of(name: str, dtype: torch.dtype, optimizer: str = "adamw", **changes: object) -> fr.Tape:
    return fi.train(
        pt.recipe(
            model=pt.made(MODELS[name], dtype=dtype), optimizer=OPTIMIZERS[optimizer], epochs=4,
            data=pt.table(dtype=dtype),
        ), **changes,
    )  # fmt: skip


CASES = [*((name, "adamw") for name in MODELS), ("relu", "sgd"), ("pooled", "momentum")]
ALWAYS = [("relu", "adamw"), ("attention", "adamw")]


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.slow) for case in CASES],
)
@pytest.mark.quick(1)
def test_whole_replay_agrees_with_the_exact_pass(name, optimizer):
    """Float32: correlation of all effects above .9999, slope within a hundredth; float64: to 1e-5 of the largest."""
    for dtype in (torch.float32, pt.DOUBLE):
        tape = tape_of(name, dtype, optimizer)
        exact = fi.replay(tape, QUERIES, differentiation="exact")
        other = fi.replay(tape, QUERIES, differentiation="finite-difference")
        assert other.data.attrs["differentiation"] == "finite-difference"
        a, b = exact.data.effect.values.ravel(), other.data.effect.values.ravel()
        if dtype == pt.DOUBLE:
            assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()
        else:
            assert np.corrcoef(a, b)[0, 1] > 0.9999 and abs(a @ b / (a @ a) - 1) < 0.01
        np.testing.assert_allclose(other.data.spread.values, exact.data.spread.values, rtol=0.01)


def test_same_bits_twice_and_after_an_interruption(tmp_path, monkeypatch):
    tape = tape_of("pooled", torch.float32)
    options = {"differentiation": "finite-difference", "seed": 3}
    first, second = fi.replay(tape, QUERIES, **options), fi.replay(tape, QUERIES, **options)
    assert np.array_equal(first.data.effect.values, second.data.effect.values)
    assert np.array_equal(first.data.spread.values, second.data.spread.values)

    class Interrupted(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise Interrupted

    monkeypatch.setattr(SavedProgress, "seconds", 0.0)
    with pytest.raises(Interrupted):
        fi.replay(tape, QUERIES, out=tmp_path, progress=stop, **options)
    resumed = fi.replay(tape, QUERIES, out=tmp_path, **options)
    assert np.array_equal(first.data.effect.values, resumed.data.effect.values)


def test_recomputed_states_give_the_same_effects():
    kept, few = tape_of("pooled", torch.float32), tape_of("pooled", torch.float32, snapshot_bytes=4000)
    assert few.interval > 1
    a, b = (
        fi.replay(t, QUERIES, differentiation="finite-difference").data.effect.values for t in (kept, few)
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(a).max())


def test_what_training_left_saves_the_pass_at_theta(monkeypatch):
    """With the state after the step and its row losses, a smooth step costs one plain pass, and gives the same."""
    tape = tape_of("gelu", pt.DOUBLE)
    adjoint = OneSided(RowLosses(tape.working, tape.step_loss, tape.layout, fused=True), tape.optimizer)
    lam = torch.randn(1, 3, tape.layout.size, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(0))
    passes = []
    inner = adjoint.plain.gradient

    def counted(*args: object) -> tuple[Tensor, Tensor]:
        passes.append(1)
        return inner(*args)

    monkeypatch.setattr(adjoint.plain, "gradient", counted)
    found = []
    for known in (None, Known(tape.state(6), tape.row_losses(5))):
        adjoint.moves = None
        adjoint.step(tape.state(5), tape.at(5).hyper, tape.at(5).batch, lam, None, known)
        passes.clear()
        found.append(adjoint.step(tape.state(5), tape.at(5).hyper, tape.at(5).batch, lam, None, known))
        assert len(passes) == (2 if known is None else 1)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)
    exact = Adjoint(RowLosses(tape.working, tape.step_loss, tape.layout), tape.optimizer)
    want = exact.step(tape.state(5), tape.at(5).hyper, tape.at(5).batch, lam)
    for a, b in zip(found[1], want, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.slow
def test_auto_takes_them_for_few_queries_of_more_than_a_tiny_model(monkeypatch):
    tape = tape_of("attention", torch.float32)
    assert fi.replay(tape, QUERIES).data.attrs["differentiation"] == "exact"  # tiny
    monkeypatch.setattr(OneSided, "least_bytes", 0)
    chosen = fi.replay(tape, [fi.own_loss([1, 5])])
    assert chosen.data.attrs["differentiation"] == "finite-difference"
    assert any("agree with the exact pass" in finding for finding in chosen.data.attrs["findings"])
    many = fi.replay(tape, [fi.own_loss(list(range(6)))])
    assert many.data.attrs["differentiation"] == "exact"


@pytest.mark.slow
def test_differences_that_turn_wrong_on_the_way_are_replaced_by_the_exact_pass(monkeypatch):
    monkeypatch.setattr(OneSided, "least_bytes", 0)
    tape = tape_of("attention", torch.float32)
    right = OneSided._differences
    calls = []

    def wrong(self, theta, direction, batch, seed, at, moves):
        curved, of_rows, following = right(self, theta, direction, batch, seed, at, moves)
        calls.append(moves is not None)  # a step of the walk, not a check before it
        return (curved if sum(calls) < 3 else 1.1 * curved), of_rows, following

    monkeypatch.setattr(OneSided, "_differences", wrong)
    found = fi.replay(tape, QUERIES)
    assert any("replayed exactly: finite differences" in finding for finding in found.data.attrs["findings"])
    want = fi.replay(tape, QUERIES, differentiation="exact")
    assert np.array_equal(found.data.effect.values, want.data.effect.values)
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, QUERIES, differentiation="finite-difference")
    assert_parts(
        caught.value, "agree with the exact pass", "relative difference", "bends", "differentiation='exact'"
    )
