"""Finite differences against the exact pass, and how the pass is chosen."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators.derivatives import Adjoint, FiniteDifference, choose_adjoint
from finfluence.grads import Layout, RowLosses
from four_parts import assert_parts

ROWS = 12


class Small(nn.Module):
    """One block with fused attention over two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.out = nn.Linear(2, 4), nn.Linear(4, 12), nn.Linear(4, 3)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.view(-1, 2, 2))
        q, k, v = (a.unflatten(-1, (2, 2)).transpose(1, 2) for a in self.mix(self.norm(h)).chunk(3, -1))
        h = h + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(F.gelu(h).mean(1))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.SiLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(3, 3),
    )  # fmt: skip


MODELS = {
    "gelu": pt.mlp, "silu": lambda: pt.mlp(activation=nn.SiLU), "tanh": lambda: pt.mlp(activation=nn.Tanh),
    "transformer": Small, "convolution": conv,
}  # fmt: skip


def described(name: str = "gelu", dtype: torch.dtype = pt.DOUBLE, **changes: object) -> fr.Recipe:
    model = pt.made(MODELS[name], dtype=dtype) if name in MODELS else changes.pop("model")
    options = {"optimizer": fr.AdamW(lr=0.01, eps=1e-3), "epochs": 3, "data": pt.table(dtype=dtype)}
    return pt.recipe(model=model, **{**options, **changes})


def passes(recipe: fr.Recipe, **options: object) -> tuple[Adjoint, FiniteDifference, Layout]:
    model = fr.initial_model(recipe, 0)
    layout = Layout(model)
    exact = Adjoint(RowLosses(model, recipe.loss, layout), recipe.optimizer)
    losses = RowLosses(model, recipe.loss, layout, fused=True)
    return exact, FiniteDifference(losses, recipe.optimizer, **options), layout


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (pt.DOUBLE, 1e-6)])
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.quick(5)
def test_one_step_agrees_with_the_exact_pass(name, queries, dtype, tolerance):
    recipe = described(name, dtype)
    exact, differences, layout = passes(recipe)
    generator = torch.Generator().manual_seed(queries)
    theta = layout.theta(recipe.model)
    moments = 0.1 * torch.rand(2, layout.size, dtype=dtype, generator=generator)
    state = torch.cat([theta, moments.reshape(-1)])
    lam = torch.randn(queries, 3, layout.size, dtype=dtype, generator=generator)
    hyper = torch.tensor(recipe.optimizer.hyper(3, 1.0), dtype=dtype)
    batch = recipe.rows.batch(torch.arange(ROWS))
    for got, want in zip(
        differences.step(state, hyper, batch, lam), exact.step(state, hyper, batch, lam), strict=True
    ):
        assert got.shape == want.shape and got.dtype == dtype
        assert float((got - want).norm() / want.norm()) < tolerance
    u = lam[:, 0]
    got, want = differences.row_derivatives(theta, u, batch), exact.row_derivatives(theta, u, batch)
    assert float((got - want).norm() / want.norm()) < tolerance
    curved, slopes = differences.products(theta, u, batch)
    curved_exact, slopes_exact = exact.products(theta, u, batch)
    assert float((curved - curved_exact).norm() / curved_exact.norm()) < tolerance
    assert float((slopes - slopes_exact).norm() / slopes_exact.norm()) < tolerance


def test_looped_points_equal_batched_points():
    recipe = described()
    _, together, layout = passes(recipe)
    _, alone, _ = passes(recipe, looped=True)
    theta, batch = layout.theta(recipe.model), recipe.rows.batch(torch.arange(ROWS))
    u = torch.randn(3, layout.size, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(0))
    for a, b in zip(together.products(theta, u, batch), alone.products(theta, u, batch), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_error_of_the_step_width():
    """Central differences: the error falls as ρ² (a ratio of 100 for ten times the width, within a third)."""
    recipe = described("tanh")
    exact, _, layout = passes(recipe)
    theta, batch = layout.theta(recipe.model), recipe.rows.batch(torch.arange(ROWS))
    u = torch.randn(1, layout.size, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(0))
    want = exact.products(theta, u, batch)[0]
    errors = [
        float((passes(recipe, relative=rho)[1].products(theta, u, batch)[0] - want).norm())
        for rho in (1e-3, 1e-2)
    ]
    assert 67 < errors[1] / errors[0] < 150


def test_a_direction_of_zero_has_no_slope():
    recipe = described()
    _, differences, layout = passes(recipe)
    batch = recipe.rows.batch(torch.arange(ROWS))
    zero = torch.zeros(2, layout.size, dtype=pt.DOUBLE)
    for out in differences.products(layout.theta(recipe.model), zero, batch):
        assert not out.any()


QUERIES = [fi.own_loss([0, 5])]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("silu", "online"),
        ("silu", "full"),
        ("transformer", "online"),
        pytest.param("transformer", "full", marks=pytest.mark.slow),
    ],
)
@pytest.mark.quick(1)
def test_whole_replay_agrees_to_three_digits(name, method):
    tape = fi.train(described(name, torch.float32, epochs=6))
    exact = fi.replay(tape, QUERIES, method=method)
    other = fi.replay(tape, QUERIES, method=method, differentiation="finite-difference")
    assert exact.data.attrs["differentiation"] == "exact"
    assert other.data.attrs["differentiation"] == "finite-difference"
    for field in ("effect", "spread"):
        a, b = exact.data[field].values, other.data[field].values
        assert np.abs(a - b).max() < 1e-3 * np.abs(a).max()
    found = [f for f in other.data.attrs["findings"] if "finite differences" in f]
    assert len(found) == 1 and "as asked" in found[0] and "the exact pass" in found[0]
    assert not [f for f in exact.data.attrs["findings"] if "finite" in f]


def test_dropout_sees_the_same_draws():
    def dropping() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))

    tape = fi.train(described("dropout", model=pt.made(dropping)))
    exact = fi.replay(tape, QUERIES)
    other = fi.replay(tape, QUERIES, differentiation="finite-difference")
    np.testing.assert_allclose(other.data.effect.values, exact.data.effect.values, rtol=1e-4, atol=1e-9)


class OnlyBackward(torch.autograd.Function):
    """Softplus with a derivative of its own and no forward derivative, as fused kernels are written."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(x)


class WithFused(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.body, self.head, self.fused = nn.Linear(4, 5), nn.Linear(5, 3), fused

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(OnlyBackward.apply(h) if self.fused else F.softplus(h))


@pytest.mark.slow
def test_without_forward_derivative_auto_takes_differences():
    fused, plain = (
        fi.train(described("fused", model=pt.made(lambda f=f: WithFused(f)))) for f in (True, False)
    )
    got, want = fi.replay(fused, QUERIES), fi.replay(plain, QUERIES)
    assert got.data.attrs["differentiation"] == "finite-difference"
    assert "no forward-over-reverse derivative" in got.data.attrs["differentiation_reason"]
    assert any("differences at ρ" in f for f in got.data.attrs["findings"])
    np.testing.assert_allclose(got.data.effect.values, want.data.effect.values, rtol=1e-4, atol=1e-9)
    exact = fi.replay(fused, QUERIES, differentiation="exact")
    assert exact.data.attrs["differentiation"] == "reverse-over-reverse"
    np.testing.assert_allclose(exact.data.effect.values, want.data.effect.values, rtol=1e-9, atol=1e-12)


def test_kinks_that_cannot_be_held_are_refused_by_name():
    tape = fi.train(described("kinked", model=pt.made(lambda: pt.mlp(activation=nn.SELU))))
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, QUERIES, differentiation="finite-difference")
    assert_parts(caught.value, "smooth operations", "Elu", "two sides of the kink", "differentiation='exact'")
    assert fi.replay(tape, QUERIES).data.attrs["differentiation"] == "exact"


def test_a_kink_beside_an_operation_without_forward_derivative_is_taken_reverse_over_reverse():
    def tape(fused: bool) -> fr.Tape:
        model = pt.made(lambda: nn.Sequential(WithFused(fused), nn.ReLU(), nn.Linear(3, 3)))
        return fi.train(described("both", model=model))

    fused, plain = (fi.replay(tape(kind), QUERIES) for kind in (True, False))
    assert fused.data.attrs["differentiation"] == "reverse-over-reverse"
    assert "no forward-over-reverse derivative" in fused.data.attrs["differentiation_reason"]
    np.testing.assert_allclose(fused.data.effect.values, plain.data.effect.values, rtol=1e-9, atol=1e-12)
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape(True), QUERIES, differentiation="finite-difference")
    assert_parts(caught.value, "smooth operations only", "Relu", "kink", "smooth activation")


class Coarse(nn.Module):
    """A layer in half precision, of which differences see steps."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 40), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x).bfloat16()).float())


def test_too_low_a_precision_is_found_by_comparing():
    tape = fi.train(
        described("coarse", model=pt.made(Coarse, dtype=torch.float32), data=pt.table(dtype=torch.float32))
    )
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, QUERIES, differentiation="finite-difference")
    assert_parts(
        caught.value, "agree with the exact pass", "relative difference", "too low a precision", "smooth"
    )


class LongAttention(nn.Module):
    """Attention over 64 tokens: the exact pass keeps 64 × 64 weights a row, fused attention does not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(1, 3), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.pad(x, (0, 60), value=0.5)[:, :, None]
        q, k, v = self.embed(h).unsqueeze(1).split(1, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))


def test_memory_decides_between_the_passes_only_where_it_helps():
    tape = fi.train(described("long", model=pt.made(LongAttention)))
    start = torch.ones(1, tape.layout.size, dtype=pt.DOUBLE)
    assert choose_adjoint(tape, start, "auto", 2**30).name == "exact"
    tight = choose_adjoint(tape, start, "auto", 4 * 64 * 64 * 8)
    assert tight.name == "finite-difference" and "GiB a query" in tight.reason
    assert choose_adjoint(tape, start, "auto", 1).name == "exact"


def test_words_for_a_wrong_name():
    with pytest.raises(ConfigError) as caught:
        fi.replay(fi.train(described()), QUERIES, differentiation="forward")
    assert "differentiation" in str(caught.value) and "'forward'" in str(caught.value)


def test_nothing_warns_of_a_slow_fallback():
    recipe = described("transformer", torch.float32)
    _, differences, layout = passes(recipe)
    batch = recipe.rows.batch(torch.arange(ROWS))
    u = torch.ones(3, layout.size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        differences.products(layout.theta(recipe.model), u, batch)
