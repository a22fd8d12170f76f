"""The backward walk against finite differences of the whole training, in float64, relative 1e-5.

Training is written again with a weight on every row's loss; d q(θ_T)/d w_i by central differences is compared with
Σ_{t: i∈B_t} x_{t,i}/B from the walk, for single rows and along random directions over all rows; so is d q(θ_T)/dθ_0
along a random direction with λ_0.
"""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.estimators.derivatives import Adjoint
from finfluence.grads import RowLosses

STEP = 3e-5
TOLERANCE = 1e-5


def walked(tape: fr.Tape, queries: list[fr.AnyQuery]) -> tuple[np.ndarray, Tensor, str]:
    """Return d q/d w [n, Q], λ_0 [Q, 1+S, P] and how it ran."""
    recipe, stepper = tape.recipe, tape.stepper
    model = tape.model()
    _, start = fr.gradients(queries, model, recipe, stepper.layout.parameters(model))
    lam = torch.zeros(len(start), 1 + len(recipe.optimizer.slots), stepper.layout.size, dtype=start.dtype)
    lam[:, 0] = start
    adjoint = Adjoint(
        RowLosses(stepper.model, recipe.loss, stepper.layout), recipe.optimizer, stepper.stochastic
    )
    out = torch.zeros(len(recipe.rows), len(start), dtype=pt.DOUBLE)
    with fr.seeded(0):
        for t in reversed(range(tape.steps)):
            rows = tape.order[t]
            hyper = torch.tensor(recipe.optimizer.hyper(t, recipe.rate(t)), dtype=stepper.layout.dtype)
            seed = fr.step_seed(tape.order_seed, t) if stepper.stochastic else None
            lam, slopes, _ = adjoint.step(tape.state(t), hyper, stepper.batch(rows), lam, seed)
            out.index_add_(0, rows, slopes.T.double() / len(rows))
    return out.numpy(), lam, adjoint.engine


def queried(recipe: fr.Recipe, model: nn.Module, queries: list[fr.AnyQuery]) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return torch.cat([q.values(model, recipe) for q in queries]).numpy()


def differences(recipe: fr.Recipe, torch_optimizer, queries, start: nn.Module, direction=None) -> np.ndarray:
    """Central differences of the whole training: along directions of row weights [4, Q], or in θ_0 [Q]."""
    order, rates = recipe.order(0), [recipe.rate(t) for t in range(recipe.steps)]

    def outcome(weights: Tensor, shift: float = 0.0) -> np.ndarray:
        model = copy.deepcopy(start)
        if direction is not None:
            with torch.no_grad():
                position = 0
                for p in model.parameters():
                    if p.requires_grad:
                        p += shift * direction[position : position + p.numel()].view_as(p)
                        position += p.numel()
        optimizer = torch_optimizer([p for p in model.parameters() if p.requires_grad])
        pt.plain(recipe, model, order, optimizer, rates, weights, order_seed=0)
        return queried(recipe, model, queries)

    ones = torch.ones(len(recipe.rows), dtype=pt.DOUBLE)
    if direction is not None:
        return (outcome(ones, STEP) - outcome(ones, -STEP)) / (2 * STEP)
    shifts = STEP * weight_directions(len(ones))
    return np.stack([(outcome(ones + shift) - outcome(ones - shift)) / (2 * STEP) for shift in shifts])


def weight_directions(rows: int) -> Tensor:
    """Two single rows and two random directions over all rows [4, n]."""
    random = torch.randn(2, rows, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(1))
    return torch.cat([torch.eye(rows, dtype=pt.DOUBLE)[[0, rows - 1]], random])


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """Every entry is within 1e-5, relative to itself or to a hundredth of the query's largest."""
    assert (np.abs(want).max(0) > 1e-6).all()
    scale = np.maximum(np.abs(want), 0.01 * np.abs(want).max(0))
    assert (np.abs(got - want) / scale).max() <= TOLERANCE, (got, want)


def assert_adjoint(recipe: fr.Recipe, torch_optimizer, queries, engine: str = "traced") -> None:
    tape = fi.train(recipe, seed=0)
    weights, lam, ran = walked(tape, queries)
    assert ran.startswith(engine), ran
    start = tape.model(0)
    along = weight_directions(len(recipe.rows)).numpy() @ weights
    assert_close(along, differences(recipe, torch_optimizer, queries, start))
    direction = torch.randn(lam.shape[2], dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(2))
    direction /= direction.norm()
    along = differences(recipe, torch_optimizer, queries, start, direction)
    assert_close((lam[:, 0] @ direction).numpy()[None], along[None])


def some_queries(rows: fr.Rows, count: int) -> list[fr.AnyQuery]:
    held = rows.batch(torch.arange(4))
    fields = {k: v for k, v in held.items() if k not in ("id", "x", "y")}
    shift = 0.3 if held["x"].is_floating_point() else 0
    mean = fi.mean_loss(held["x"] + shift, held["y"], name="held-out", **fields)
    if count == 1:
        return [mean]
    weights = fi.Query(lambda m: sum((p**3).sum() for p in m.parameters()), name="cubes", sign=1)
    return [mean, fi.own_loss([2, 7]), weights]


SEVERAL = [(name, 4, "linear", False) for name in pt.OPTIMIZERS]
ALONE = [(name, 1, "cosine", True) for name in ("sgd-decay", "dampening", "adam-l2", "adamw")]


@pytest.mark.parametrize(("name", "count", "schedule", "drop_last"), SEVERAL + ALONE)
@pytest.mark.quick(4)
def test_every_optimizer(name, count, schedule, drop_last):
    ours, theirs = pt.OPTIMIZERS[name]
    rows = pt.table(10)
    recipe = pt.recipe(
        data=rows, optimizer=ours, schedule=schedule, drop_last=drop_last, epochs=4,
        sampling="reshuffle" if count == 1 else "independent",
    )  # fmt: skip
    assert_adjoint(recipe, theirs, some_queries(rows, count))


class Attention(nn.Module):
    """Embedding, layer norm, attention, GELU, and an output tied to the embedding."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm(4)
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True) if kind == "layer" else nn.Linear(4, 12)
        self.up = nn.Linear(4, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.embed(x))
        if self.kind == "layer":
            h = h + self.mix(h, h, h, need_weights=False)[0]
        else:
            q, k, v = (a.unflatten(-1, (2, 2)).transpose(1, 2) for a in self.mix(h).chunk(3, -1))
            a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + a.transpose(1, 2).flatten(2)
        return self.out(nn.functional.gelu(self.up(h)))


def token_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["x"]).transpose(1, 2)
    return nn.functional.cross_entropy(logits, batch["y"], reduction="none").mean(1)


def tokens(n: int = 8) -> fr.Rows:
    rng = np.random.default_rng(0)
    return fr.Rows(
        x=torch.from_numpy(rng.integers(0, 6, (n, 5))), y=torch.from_numpy(rng.integers(0, 6, (n, 5)))
    )


@pytest.mark.parametrize(("kind", "count"), [("layer", 1), ("layer", 4), ("function", 4)])
@pytest.mark.quick(1)
def test_attention_with_tied_weights(kind, count):
    """The key bias has no gradient but rounding: with a small eps, Adam's step there is not smooth on STEP's scale."""
    ours = fr.AdamW(lr=0.02, weight_decay=0.1, eps=1e-3)

    def theirs(parameters):
        return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1, eps=1e-3)

    model = pt.made(lambda: Attention(kind))
    recipe = pt.recipe(data=tokens(), model=model, loss=token_loss, optimizer=ours)
    assert len(fr.Stepper(recipe, model, 0).layout.names) == len(list(model.parameters()))
    assert_adjoint(recipe, theirs, some_queries(tokens(), count))


@pytest.mark.parametrize("name", ["nesterov", "adam-l2"])
def test_convolutions(name):
    def conv():
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2), nn.SiLU(), nn.GroupNorm(2, 4),
            nn.Conv2d(4, 3, 1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 3),
        )  # fmt: skip

    rng = np.random.default_rng(1)
    rows = fr.Rows(
        x=torch.from_numpy(rng.normal(size=(8, 2, 4, 4))), y=torch.from_numpy(rng.integers(0, 3, 8))
    )
    ours, theirs = pt.OPTIMIZERS[name]
    recipe = pt.recipe(data=rows, model=pt.made(conv), optimizer=ours, schedule="cosine")
    assert_adjoint(recipe, theirs, some_queries(rows, 4))


class Branching(nn.Module):
    """Python control flow on values, and rows picked by a mask."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.body, self.head = kind, nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "branch":
            h = torch.tanh(self.body(x))
            return self.head(h if float(x.detach().sum()) > 0 else 2 * h)
        picked = x[:, 0] > 0
        h = torch.zeros(len(x), 5, dtype=x.dtype)
        return self.head(torch.index_put(h, (picked.nonzero()[:, 0],), torch.tanh(self.body(x[picked]))))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", ["branch", "mask"])
def test_data_dependent_models_run_untraced(kind, count):
    ours, theirs = pt.OPTIMIZERS["momentum"]
    rows = pt.table(10)
    recipe = pt.recipe(data=rows, model=pt.made(lambda: Branching(kind)), optimizer=ours)
    assert_adjoint(recipe, theirs, some_queries(rows, count), engine="eager: ")


@pytest.mark.parametrize("count", [1, 4])
def test_dropout_with_the_same_draws(count):
    def dropping():
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))

    ours, theirs = pt.OPTIMIZERS["adamw"]
    rows = pt.table(10)
    recipe = pt.recipe(data=rows, model=pt.made(dropping), optimizer=ours)
    assert_adjoint(recipe, theirs, some_queries(rows, count), engine="eager: the loss draws random numbers")


def test_frozen_and_unused_parameters():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.body, self.unused, self.head = (
                nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(2, 3), nn.Linear(5, 3)
            )  # fmt: skip
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.head(torch.tanh(self.body(self.frozen(x))))

    ours, theirs = pt.OPTIMIZERS["adam"]
    rows = pt.table(10)
    recipe = pt.recipe(data=rows, model=pt.made(Partly), optimizer=ours)
    assert_adjoint(recipe, theirs, some_queries(rows, 1))


def quadratic_tape(epochs: int = 50) -> fr.Tape:
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    rows = fr.Rows(x=torch.ones(4, 1, dtype=pt.DOUBLE), y=torch.tensor([0.0, 0, 0, 4], dtype=pt.DOUBLE))
    return fi.train(
        fr.Recipe(
            data=rows, model=model, loss=pt.square_loss, optimizer=fr.SGD(lr=0.1), batch_size=4, epochs=epochs
        )
    )


def test_response_of_the_mean_of_four():
    """D = {0,0,0,4}, full batch, lr 0.1, 50 steps: θ_T = 1 − 0.9⁵⁰, and N·dθ_T/d(−w_4) = −3.0131708 in closed form."""
    tape = quadratic_tape()
    level = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
    assert math.isclose(tape.state()[0], 0.9948462247926799, rel_tol=1e-12)
    slopes, _, _ = walked(tape, [level])
    closed = -3 * (1 - 0.9**50) - 50 * 0.1 * 0.9**49
    assert math.isclose(-4 * slopes[3, 0], closed, rel_tol=1e-10) and round(closed, 7) == -3.0131708


def test_row_derivatives_need_no_more_than_the_direction():
    """`row_derivatives` gives ⟨u, ∇ℓ_i⟩ of a per-row loop, for one direction and for several."""
    described = pt.recipe()
    tape = fi.train(described)
    layout, rows = tape.stepper.layout, described.rows.batch(torch.arange(12))
    losses = RowLosses(tape.stepper.model, described.loss, layout)
    adjoint = Adjoint(losses, described.optimizer)
    theta = tape.state(3)
    point = theta.clone().requires_grad_(True)
    per_row = torch.stack(
        [torch.autograd.grad(loss, point, retain_graph=True)[0] for loss in losses(point, rows)]
    )
    for count in (1, 5):
        u = torch.randn(count, layout.size, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(count))
        torch.testing.assert_close(
            adjoint.row_derivatives(theta, u, rows), u @ per_row.T, rtol=1e-12, atol=1e-14
        )
