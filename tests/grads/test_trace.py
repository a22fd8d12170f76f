"""A traced and cleaned graph computes what the function computes, on batches it was not traced on."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.estimators.derivatives import Adjoint
from finfluence.grads import Elementary, Layout, RowLosses, trace

ROWS = 4


class Apply(nn.Module):
    def __init__(self, function, **layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layers, x)


def dense(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3))


def over_images(*layers: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (2, 4, 4)), *layers, nn.Flatten(), nn.Linear(width, 3))


def einsum_head(layers, x):
    return torch.einsum("bi,oi,bo->bo", x, layers["a"].weight, torch.tanh(layers["b"](x)))


def overwrite(layers, x):
    h = layers["a"](x)
    h[:, 0] = 0.5 * h[:, 1]
    h.mul_(1.5).add_(x.sum(1, keepdim=True))
    return h


def halves(layers, x):
    h = layers["a"](x)
    first, second = h[:, :3], h[:, 3:]
    first += 1.0
    second.mul_(x.sum(1, keepdim=True))
    return layers["b"](first * torch.tanh(second)) + h[:, ::2]


def written_into_zeros(layers, x):
    out = torch.zeros(len(x), 3, dtype=x.dtype)
    out[:, 1:] = layers["a"](x)
    return out


MODELS = {
    "relu": (lambda: dense(nn.ReLU()), 4), "relu-in-place": (lambda: dense(nn.ReLU(inplace=True)), 4),
    "tanh": (lambda: dense(nn.Tanh()), 4), "gelu": (lambda: dense(nn.GELU()), 4),
    "gelu-tanh": (lambda: dense(nn.GELU(approximate="tanh")), 4), "silu": (lambda: dense(nn.SiLU()), 4),
    "layer-norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Softplus(), nn.Linear(6, 3)), 4),
    "group-norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(3, 6), nn.Sigmoid(), nn.Linear(6, 3)), 4),
    "convolution": (
        lambda: over_images(nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2), nn.SiLU(), nn.MaxPool2d(2), width=4), 32,
    ),
    "pools": (
        lambda: over_images(
            nn.Conv2d(2, 3, 2, bias=False), nn.AvgPool2d(2, padding=1), nn.AdaptiveAvgPool2d(1), width=3
        ), 32,
    ),
    "transposed": (lambda: over_images(nn.ConvTranspose2d(2, 1, 2, dilation=2), nn.LeakyReLU(0.1), width=36), 32),
    "frozen-batch-norm": (lambda: over_images(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ELU(), width=27).eval(), 32),
    "einsum": (lambda: Apply(einsum_head, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), 4),
    "overwrite": (lambda: Apply(overwrite, a=nn.Linear(4, 3)), 4),
    "halves": (lambda: Apply(halves, a=nn.Linear(4, 6), b=nn.Linear(3, 3)), 4),
    "written-into-zeros": (lambda: Apply(written_into_zeros, a=nn.Linear(4, 2)), 4),
    "gru": (lambda: Apply(lambda m, x: m["b"](m["a"](x, x.tanh())), a=nn.GRUCell(4, 4), b=nn.Linear(4, 3)), 4),
}  # fmt: skip


def plain_loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def smoothed(model, batch):
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=pt.DOUBLE)
    return F.cross_entropy(model(batch["x"]), batch["y"], weight, reduction="none", label_smoothing=0.2)


def ignoring(model, batch):
    y = torch.where(batch["x"][:, 0] > 0, batch["y"], -100)
    return F.cross_entropy(model(batch["x"]), y, reduction="none", ignore_index=-100)


def squared(model, batch):
    return F.mse_loss(model(batch["x"]), torch.eye(3, dtype=pt.DOUBLE)[batch["y"]], reduction="none").mean(1)


def fused(model, batch):
    out, y = model(batch["x"]), batch["y"].double()
    several = F.mse_loss(out[:, 0], y, reduction="none") + F.huber_loss(
        out[:, 1], y, reduction="none", delta=0.7
    )
    return (
        several
        + F.smooth_l1_loss(out[:, 2], y, reduction="none")
        + nn.MSELoss(reduction="none")(out[:, 1], y)
    )


def by_id(model, batch):
    table = torch.linspace(0.5, 2.0, 64, dtype=pt.DOUBLE)
    return table[batch["id"]] * (model(batch["x"]).sum(1) - batch["y"]).abs().clamp(max=2.0)


def normalised(model, batch):
    """A scale that depends on the batch's values but not on the model."""
    return plain_loss(model, batch) * batch["x"].abs().amax(1).clamp(min=0.5, max=1.5)


LOSSES = {
    "plain": plain_loss, "smoothed": smoothed, "ignoring": ignoring, "squared": squared, "fused": fused,
    "by-id": by_id, "normalised": normalised,
}  # fmt: skip


def batches(width: int, count: int = 3) -> list[dict[str, Tensor]]:
    """Batches that differ in scale, sign, labels and ids; the first is the one that is traced."""
    rng = np.random.default_rng(11)
    out = []
    for k in range(count):
        out.append({
            "x": torch.from_numpy((1 + 2 * k) * rng.normal(size=(ROWS, width)) * (-1) ** k),
            "y": torch.from_numpy(rng.integers(0, 3, ROWS) if k else np.array([0, 0, 1, 0])),
            "id": torch.from_numpy(rng.permutation(64)[:ROWS]),
        })  # fmt: skip
    return out


def assert_same(traced, eager) -> None:
    for got, want in zip(traced, eager, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11 * max(1.0, float(want.abs().max())))


def compare(model: nn.Module, loss, width: int, optimizer: fr.Optimizer, queries: int) -> None:
    layout = Layout(model)
    losses = RowLosses(model, loss, layout)
    traced, eager = Adjoint(losses, optimizer), Adjoint(losses, optimizer, stochastic=True)
    generator = torch.Generator().manual_seed(queries)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, layout.size, dtype=pt.DOUBLE, generator=generator)

    slots = len(optimizer.slots)
    for t, batch in enumerate(batches(width)):
        moments = draw(slots).abs() if slots else draw(0)
        state = torch.cat([layout.theta(model) + 0.1 * t * draw(), moments.reshape(-1)])
        lam, hyper = draw(queries, 1 + slots), torch.tensor(optimizer.hyper(t, 0.7), dtype=pt.DOUBLE)
        kept = [state.clone(), hyper.clone(), lam.clone(), *(v.clone() for v in batch.values())]
        assert_same(traced.step(state, hyper, batch, lam), eager.step(state, hyper, batch, lam))
        theta, u = state[: layout.size], draw(queries)
        assert_same([traced.row_derivatives(theta, u, batch)], [eager.row_derivatives(theta, u, batch)])
        assert all(torch.equal(a, b) for a, b in zip(kept, [state, hyper, lam, *batch.values()], strict=True))
    assert traced.engine == "traced", traced.engine
    assert torch.equal(layout.theta(model), Layout(model).theta(model))


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.quick(10)
def test_models(name, queries):
    factory, width = MODELS[name]
    compare(pt.made(factory), plain_loss, width, fr.SGD(lr=0.1, momentum=0.9), queries)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.quick(3)
def test_losses(name):
    compare(pt.made(lambda: dense(nn.Tanh())), LOSSES[name], 4, fr.AdamW(lr=0.1), 3)


class WithoutDerivative(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_an_operation_without_forward_derivative_is_named():
    def loss(model, batch):
        return WithoutDerivative.apply(model(batch["x"])[:, 0])

    with pytest.raises(NotSupportedError) as caught:
        compare(pt.made(lambda: dense(nn.Tanh())), loss, 4, fr.SGD(lr=0.1), 1)
    lines = str(caught.value).splitlines()
    assert (
        lines[0]
        == "expected a model and loss of operations that PyTorch can differentiate forward over reverse"
    )
    assert lines[1].startswith("  got: ") and "jvp" in lines[1]
    assert lines[2].startswith("  likely cause: a fused or rarely used operation")
    assert lines[3].startswith("  next step: write that part with elementary operations")


def test_one_hot_checks_values_and_runs_untraced_or_right():
    def one_hot(model, batch):
        return (model(batch["x"]) - F.one_hot(batch["y"], 3)).pow(2).mean(1)

    model = pt.made(lambda: dense(nn.Tanh()))
    layout = Layout(model)
    losses = RowLosses(model, one_hot, layout)
    adjoint, eager = Adjoint(losses, fr.SGD(lr=0.1)), Adjoint(losses, fr.SGD(lr=0.1), stochastic=True)
    theta, hyper = layout.theta(model), torch.tensor([0.1, 1.0], dtype=pt.DOUBLE)
    for batch in batches(4):
        lam = torch.ones(2, 1, layout.size, dtype=pt.DOUBLE)
        assert_same(adjoint.step(theta, hyper, batch, lam), eager.step(theta, hyper, batch, lam))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_written_out_losses_have_the_values_of_the_fused_ones(reduction):
    x, y, w = torch.randn(3, 5, 2, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(0)).abs().unbind()
    for call in (
        lambda: F.mse_loss(x, y, reduction=reduction), lambda: nn.MSELoss(reduction=reduction)(x, y),
        lambda: F.mse_loss(x, y, reduction=reduction, weight=w), lambda: F.huber_loss(x, y, reduction, 0.3),
        lambda: F.huber_loss(x, y, reduction=reduction, weight=w), lambda: nn.HuberLoss(reduction, 2.0)(x, y),
    ):  # fmt: skip
        want = call()
        with Elementary():
            torch.testing.assert_close(call(), want, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", pt.OPTIMIZERS)
@pytest.mark.quick(3)
def test_optimizers(name):
    compare(pt.made(lambda: dense(nn.Tanh())), plain_loss, 4, pt.OPTIMIZERS[name][0], 2)


@pytest.mark.parametrize("function", [
    lambda x: x + x.max() * 0 + x.argmax(),
    lambda x: torch.where(x > 0, x, x.min()) * x.sign(),
    lambda x: x.sort().values.cumsum(0) + torch.arange(len(x)),
    lambda x: torch.ones_like(x).cumsum(0) * x + torch.zeros_like(x) * x,
    lambda x: x.clone().relu_().mul_(2).index_add_(0, torch.tensor([0, 0]), x[:2]),
    lambda x: torch.zeros(3, dtype=x.dtype).index_put((torch.tensor([0, 1]),), x[:2]) + x.sum(),
    lambda x: (x.unsqueeze(0).expand(2, -1) @ x.unsqueeze(1)).squeeze(1) + (0 * x).sum(),
    lambda x: torch.eye(2, dtype=x.dtype) @ x[:2] + x.new_zeros(2),
])  # fmt: skip
def test_functions_on_other_values(function):
    traced = trace(function, torch.tensor([1.0, 2.0, 3.0, 0.0]))
    assert traced.reason is None
    for values in ([-1.0, 5.0, 0.5, 2.0], [3.0, -2.0, -1.0, -4.0], [0.0, 0.0, 0.0, 0.0]):
        x = torch.tensor(values)
        torch.testing.assert_close(traced(x), function(x), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(traced(x), function(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [
    lambda x: x * 2 if x.sum() > 0 else x * 3,
    lambda x: x * float(x[0]),
    lambda x: x[x > 0].sum() * x,
    lambda x: torch.masked_select(x, x > 1).mean() + x,
    lambda x: x[: int((x > 0).sum())].sum() + x,
    lambda x: x.unique().sum() + x,
    lambda x: (x > 0).nonzero().sum() + x,
])  # fmt: skip
def test_functions_of_values_in_python_run_as_they_are(function):
    traced = trace(function, torch.tensor([1.0, 2.0, 3.0]))
    assert traced.graph is None and traced.reason
    for values in ([-1.0, -5.0, 0.5], [3.0, 2.0, -1.0], [4.0, 4.0, 5.0]):
        x = torch.tensor(values)
        torch.testing.assert_close(traced(x), function(x), rtol=0, atol=0, equal_nan=True)


def test_folded_constants_are_not_written_on():
    def function(x):
        ones = torch.ones_like(x)
        ones += x
        return ones * torch.ones_like(x)

    traced = trace(function, torch.ones(3))
    for k in (1.0, 2.0, 3.0):
        assert traced(torch.full((3,), k)).tolist() == [1 + k] * 3


def test_a_graph_that_is_wrong_is_not_used(monkeypatch):
    def spoil(module):
        for node in module.graph.nodes:
            if node.target is torch.ops.aten.mul.Tensor:
                node.target = torch.ops.aten.add.Tensor
        module.recompile()
        return module

    monkeypatch.setattr(inspect.getmodule(trace), "clean", spoil)
    traced = trace(lambda x: x * 3, torch.ones(2))
    assert traced.reason == "the traced graph does not reproduce the function"
    assert traced(torch.full((2,), 2.0)).tolist() == [6.0, 6.0]


def test_cleaning_drops_work():
    """The one-query step of an MLP keeps at most two thirds of the traced operations."""
    from torch.fx.experimental.proxy_tensor import make_fx

    model = pt.made(lambda: dense(nn.Tanh()))
    layout = Layout(model)
    losses = RowLosses(model, plain_loss, layout)
    batch = batches(4)[0]

    def gradient(p):
        def mean(p):
            each = losses(p, batch)
            return each.mean(), each

        return torch.func.grad(mean, has_aux=True)(p)

    def function(theta, u):
        return torch.func.jvp(gradient, (theta,), (u,))

    theta = layout.theta(model)
    raw = make_fx(lambda a, b: torch.utils._pytree.tree_flatten(function(a, b))[0])(theta, theta)
    kept = trace(lambda a, b: torch.utils._pytree.tree_flatten(function(a, b))[0], theta, theta)
    assert kept.reason is None
    assert len(kept.graph.graph.nodes) <= 2 / 3 * len(raw.graph.nodes)
