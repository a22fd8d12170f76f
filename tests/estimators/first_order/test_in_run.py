"""Influence taken in hooks while a loop trains, against row gradients taken one by one, and loops that are refused."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import finfluence as fi
from finfluence.errors import ConfigError, DataError, NotSupportedError, TrainingError
from finfluence.runs import seeded
from plain_training import class_loss, made, mlp, table

STEPS = 5
Split = Callable[[Tensor], list[Tensor]]


def whole(ids: Tensor) -> list[Tensor]:
    return [ids]


def uneven(ids: Tensor) -> list[Tensor]:
    return list(ids.split([1, len(ids) - 1]))


def order(rows: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randperm(rows, generator=generator)[: 4 + t % 3] for t in range(STEPS)]


def asked(rows: Any) -> list[Any]:
    x, y = rows.fields["x"], rows.fields["y"]
    return [fi.each_loss(x[:3] + 0.1, y[:3]), fi.mean_loss(x[3:] - 0.1, y[3:], name="mean")]


class Loop:
    """A user's loop: micro-batches cut by `split`, whose mean losses are averaged."""

    def __init__(
        self, rows: Any, split: Split = whole, loss: Any = class_loss, clip: float | None = None
    ) -> None:
        self.rows, self.split, self.loss, self.clip = rows, split, loss, clip

    def train(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, named: Any = None, before: Any = None
    ) -> None:
        with seeded(7):
            for t, ids in enumerate(order()):
                for group in optimizer.param_groups:
                    group["lr"] *= 0.9
                parts = self.split(ids)
                for part in parts:
                    (self.loss(model, self.rows.batch(part)).mean() / len(parts)).backward()
                if self.clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                if before is not None:
                    before(t, model, optimizer)
                optimizer.step()
                optimizer.zero_grad()
                if named is not None:
                    named(ids=parts if len(parts) > 1 else ids)


def gradient(model: nn.Module, value: Tensor) -> list[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]


def by_hand(
    loop: Loop, model: nn.Module, optimizer: torch.optim.Optimizer, every: int = 1
) -> dict[str, np.ndarray]:
    """φ, cosines and own influence of every row, each gradient by itself; the optimiser's own state read off torch's."""
    rows, queries = loop.rows, asked(loop.rows)
    phi = np.zeros((len(rows), 4))
    found = {"dot": phi, "cosine": np.zeros_like(phi), "own": np.zeros(len(rows))}
    held: dict[str, Any] = {}
    rate = optimizer.param_groups[0]
    ids_of = order()

    def before(t: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        step = [None if p.grad is None else p.grad.clone() for p in parameters]
        if t % every == 0:
            task = type("Task", (), {"rows": rows, "loss": staticmethod(loop.loss)})
            was = model.training
            model.eval()
            held["queries"] = [gradient(model, v) for q in queries for v in q.values(model, task)]
            model.train(was)
            held["scale"] = [divided(optimizer, p, g) for p, g in zip(parameters, step, strict=True)]
        parts = loop.split(ids_of[t])
        true = [torch.zeros_like(p) for p in parameters]
        rows_of = []
        for part in parts:
            for i in part:
                each = gradient(model, loop.loss(model, rows.batch(i[None])).sum())
                factor = 1.0 / len(part) / len(parts)
                true = [a + factor * g for a, g in zip(true, each, strict=True)]
                rows_of.append((int(i), factor, each))
        norm = torch.cat([g.flatten() for g in true]).norm()
        clip = 1.0 if loop.clip is None else float(min(1.0, loop.clip / (norm + 1e-6)))
        for i, factor, each in rows_of:
            length = torch.cat([g.flatten() for g in each]).norm()
            found["own"][i] += rate["lr"] * clip * factor * float(length**2)
            for q, direction in enumerate(held["queries"]):
                moved = sum(
                    float((u * s * g).sum()) for u, s, g in zip(direction, held["scale"], each, strict=True)
                )
                found["dot"][i, q] += moved * factor * clip * numerator(optimizer, parameters[0])
                plain = sum(float((u * g).sum()) for u, g in zip(direction, each, strict=True))
                size = torch.cat([u.flatten() for u in direction]).norm()
                found["cosine"][i, q] -= rate["lr"] * plain / float(size * length)

    loop.train(model, optimizer, before=before)
    return found


def numerator(optimizer: torch.optim.Optimizer, p: Tensor) -> float:
    group, state = optimizer.param_groups[0], optimizer.state.get(p, {})
    if isinstance(optimizer, torch.optim.SGD):
        fresh = 1.0 if "momentum_buffer" not in state else 1.0 - group["dampening"]
        if not group["momentum"]:
            return -group["lr"]
        return -group["lr"] * (1 + group["momentum"] * fresh if group["nesterov"] else fresh)
    first = group["betas"][0]
    return -group["lr"] * (1 - first) / (1 - first ** (int(state.get("step", 0)) + 1))


def divided(optimizer: torch.optim.Optimizer, p: Tensor, grad: Tensor | None) -> Tensor:
    if isinstance(optimizer, torch.optim.SGD):
        return torch.ones_like(p)
    group, state = optimizer.param_groups[0], optimizer.state.get(p, {})
    second = group["betas"][1]
    square = second * state.get("exp_avg_sq", torch.zeros_like(p)) + (1 - second) * grad**2  # type: ignore[operator]
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        square = torch.maximum(square, state["max_exp_avg_sq"])
    correct = 1 - second ** (int(state.get("step", 0)) + 1)
    return torch.where(square > 0, 1 / ((square / correct).sqrt() + group["eps"]), 0.0)


def sgd(**options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.SGD(m.parameters(), **{"lr": 0.1, **options})


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda h: self.middle(h).tanh(), self.first(x), use_reentrant=self.reentrant)
        return self.last(hidden)


class Bare(nn.Module):
    """A parameter of no layer: its row gradients are written out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


class Shared(nn.Module):
    """One layer called twice, whose weight a frozen layer's output goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.below.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.layer(self.below(x)).relu_()))


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Split, dict[str, Any]]] = {
    "sgd": (mlp, sgd(), whole, {}),
    "momentum, micro-batches": (mlp, sgd(momentum=0.9, dampening=0.3), uneven, {}),
    "nesterov, held queries": (mlp, sgd(momentum=0.9, nesterov=True), uneven, {"every": 3}),
    "adamw": (mlp, lambda m: torch.optim.AdamW(m.parameters(), lr=0.01), uneven, {}),
    "adam, held": (mlp, lambda m: torch.optim.Adam(m.parameters(), lr=0.01), whole, {"every": 2}),
    "amsgrad": (mlp, lambda m: torch.optim.Adam(m.parameters(), lr=0.01, amsgrad=True), whole, {}),
    "checkpointed": (lambda: Checkpointed(False), sgd(), uneven, {}),
    "checkpointed, reentrant": (lambda: Checkpointed(True), sgd(), uneven, {}),
    "bare parameter": (Bare, sgd(), uneven, {}),
    "shared": (Shared, lambda m: torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1), whole, {}),
    "clipped": (mlp, sgd(), whole, {"clip_norm": 0.05}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_row_gradients_by_hand_and_the_training_is_the_same(case):
    factory, optimizer_of, split, options = CASES[case]
    loop, base = Loop(table(), split, clip=options.get("clip_norm")), made(factory)
    plain, followed, other = copy.deepcopy(base), copy.deepcopy(base), copy.deepcopy(base)
    loop.train(plain, optimizer_of(plain))
    optimizer = optimizer_of(followed)
    run = fi.InRun(
        followed, optimizer, class_loss, loop.rows, asked(loop.rows), own=True, **{"every": 1, **options}
    )
    loop.train(followed, optimizer, run.step)
    result = run.finish()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), followed.parameters(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in followed.modules())
    assert not optimizer._optimizer_step_pre_hooks
    other.reentrant = False  # that form takes no autograd.grad
    true = by_hand(loop, other, optimizer_of(other), options.get("every", 1))
    scale = np.abs(true["dot"]).max()
    found = result.data.predicted_effect.values
    np.testing.assert_allclose(found[:, :4], -true["dot"], atol=1e-9 * scale)
    np.testing.assert_allclose(found[:, 4], true["own"], rtol=1e-6)
    np.testing.assert_allclose(
        result.data.score.values[:, :4], true["dot"], atol=1e-9 * scale
    )  # losses: sign −1
    assert result.provenance.details["written_out"] == (["scale"] if case == "bare parameter" else [])


def test_cosines_are_those_of_row_gradients_by_hand():
    loop, base = Loop(table(), uneven), made(Shared)
    followed, other = copy.deepcopy(base), copy.deepcopy(base)
    optimizer = CASES["shared"][1](followed)
    run = fi.InRun(followed, optimizer, class_loss, loop.rows, asked(loop.rows), every=1, product="cosine")
    loop.train(followed, optimizer, run.step)
    true = by_hand(loop, other, CASES["shared"][1](other))
    np.testing.assert_allclose(run.finish().data.score.values, true["cosine"], atol=1e-9)


def test_single_precision_is_exact_to_a_few_roundings():
    loop, base = Loop(table(dtype=torch.float32)), made(mlp, dtype=torch.float32)
    followed, other = copy.deepcopy(base), copy.deepcopy(base)
    optimizer = sgd()(followed)
    run = fi.InRun(followed, optimizer, class_loss, loop.rows, asked(loop.rows), every=1)
    loop.train(followed, optimizer, run.step)
    true = by_hand(loop, other, sgd()(other))["dot"]
    np.testing.assert_allclose(run.finish().data.score.values, true, atol=1e-5 * np.abs(true).max())


def test_dropout_has_the_mask_of_the_step():
    """One row a step, so that its gradient is the step's: read off the model's own."""
    rows, model = table(), made(lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    optimizer = sgd()(model)
    query = fi.Query(lambda m: m[0].weight.sum() + m[2].weight.sum() * 2, name="weights")
    run = fi.InRun(model, optimizer, class_loss, rows, query, every=1)
    true = np.zeros(12)
    with seeded(3):
        for i in range(6):
            ids = torch.tensor([i])
            class_loss(model, rows.batch(ids)).mean().backward()
            true[i] = 0.1 * float(model[0].weight.grad.sum() + 2 * model[2].weight.grad.sum())
            optimizer.step()
            optimizer.zero_grad()
            run.step(ids=ids)
    result = run.finish({"all": [0, 1, 2, 3, 4, 5]})
    np.testing.assert_allclose(result.data.predicted_effect.values.ravel(), [true.sum()])
    assert any("random numbers" in finding for finding in result.provenance.findings)


def follow(
    model: nn.Module, rows: Any = None, optimizer: Any = None, loss: Any = class_loss, **options: Any
) -> Any:
    rows = table() if rows is None else rows
    optimizer = sgd()(model) if optimizer is None else optimizer
    return fi.InRun(model, optimizer, loss, rows, asked(table()), **options), optimizer


def test_models_that_cannot_be_followed_are_refused_before_the_first_step():
    norm = made(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    with pytest.raises(NotSupportedError, match=r"(?s)batch normalisation mixes the rows"):
        follow(norm)
    compiled = nn.Sequential(torch.compile(made(mlp), backend="eager"))
    with pytest.raises(
        NotSupportedError, match=r"(?s)compiled code at '0'.*follow the model before it is compiled"
    ):
        follow(compiled)
    with pytest.raises(NotSupportedError, match=r"(?s)torch.optim.SGD, Adam or AdamW.*RMSprop"):
        follow(made(mlp), optimizer=torch.optim.RMSprop(made(mlp).parameters()))
    dropped = made(lambda: nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Dropout(0.5)))
    with pytest.raises(NotSupportedError, match=r"(?s)none that do for '1.weight'.*another dropout mask"):
        follow(dropped)
    with pytest.raises(ConfigError, match=r"(?s)every to be a whole number"):
        follow(made(mlp), every=0)
    with pytest.raises(ConfigError, match=r"(?s)clip_norm to be a number above 0"):
        follow(made(mlp), clip_norm=0.0)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Any, loss: Any = None) -> None:
    value = class_loss(model, table().batch(torch.as_tensor(ids))).mean() if loss is None else loss
    value.backward()
    optimizer.step()
    optimizer.zero_grad()


def penalised(model: nn.Module) -> Tensor:
    return class_loss(model, table().batch(torch.arange(4))).mean() + model[0].weight.pow(2).sum()


def test_a_step_that_is_not_the_sum_of_its_rows_is_an_error():
    model = made(mlp)
    run, optimizer = follow(model)
    one_step(model, optimizer, [0, 1, 2, 3], penalised(model))
    with pytest.raises(
        TrainingError, match=r"(?s)to be the sum of what the backward passes.*at step 0.*a penalty is added"
    ):
        run.step(ids=[0, 1, 2, 3])
    with pytest.raises(TrainingError, match=r"(?s)a penalty is added"):
        run.finish()
    model = made(mlp)
    run, optimizer = follow(model)
    for t in range(3):
        one_step(model, optimizer, [0, 1], penalised(model) if t == 2 else None)
        if t < 2:
            run.step(ids=[0, 1])
    with pytest.raises(TrainingError, match=r"(?s)at step 2, along .* in 'all parameters'"):
        run.step(ids=[0, 1, 2, 3])


def test_other_rows_weights_and_modes_are_found_from_the_data():
    for ids, told, words in (
        ([4, 5, 6, 7], {}, "ids of another batch"),
        ([0, 1, 2, 3], {"weights": [4.0]}, r"(?s)0\.25 times the mean over these rows.*weights="),
    ):
        model = made(mlp)
        run, optimizer = follow(model)
        one_step(model, optimizer, [0, 1, 2, 3])
        with pytest.raises(TrainingError, match=words):
            run.step(ids=ids, **told)
    model = made(mlp)
    run, optimizer = follow(model)
    one_step(model, optimizer, [], class_loss(model, table().batch(torch.arange(4))).sum())
    run.step(ids=[0, 1, 2, 3], weights=[4.0])
    assert run.finish().data.sizes["subset"] == 12


def test_calls_out_of_order_are_named():
    model = made(mlp)
    run, optimizer = follow(model)
    with pytest.raises(TrainingError, match=r"(?s)a step of the optimiser before each run\.step"):
        run.step(ids=[0])
    model = made(mlp)
    run, optimizer = follow(model)
    one_step(model, optimizer, [0, 1])
    one_step(model, optimizer, [2, 3])
    with pytest.raises(TrainingError, match=r"(?s)call run.step.* right after optimizer.step"):
        run.step(ids=[2, 3])
    run, optimizer = follow(made(mlp))
    with pytest.raises(ConfigError, match=r"(?s)run.finish.* was called before the loop"):
        run.finish()
    with pytest.raises(ConfigError, match=r"(?s)follow a second training"):
        run.step(ids=[0])
    model = made(mlp)
    run, optimizer = follow(model)
    one_step(model, optimizer, [0, 1])
    with pytest.raises(DataError, match=r"(?s)unknown at step 0"):
        run.step(ids=[0, 99])
    model = made(mlp)
    run, optimizer = follow(model)
    one_step(model, optimizer, [0, 1])
    with pytest.raises(ConfigError, match=r"(?s)one weight for each of 1 micro-batches"):
        run.step(ids=[0, 1], weights=[0.5, 0.5])
    model = made(mlp)
    run, optimizer = follow(model)
    one_step(model, optimizer, [0, 1])
    with pytest.raises(TrainingError, match=r"(?s)rows named.* entries in a layer"):
        run.step(ids=[0, 1, 2, 3, 4])
    model = made(mlp)
    run, optimizer = follow(model)
    for _ in range(2):
        one_step(model, optimizer, [0, 1])
        run.step(ids=[0, 1])
    one_step(model, optimizer, [0, 1, 2, 3])
    with pytest.raises(TrainingError, match=r"(?s)the 2 rows named.*4 entries in a layer"):
        run.step(ids=[0, 1])


def test_autocast_is_refused():
    rows = table(dtype=torch.float32)
    model = made(mlp, dtype=torch.float32)
    optimizer = sgd()(model)
    run = fi.InRun(model, optimizer, class_loss, rows, asked(rows))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = class_loss(model, rows.batch(torch.arange(4))).mean()
    value.backward()
    optimizer.step()
    with pytest.raises(NotSupportedError, match=r"(?s)autocast is on"):
        run.step(ids=[0, 1, 2, 3])


def test_checkpointed_parts_of_several_passes_before_a_backward_are_refused():
    model = made(lambda: Checkpointed(True))
    run, optimizer = follow(model)
    rows = table()
    losses = [class_loss(model, rows.batch(torch.tensor(ids))).mean() for ids in ([0, 1], [2, 3])]
    (sum(losses) / 2).backward()
    optimizer.step()
    with pytest.raises(NotSupportedError, match=r"(?s)several forward passes before one"):
        run.step(ids=[[0, 1], [2, 3]])


def test_a_gradient_scaler_is_divided_out_and_steps_that_it_skips_are_left_out():
    rows, base = table(dtype=torch.float32), made(mlp, dtype=torch.float32)
    plain, scaled = copy.deepcopy(base), copy.deepcopy(base)
    first, second = sgd()(plain), sgd()(scaled)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    direct = fi.InRun(plain, first, class_loss, rows, asked(rows), own=True)
    run = fi.InRun(scaled, second, class_loss, rows, asked(rows), own=True, scaler=scaler)
    for t, ids in enumerate(order()):
        if t != 2:
            class_loss(plain, rows.batch(ids)).mean().backward()
            first.step()
            first.zero_grad()
            direct.step(ids=ids)
        loss = class_loss(scaled, rows.batch(ids)).mean() * (torch.inf if t == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(second)
        scaler.update()
        second.zero_grad()
        run.step(ids=ids)
    one, other = direct.finish(), run.finish()
    scale = np.abs(one.data.score.values).max()
    np.testing.assert_allclose(other.data.score.values, one.data.score.values, atol=1e-5 * scale)
    assert (run.steps, other.provenance.details["skipped_steps"]) == (STEPS - 1, 1)


def test_a_copy_of_the_model_made_on_the_way_is_not_followed():
    model = made(mlp)
    run, optimizer = follow(model)
    average = copy.deepcopy(model)
    one_step(model, optimizer, [0, 1])
    class_loss(average, table().batch(torch.arange(4))).mean().backward()
    run.step(ids=[0, 1])
    assert run.steps == 1
    assert run.finish().provenance.details["steps"] == 1
