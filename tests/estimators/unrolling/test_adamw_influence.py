"""AdamW-influence against its definition written out, the derivative of a training, replay, and retraining."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, FinfluenceError, NotSupportedError
from finfluence.runs import SGD, Adam, AdamW
from four_parts import assert_parts

OPTIMIZERS = [
    AdamW(lr=0.02, weight_decay=0.1),
    Adam(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
    SGD(lr=0.05, momentum=0.9),
]
AT = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=pt.DOUBLE)


def linear() -> nn.Module:
    return nn.Linear(4, 1, bias=False)


def quadratic(optimizer) -> tuple[fi.Recipe, fi.Query]:
    """½(⟨w, x⟩ − y)² of twelve rows: Gauss–Newton is the Hessian."""
    rows = pt.table()
    data = fi.Rows(x=rows.fields["x"], y=rows.fields["y"].double())
    described = pt.recipe(data=data, model=pt.made(linear), loss=pt.square_loss, optimizer=optimizer)
    return described, fi.Query(lambda m: (m.weight @ AT).sum(), name="at", sign=1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_on_a_quadratic_it_is_the_derivative_in_the_weight_of_a_row(optimizer):
    described, query = quadratic(optimizer)
    found = fi.estimate(fi.train(described), query, "adamw-influence", curvature="gauss-newton")

    def trained(weights: Tensor) -> float:
        model = pt.made(linear)
        order = described.order(0)
        torch_optimizer = {
            AdamW: partial(torch.optim.AdamW, lr=0.02, weight_decay=0.1),
            Adam: partial(torch.optim.Adam, lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
            SGD: partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        }[type(optimizer)](model.parameters())
        model, _ = pt.plain(described, model, order, torch_optimizer, weights=weights)
        return (model.weight @ AT).sum().item()

    width, ones = 1e-6, torch.ones(12, dtype=pt.DOUBLE)
    steps = width * torch.eye(12, dtype=pt.DOUBLE)
    right = np.array([(trained(ones - s) - trained(ones + s)) / (2 * width) for s in steps])
    np.testing.assert_allclose(
        found.data.score.values[:, 0], right, rtol=1e-5, atol=1e-7 * np.abs(right).max()
    )
    np.testing.assert_allclose(
        found.data.predicted_effect.values[:, 0], 12 * (right - right.mean()) / 11, rtol=1e-4, atol=1e-6
    )


def written_out(tape: fi.Tape, asked: Tensor, curvature: str) -> np.ndarray:
    """The definition with dense matrices: M_t = ∂U/∂s + ∂U/∂g C_t, of AdamW by its published update."""
    model, optimizer = tape.model(), tape.describe()["optimizer"]
    (first, second), lr, eps, decay = (optimizer[k] for k in ("betas", "lr", "eps", "weight_decay"))
    names = dict(model.named_parameters())
    size = sum(p.numel() for p in names.values())

    def split(theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([p.numel() for p in names.values()])
        return {n: part.view_as(p) for (n, p), part in zip(names.items(), parts, strict=True)}

    found = np.zeros(len(tape.rows))
    lam = torch.cat([asked, torch.zeros(2 * size, dtype=pt.DOUBLE)])
    for t in range(tape.steps - 1, -1, -1):
        state, rows = tape.state(t), tape.order[t]
        batch = {k: v[rows] for k, v in tape.rows.fields.items()}
        theta = state[:size]

        def outputs(p: Tensor, x: Tensor = batch["x"]) -> Tensor:
            return functional_call(model, split(p), (x,))

        def losses(p: Tensor, y: Tensor = batch["y"]) -> Tensor:
            return nn.functional.cross_entropy(outputs(p), y, reduction="none")

        gradients = jacrev(losses)(theta)
        if curvature == "empirical-fisher":
            metric = gradients.T @ gradients / len(rows)
        else:
            jacobian, p = jacrev(outputs)(theta), outputs(theta).softmax(1)
            inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
            metric = torch.einsum("bcp,bcd,bdq->pq", jacobian, inner, jacobian) / len(rows)

        def update(state: Tensor, g: Tensor, step: int = t + 1) -> Tensor:
            theta, m, v = state.split(size)
            m, v = first * m + (1 - first) * g, second * v + (1 - second) * g**2
            root = (v / (1 - second**step)).sqrt() + eps
            return torch.cat([theta - lr * (decay * theta + m / (1 - first**step) / root), m, v])

        g = gradients.mean(0)
        of_state, of_gradient = jacrev(update, argnums=(0, 1))(state, g)
        direction = lam @ of_gradient
        found[rows.numpy()] -= (gradients @ direction).numpy() / len(rows)
        lam = lam @ of_state
        lam[:size] += metric @ direction
    return found


@pytest.mark.parametrize("curvature", ["empirical-fisher", "gauss-newton"])
def test_it_is_its_definition_written_out(curvature):
    tape = fi.train(pt.recipe(optimizer=AdamW(lr=0.02, weight_decay=0.1)))
    query = fi.mean_loss(AT[None], torch.tensor([1]), name="one")
    model = tape.model()
    loss = nn.functional.cross_entropy(model(AT[None]), torch.tensor([1]))
    asked = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    found = fi.estimate(tape, query, "adamw-influence", curvature=curvature)
    right = written_out(tape, asked, curvature)
    assert np.abs(right).max() > 1e-3
    np.testing.assert_allclose(-found.data.score.values[:, 0], right, rtol=1e-8, atol=1e-12)


WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=pt.DOUBLE)


def own_loop(optimizer, weights: Tensor, by: Tensor, clip: float | None, record: bool) -> fi.Tape | nn.Module:
    """A loop that weighs the rows of each batch by their places; `weights` are of the rows themselves."""
    described, _ = quadratic(SGD(lr=0.1))
    model = pt.made(linear)
    steps = optimizer(model.parameters())
    recorder = (
        fi.Tape.record(model, steps, pt.square_loss, described.rows, clip_norm=clip) if record else None
    )
    for rows in described.order(0):
        batch = {k: v[rows] for k, v in described.rows.fields.items()}
        (weights[rows] * by * pt.square_loss(model, batch)).mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        steps.step()
        steps.zero_grad()
        if recorder:
            recorder.step(ids=rows, weights=[(by / 4).numpy()])
    return recorder.finish() if recorder else model


def test_weights_and_clipping_of_a_loop_of_ones_own_count():
    optimizer = partial(torch.optim.AdamW, lr=0.02, weight_decay=0.1)
    ones, width = torch.ones(12, dtype=pt.DOUBLE), 1e-6
    tape = own_loop(optimizer, ones, WEIGHTS, 0.5, True)
    _, query = quadratic(SGD(lr=0.1))
    found = fi.estimate(tape, query, "adamw-influence", curvature="gauss-newton").data.score.values[:, 0]

    def trained(weights: Tensor) -> float:
        return (own_loop(optimizer, weights, WEIGHTS, 0.5, False).weight @ AT).sum().item()

    steps = width * torch.eye(12, dtype=pt.DOUBLE)
    right = np.array([(trained(ones - s) - trained(ones + s)) / (2 * width) for s in steps])
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6 * np.abs(right).max())


def test_weights_twice_as_large_at_half_the_rate_change_nothing():
    ones, (_, query) = torch.ones(12, dtype=pt.DOUBLE), quadratic(SGD(lr=0.1))
    plain = own_loop(partial(torch.optim.SGD, lr=0.1), ones, WEIGHTS, None, True)
    twice = own_loop(partial(torch.optim.SGD, lr=0.05), ones, 2 * WEIGHTS, None, True)
    scores = [fi.estimate(tape, query, "adamw-influence").data.score.values for tape in (plain, twice)]
    np.testing.assert_allclose(*scores, rtol=1e-9)


def test_states_that_were_not_kept_are_recomputed_to_the_same_bits():
    described = pt.recipe(optimizer=AdamW(lr=0.02), epochs=6)
    tapes = fi.train(described), fi.train(described, snapshot_bytes=6000)
    assert tapes[0].interval == 1 < tapes[1].interval
    every, few = (fi.estimate(tape, fi.own_loss([0]), "adamw-influence") for tape in tapes)
    np.testing.assert_array_equal(every.data.score.values, few.data.score.values)


@pytest.mark.slow
def test_it_predicts_retraining_of_a_network():
    """Forty rows by full batches: the effect of leaving out each row, exactly retrained."""
    rows = pt.table(40)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(30) % 3

    def trained(kept: list[int]) -> fi.Tape:
        data = fi.Rows(**{k: v[kept] for k, v in rows.fields.items()})
        return fi.train(
            pt.recipe(data=data, batch_size=len(kept), epochs=60, optimizer=AdamW(lr=0.01, eps=0.01))
        )

    def loss_of(tape: fi.Tape) -> float:
        with torch.no_grad():
            return nn.functional.cross_entropy(tape.model()(x), y).item()

    tape = trained(list(range(40)))
    truth = [loss_of(trained([k for k in range(40) if k != i])) - loss_of(tape) for i in range(40)]
    query = fi.mean_loss(x, y, name="held-out")
    agreement = {"replay": fi.replay(tape, query, method="full").data.effect.values[:, 0]}
    for curvature in ("gauss-newton", "empirical-fisher"):
        found = fi.estimate(tape, query, "adamw-influence", curvature=curvature)
        agreement[curvature] = found.data.predicted_effect.values[:, 0]
        assert 0.8 < np.polyfit(agreement[curvature], truth, 1)[0] < 1.25
    r = {name: np.corrcoef(predicted, truth)[0, 1] for name, predicted in agreement.items()}
    print(r)
    assert min(r.values()) > 0.8 and r["gauss-newton"] > 0.87


def test_what_it_cannot_do_is_said():
    with pytest.raises(ConfigError) as caught:
        fi.estimate(fi.train(pt.recipe()), fi.own_loss([0]), "adamw-influence", curvature="hessian")
    assert_parts(caught.value, "curvature to be", "'hessian'", "mistyped", "use one of these")

    def detached(model, batch):
        losses = pt.class_loss(model, batch)
        return (1 - torch.exp(-losses.detach())) ** 2 * losses

    with pytest.raises(FinfluenceError, match="gradient is the derivative of its value"):
        fi.estimate(fi.train(pt.recipe(loss=detached)), fi.own_loss([0]), "adamw-influence")

    def with_penalty(model, batch):
        return pt.class_loss(model, batch) + sum(p.pow(2).sum() for p in model.parameters())

    with pytest.raises(NotSupportedError, match="through the model's outputs alone"):
        fi.estimate(
            fi.train(pt.recipe(loss=with_penalty)),
            fi.own_loss([0]),
            "adamw-influence",
            curvature="gauss-newton",
        )
