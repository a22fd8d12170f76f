"""Influence functions against closed forms and against training again without the row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators import method_class
from finfluence.estimators.influence_functions import Explicit

X = torch.tensor([[1.0, 0], [1, 1], [1, 2], [1, 3]], dtype=torch.float64)
Y = torch.tensor([0.0, 1, 2, 5], dtype=torch.float64)
EXACT = ("if-explicit", "if-cg", "if-lissa", "if-arnoldi", "if-kfac", "if-ekfac-cg")
PREDICTION = [0.0, 0.0427350, 0.3247863, -0.8461538]


def square_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return 0.5 * (model(batch["x"])[:, 0] - batch["y"]) ** 2


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


@pytest.fixture(scope="module")
def ridge() -> fi.Tape:
    """Sum of ½e² and ½‖w‖²: as a mean loss, a weight decay of ¼; trained to ŵ = (0, 4/3)."""
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    recipe = fi.Recipe(
        data=fi.Rows(x=X, y=Y), model=model, loss=square_loss, optimizer=fi.SGD(lr=0.2, weight_decay=0.25),
        batch_size=4, epochs=400,
    )  # fmt: skip
    return fi.train(recipe)


def prediction() -> fi.Query:
    x = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    return fi.Query(lambda m: m(x)[0, 0], name="prediction", sign=+1)


def squared_error() -> fi.Query:
    x = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    return fi.Query(lambda m: 0.5 * (m(x)[0, 0] - 6.0) ** 2, name="loss")


def test_ridge_ends_where_it_should(ridge):
    torch.testing.assert_close(
        ridge.final_state()[:2], torch.tensor([0.0, 4 / 3]).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("method", EXACT)
def test_ridge(ridge, method):
    options = {"tolerance": 1e-10} if method in ("if-cg", "if-lissa", "if-ekfac-cg") else {}
    found = fi.estimate(ridge, [prediction(), squared_error()], method, damping=0.0, **options)
    np.testing.assert_allclose(found.data.score.values[:, 0], PREDICTION, atol=2e-6)
    np.testing.assert_allclose(
        -found.data.score.values[:, 1], [0, -0.02849, -0.2165242, 0.5641026], atol=2e-6
    )
    assert found.provenance.details["weight_decay"] == 0.25 and found.provenance.details["damping"] == 0.0
    assert not any("did not end at a minimum" in text for text in found.provenance.findings)


def test_own_influence_of_ridge(ridge):
    found = fi.estimate(ridge, fi.own_loss([0, 1, 2, 3]), "if-explicit", damping=0.0)
    own = -np.diag(found.data.score.values)  # removing a row raises its own loss: it is helpful there
    np.testing.assert_allclose(own, [0, 0.0227920, 0.1253561, 0.6153846], atol=2e-6)


def test_the_influence_function_of_ridge_is_the_truth_times_one_minus_leverage(ridge):
    found = fi.estimate(ridge, prediction(), "if-explicit", damping=0.0).data.score.values[:, 0]
    inverse = np.linalg.inv(X.numpy().T @ X.numpy() + np.eye(2))
    residual = X.numpy() @ [0, 4 / 3] - Y.numpy()
    leverage = np.einsum("ij,jk,ik->i", X.numpy(), inverse, X.numpy())
    truth = X.numpy() @ inverse @ [1.0, 4.0] * residual / (1 - leverage)
    np.testing.assert_allclose(found, truth * (1 - leverage), atol=1e-6)


def logistic(n: int = 60, decay: float = 0.0) -> fi.Recipe:
    rng = np.random.default_rng(2)
    x = torch.from_numpy(np.c_[rng.normal(size=(n, 3)), np.ones(n)])
    y = torch.from_numpy((x[:, 0].numpy() + rng.logistic(size=n) > 0).astype(int))
    return fi.Recipe(
        data=fi.Rows(x=x, y=y), model=nn.Linear(4, 2, bias=False, dtype=torch.float64), loss=class_loss,
        optimizer=fi.SGD(lr=1.0, weight_decay=decay), batch_size=n, epochs=1500,
    )  # fmt: skip


def minimum(x: Tensor, y: Tensor, decay: float) -> Tensor:
    """Return the weights that minimise the mean loss, by Newton's method."""
    w = torch.zeros(2, 4, dtype=torch.float64)

    def objective(flat: Tensor) -> Tensor:
        return nn.functional.cross_entropy(x @ flat.view(2, 4).T, y) + decay / 2 * (flat**2).sum()

    flat = w.flatten()
    for _ in range(30):
        gradient = torch.autograd.functional.jacobian(objective, flat)
        hessian = torch.autograd.functional.hessian(objective, flat)
        flat = flat - torch.linalg.lstsq(hessian + 1e-12 * torch.eye(8), gradient[:, None]).solution[:, 0]
    return flat.view(2, 4)


@pytest.mark.parametrize("method", ["if-explicit", "if-cg", "if-ekfac-cg"])
@pytest.mark.quick(1)
def test_predicted_effects_are_those_of_training_without_the_row(method):
    """With weight decay the mean over the others weighs it anew: the effect is not the score, and has it right."""
    decay = 0.05
    recipe = logistic(n=300, decay=decay)
    x, y = recipe.rows.fields["x"], recipe.rows.fields["y"]
    held = torch.from_numpy(np.random.default_rng(3).normal(size=(5, 4)))
    target = torch.arange(5) % 2
    query = fi.mean_loss(held, target, name="held-out")
    found = fi.estimate(
        fi.train(recipe), query, method, damping=0.0, **({"tolerance": 1e-8} if "cg" in method else {})
    )

    def value(w: Tensor) -> float:
        return float(nn.functional.cross_entropy(held @ w.T, target))

    whole = value(minimum(x, y, decay))
    rows = range(0, 300, 25)
    truth = [value(minimum(x[np.arange(300) != i], y[np.arange(300) != i], decay)) - whole for i in rows]
    predicted = found.data.predicted_effect.values[list(rows), 0]
    assert np.corrcoef(predicted, truth)[0, 1] > 0.999
    # the truth is about 1 / (1 − leverage) times the estimate
    assert np.polyfit(predicted, truth, 1)[0] == pytest.approx(1.02, abs=0.05)


def test_a_group_is_removed_together():
    tape = fi.train(logistic(decay=0.05))
    query = fi.own_loss([3])
    alone = fi.estimate(tape, query, "if-explicit")
    groups = fi.estimate(tape, query, "if-explicit", {"pair": [1, 2]})
    one = alone.data.predicted_effect.sel(subset=[1, 2]).values.sum()
    assert groups.data.predicted_effect.item() == pytest.approx(one * 59 / 58)
    assert groups.data.score.item() == pytest.approx(alone.data.score.sel(subset=[1, 2]).values.sum())


def test_larger_is_more_harmful():
    """The row whose removal lowers the loss most is on top, whichever sign the query has."""
    tape = fi.train(logistic(decay=0.05))
    loss = fi.own_loss([3])
    gain = fi.Query(lambda m: -class_loss(m, {"x": tape.rows.fields["x"][3:4], "y": tape.rows.fields["y"][3:4]})[0],
                    name="gain", sign=+1)  # fmt: skip
    found = fi.estimate(tape, [loss, gain], "if-explicit")
    np.testing.assert_allclose(found.data.score.values[:, 0], found.data.score.values[:, 1], atol=1e-12)
    worst = found.top(1, "own loss[3]").row_id.item()
    assert found.data.predicted_effect.sel(query="own loss[3]").values.argmin() == worst


def test_what_each_row_is_divided_by():
    tape = fi.train(logistic(decay=0.05))
    query = fi.own_loss([3])
    plain = fi.estimate(tape, query, "if-explicit", damping=0.1)
    objective = {
        relative: fi.estimate(tape, query, "if-explicit", damping=0.1, relative=relative)
        for relative in ("loss", "parameters")
    }
    x, y = tape.rows.fields["x"], tape.rows.fields["y"]
    w = tape.final_state()[:8].view(2, 4)
    p = (x @ w.T).softmax(1)
    g = torch.einsum("nc,nd->ncd", p - nn.functional.one_hot(y, 2), x).flatten(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    h = torch.einsum("ncd,ni,nj->cidj", inner, x, x).reshape(8, 8) / 60 + 0.15 * torch.eye(8)
    solved = g @ torch.linalg.inv(h)
    by_loss, by_size = (g * solved).sum(1).sqrt(), solved.norm(dim=1)
    np.testing.assert_allclose(
        objective["loss"].data.score.values, plain.data.score.values / by_loss[:, None].numpy()
    )
    np.testing.assert_allclose(
        objective["parameters"].data.score.values, plain.data.score.values / by_size[:, None].numpy()
    )
    assert "predicted_effect" not in objective["loss"].data
    assert any("√(gᵀH⁻¹g)" in text for text in objective["loss"].provenance.findings)
    relatif = fi.estimate(tape, query, "relatif", damping=0.1)
    assert any("ranks rows of unusual size lower" in text for text in relatif.provenance.findings)


def network(n: int = 30, epochs: int = 60, optimizer: fr.Optimizer | None = None) -> fi.Recipe:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(n, 4)))
    y = torch.from_numpy(np.arange(n) % 3)
    with fr.seeded(0):
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return fi.Recipe(
        data=fi.Rows(x=x, y=y), model=model, loss=class_loss, optimizer=optimizer or fi.SGD(lr=0.3),
        batch_size=10, epochs=epochs,
    )  # fmt: skip


@pytest.mark.parametrize(("method", "options"), [
    ("if-cg", {"tolerance": 1e-9}), ("if-lissa", {"tolerance": 1e-7, "depth": 3000}),
    ("if-arnoldi", {"rank": 43, "iterations": 43}), ("if-nystrom", {"rank": 43}),
    ("if-ekfac-cg", {"tolerance": 1e-9, "iterations": 100}),
])  # fmt: skip
@pytest.mark.parametrize("curvature", ["gauss-newton", "empirical-fisher"])
@pytest.mark.quick(4)
def test_every_solver_comes_to_the_matrix_written_out(method, options, curvature):
    tape = fi.train(network())
    query = fi.own_loss([0, 7])
    exact = fi.estimate(tape, query, "if-explicit", damping=0.02, curvature=curvature)
    found = fi.estimate(tape, query, method, damping=0.02, curvature=curvature, **options)
    np.testing.assert_allclose(found.data.score.values, exact.data.score.values, rtol=1e-4, atol=1e-8)
    assert found.provenance.details["damping"] == exact.provenance.details["damping"] == 0.02


@pytest.mark.slow
def test_the_default_damping_of_sgd_is_the_curvature_that_the_run_resolved():
    def damping(method: str, optimizer: fr.Optimizer, epochs: int = 60) -> float:
        tape = fi.train(network(epochs=epochs, optimizer=optimizer))
        return fi.estimate(tape, fi.own_loss([0]), method).provenance.details["damping"]

    for method in ("if-explicit", "if-cg", "if-ekfac", "if-nystrom"):
        assert damping(method, fi.SGD(lr=0.3)) == pytest.approx(1 / (180 * 0.3))
    assert damping("if-explicit", fi.SGD(lr=0.03, momentum=0.9)) == pytest.approx(1 / (180 * 0.3))
    assert damping("if-explicit", fi.SGD(lr=0.3), epochs=10) == pytest.approx(1 / (30 * 0.3))


def test_the_default_damping_is_a_tenth_of_the_mean_eigenvalue_where_steps_have_sizes_of_their_own():
    tape = fi.train(network(optimizer=fi.AdamW(lr=0.02, weight_decay=0.0)))
    written = fi.estimate(tape, fi.own_loss([0]), "if-explicit").provenance.details["damping"]
    for method in ("if-cg", "if-ekfac"):
        found = fi.estimate(tape, fi.own_loss([0]), method).provenance.details["damping"]
        assert found == pytest.approx(written, rel=0.3)
    with pytest.raises(ConfigError, match=r"(?s)damping to be a finite number of at least zero.*-0\.5"):
        fi.estimate(tape, fi.own_loss([0]), "if-cg", damping=-0.5)


@pytest.mark.parametrize("method", ["if-explicit", "if-cg", "if-ekfac"])
@pytest.mark.quick(1)
def test_the_default_damping_predicts_runs_that_end_before_the_minimum(method):
    """A direction that SGD hardly moved in answers a removed row by the sum of rates, not by one over its curvature."""
    rng = np.random.default_rng(4)
    x = torch.from_numpy(rng.normal(size=(40, 3)) * [1, 0.2, 0.05])
    y = x @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) + torch.from_numpy(rng.normal(size=40))

    def trained(rows: np.ndarray) -> fi.Tape:
        model = nn.Linear(3, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        return fi.train(fi.Recipe(
            data=fi.Rows(x=x[rows], y=y[rows]), model=model, loss=square_loss, optimizer=fi.SGD(lr=0.2),
            batch_size=len(rows), epochs=100,
        ))  # fmt: skip

    tape, everything = trained(np.arange(40)), np.arange(40)
    queries = [fi.Query(lambda m, k=k: m.weight[0, k], name=f"weight {k}", sign=+1) for k in range(3)]
    rest = [trained(everything[everything != i]).final_state()[:3] for i in range(12)]
    true = (torch.stack(rest) - tape.final_state()[:3]).numpy()
    by_run = fi.estimate(tape, queries, method).data.predicted_effect.values[:12]
    tenth = 0.1 * float((x**2).mean())
    by_size = fi.estimate(tape, queries, method, damping=tenth).data.predicted_effect.values[:12]
    wrong, wrong_by_size = (np.abs(e - true).sum(0) / np.abs(true).sum(0) for e in (by_run, by_size))
    assert (wrong < 0.3).all() and wrong[2] < 0.15 and wrong_by_size[2] > 0.4


def test_what_qualifies_a_result_is_said():
    tape = fi.train(network(epochs=1))
    early = fi.estimate(tape, fi.own_loss([0]), "if-cg", iterations=1).provenance
    said = " ".join(early.findings)
    assert "did not end at a minimum of its loss" in said and "stopped at a residual" in said
    assert "training randomness is not looked at" in said and early.covers == ()
    assert set(early.details["newton_step_left"]) == {"own loss[0]"}
    decayed = fi.estimate(
        fi.train(network(optimizer=fi.AdamW(lr=0.01))), fi.own_loss([0]), "if-ekfac"
    ).provenance
    assert any("weight decay of AdamW belongs to no objective" in text for text in decayed.findings)
    assert decayed.details["weight_decay"] == 0.0


def test_a_hessian_that_is_not_positive_is_said_or_refused():
    tape = fi.train(network(epochs=1))
    query = fi.own_loss([0])
    found = fi.estimate(tape, query, "if-explicit", curvature="hessian", damping=1e-4)
    assert any("negative: the end of the run is no minimum" in text for text in found.provenance.findings)
    with pytest.raises(NotSupportedError, match=r"(?s)positive in every direction.*gauss-newton"):
        fi.estimate(tape, query, "if-cg", curvature="hessian", damping=1e-4)
    with pytest.raises(NotSupportedError, match="Neumann series that converges"):
        fi.estimate(tape, query, "if-lissa", scale=1e-3)


def test_a_loss_that_stops_gradients_is_refused():
    def stopped(model, batch):
        out = model(batch["x"])
        return ((out - 0.5 * out.detach()) ** 2).sum(1)

    tape = fi.train(replace(network(epochs=2), loss=stopped))
    with pytest.raises(NotSupportedError, match="stops or changes gradients"):
        fi.estimate(tape, fi.own_loss([0]), "if-ekfac")


def test_the_matrix_is_written_out_for_small_models_only():
    wide = nn.Sequential(nn.Linear(4, 2000), nn.Tanh(), nn.Linear(2000, 3)).double()
    tape = fi.train(replace(network(epochs=1), model=wide))
    assert not Explicit().supports(tape)
    with pytest.raises(
        NotSupportedError, match=r"(?s)at most 10,000 trained parameters.*on this source work"
    ):
        fi.estimate(tape, fi.own_loss([0]), "if-explicit")


def test_a_scale_in_a_recorded_loop_is_the_same():
    """A loop of one's own gives what the recipe gives."""
    recipe = logistic(n=20, decay=0.1)
    tape = fi.train(recipe)
    model = nn.Linear(4, 2, bias=False, dtype=torch.float64)
    model.load_state_dict(tape.model(0).state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    recorder = fi.Tape.record(model, optimizer, loss=class_loss, data=recipe.rows)
    for t in range(30):
        ids = torch.arange(20)
        optimizer.zero_grad()
        class_loss(model, recipe.rows.batch(ids)).mean().backward()
        optimizer.step()
        recorder.step(ids=ids)
        assert t < 30
    found = fi.estimate(recorder, fi.own_loss([0]), "if-explicit", damping=0.0)
    assert found.provenance.details["weight_decay"] == pytest.approx(0.1)
    assert method_class("if-explicit") is Explicit
