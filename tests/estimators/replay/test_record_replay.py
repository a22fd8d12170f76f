"""Replay of recorded loops: its derivatives are those of the loop itself, by central differences over whole trainings."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import NotSupportedError
from finfluence.estimators.derivatives import adjoint_of
from finfluence.runs import seeded
from four_parts import assert_parts
from recorded_loops import EXACT, LOOPS, Loop, dropping, precise_newton_schulz, whole

STEP, TOLERANCE = 1e-5, 2e-5
QUERIES = [
    fi.own_loss([2, 7]),
    fi.Query(lambda m: sum((p**3).sum() for p in m.parameters()), name="cubes", sign=1),
]


def walked(tape: fr.Tape) -> tuple[np.ndarray, Tensor]:
    """Return ∂q/∂(weight of each row) [n, Q] and λ_0 [Q, 1+S, P]."""
    model = tape.model()
    with seeded(0):
        _, gradients = fr.gradients(QUERIES, model, tape, tape.layout.parameters(model))
    lam = torch.zeros(len(gradients), 1 + len(tape.optimizer.slots), tape.layout.size, dtype=pt.DOUBLE)
    lam[:, 0] = gradients
    out = torch.zeros(len(tape.rows), len(gradients), dtype=pt.DOUBLE)
    adjoint = adjoint_of(tape)
    with seeded(0):
        for t in reversed(range(tape.steps)):
            step = tape.at(t)
            lam, slopes, _ = adjoint.step(tape.state(t), step.hyper, step.batch, lam, step.seed)
            shares = torch.full((len(step.rows),), 1 / len(step.rows)) if step.shares is None else step.shares
            out.index_add_(0, step.rows, (step.unweighted(slopes) * shares).T.double())
    return out.numpy(), lam


def queried(model: nn.Module, rows: fr.Rows, loss) -> np.ndarray:
    class Task:
        pass

    task = Task()
    task.rows, task.loss = rows, loss
    model.eval()
    with torch.no_grad():
        return torch.cat([q.values(model, task) for q in QUERIES]).numpy()


@pytest.mark.filterwarnings(
    "ignore:None of the inputs have requires_grad"
)  # torch's, for the reentrant form in eval
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.quick(6)
def test_derivatives_are_those_of_the_loop(name):
    assert_derivatives(LOOPS[name])


def assert_derivatives(loop: Loop) -> None:
    tape = loop.run(record=True)[1].finish()
    weights, lam = walked(tape)
    rows = loop.data()
    directions = torch.cat(
        [torch.eye(len(rows))[[0, 5]], torch.randn(2, len(rows), generator=torch.Generator().manual_seed(1))]
    ).double()
    for along, direction in zip(directions.numpy() @ weights, directions, strict=True):
        ends = [queried(loop.run(weights=1 + s * STEP * direction)[0], rows, loop.loss) for s in (1, -1)]
        want = (ends[0] - ends[1]) / (2 * STEP)
        assert np.abs(along - want).max() <= TOLERANCE * np.abs(want).max(), (along, want)
    toward = torch.randn(tape.layout.size, dtype=pt.DOUBLE, generator=torch.Generator().manual_seed(2))
    toward /= toward.norm()

    def from_shifted(shift: float) -> np.ndarray:
        start = loop.start()
        names = tape.layout.split(shift * toward)
        with torch.no_grad():
            for key, parameter in start.named_parameters():
                if key in names:
                    parameter += names[key]
        return queried(loop.run(start=start)[0], rows, loop.loss)

    want = (from_shifted(STEP) - from_shifted(-STEP)) / (2 * STEP)
    along = (lam[:, 0] @ toward).numpy()
    assert np.abs(along - want).max() <= TOLERANCE * np.abs(want).max(), (along, want)


def test_muon_in_the_parameters_own_precision(monkeypatch):
    """torch runs Newton–Schulz in bfloat16, where no difference quotient exists; here torch itself runs it in float64."""

    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", precise_newton_schulz)
    assert_derivatives(LOOPS["muon"])


def test_recorded_sgd_gives_the_influence_of_train():
    loop = Loop(whole(torch.optim.AdamW, lr=0.02))
    tape = loop.run(record=True)[1].finish()
    described = pt.recipe(data=loop.data(), model=loop.start(), optimizer=fr.AdamW(lr=0.02), epochs=4)
    trained = fi.train(described, seed=5)
    for method in ("online", "full"):
        a = fi.replay(trained, QUERIES, method=method, seed=0).data
        b = fi.replay(tape, QUERIES, method=method, seed=0).data
        assert list(a.data_vars) == list(b.data_vars)
        for name in ("mu", "se", "effect", "spread", "own_loss"):
            np.testing.assert_allclose(b[name].values, a[name].values, rtol=1e-9, err_msg=f"{method} {name}")
    assert b.attrs["seeds"] == [tape.identity()] and set(b.attrs["recipe"]) >= {"data", "optimizer", "epochs"}


def test_weighed_micro_batches_are_unbiased():
    """A row's online term with unequal shares p: E over batches of p_i(x̄ − x_i)/(1 − Σp²) is −(x_r − mean_D x)/(n−1)."""
    rng = np.random.default_rng(0)
    n, shares = 9, torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=pt.DOUBLE)
    x = torch.from_numpy(rng.normal(size=(1, n)))
    runs, total = 40_000, torch.zeros(n, dtype=pt.DOUBLE)
    squares = torch.zeros(n, dtype=pt.DOUBLE)
    from finfluence.estimators.replay import EpochSums

    order = np.argsort(rng.random((runs, n)), 1)[:, :4]
    for rows in torch.from_numpy(order[:4000]):
        step = fr.Step(rows, {}, torch.empty(0), None, shares)
        sums = EpochSums.zeros(n, 0, 1, torch.device("cpu"))
        sums.add_batch(rows, step.centred(x[:, rows]))
        sums.close(n, reshuffled=True)
        total += sums.effects[:, 0]
        squares += sums.effects[:, 0] ** 2
    mean, error = total / 4000, (squares / 4000).sqrt() / 4000**0.5
    want = -(x[0] - x.mean()) / (n - 1)
    assert ((mean - want).abs() < 4.5 * error).all()  # nine comparisons: false failures in 6e-5 of seeds


def test_uneven_epochs_and_a_partial_last_one():
    """θ ← θ − η(θ − mean_B y) is linear: effect and spread have exact forms whatever the epochs' lengths."""
    y = np.array([0.0, 1.0, -2.0, 3.0, 0.5, 4.0, -1.0, 2.5, 0.0, 1.5])
    rows = fr.Rows(x=torch.ones(10, 1, dtype=pt.DOUBLE), y=torch.from_numpy(y))
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tape = fi.Tape.record(model, optimizer, pt.square_loss, rows)
    rng, sizes = np.random.default_rng(0), []
    for cuts in ([4, 8], [3, 6, 9], [5], [4]):
        order = rng.permutation(10)
        parts = np.split(order, cuts)[: 1 if cuts == [4] else None]
        sizes.append([len(p) for p in parts])
        for ids in map(torch.from_numpy, parts):
            pt.square_loss(model, rows.batch(ids)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            tape.step(ids=ids)
    assert [len(e) for e in tape.finish().epochs] == [3, 4, 2, 1]
    level = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
    found = fi.replay(tape, level, method="full", horizon=4).data
    eta = 0.1
    steps = sum(map(len, sizes))
    w = eta * (1 - eta) ** np.arange(steps)[::-1]
    leave_out = (y.sum() - y) / 9 - y.mean()
    np.testing.assert_allclose(found.effect.values[:, 0], w.sum() * leave_out, rtol=1e-9)
    pieces = np.split(w, np.cumsum([len(s) for s in sizes])[:-1])
    var = sum((p**2 / np.array(s)).sum() - p.sum() ** 2 / 10 for p, s in zip(pieces, sizes, strict=True))
    np.testing.assert_allclose(found.spread.values, (var * y.var(ddof=1)) ** 0.5, rtol=1e-9)


def test_sampling_with_replacement_is_seen():
    rows, model = pt.table(40), pt.made(pt.mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = torch.utils.data.RandomSampler(
        range(40), replacement=True, num_samples=400, generator=torch.Generator().manual_seed(0)
    )
    tape = fi.Tape.record(model, optimizer, pt.class_loss, rows)
    for ids in torch.tensor(list(sampler)).split(8):
        pt.class_loss(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    tape = tape.finish()
    assert not tape.reshuffled and [len(e) for e in tape.epochs] == [5] * 10
    assert np.isfinite(fi.replay(tape, fi.own_loss([0])).data.mu.values).all()


def test_batch_norm_in_training_form_says_what_the_number_means():
    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))

    loop = Loop(whole(torch.optim.SGD, lr=0.1), model=normed)
    plain, _ = loop.run()
    recorded, tape = loop.run(record=True)
    tape = tape.finish()
    assert torch.equal(pt.flat(plain), pt.flat(recorded))
    assert torch.equal(recorded[1].running_mean, tape.model()[1].running_mean)
    found = fi.replay(tape, QUERIES[0])
    (note,) = [n for n in found.data.attrs["findings"] if "batch normalisation" in n]
    assert "'1' couples the rows" in note and "statistics of its batch" in note
    assert np.isfinite(found.data.effect.values).all()

    def frozen() -> nn.Module:
        model = normed()
        model[1].eval()
        model[1].train = lambda mode=True: model[1]
        return model

    _, calm = Loop(whole(torch.optim.SGD, lr=0.1), model=frozen).run(record=True)
    assert not any("batch normalisation" in n for n in calm.finish().notes)


def test_dropout_reaches_the_result():
    _, tape = Loop(whole(torch.optim.SGD, lr=0.1), model=dropping).run(record=True)
    found = fi.replay(tape, QUERIES[0]).data
    assert "dropout" in found.attrs["uncovered"] and any("(dropout)" in n for n in found.attrs["findings"])
    again = fi.replay(tape, QUERIES[0]).data
    np.testing.assert_array_equal(found.effect.values, again.effect.values)


def test_autocast_inside_the_loss_is_replayed():
    def loss(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch["x"])
        return nn.functional.cross_entropy(logits.float(), batch["y"], reduction="none")

    cast = Loop(whole(torch.optim.SGD, lr=0.1), loss=loss, dtype=torch.float32)
    full = copy.copy(cast)
    full.loss = pt.class_loss
    effects = [
        fi.replay(l.run(record=True)[1], QUERIES[0], method="full").data.effect.values for l in (cast, full)
    ]
    assert np.corrcoef(effects[0].ravel(), effects[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("differentiation", ["auto", "exact"])
def test_autocast_whose_tangents_torch_does_not_cast_is_refused_in_words(differentiation):
    def loss(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    def normalised():
        return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))

    tape = Loop(whole(torch.optim.SGD, lr=0.1), normalised, loss, dtype=torch.float32).run(record=True)[1]
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, QUERIES[0], differentiation=differentiation)
    assert_parts(
        caught.value, "forward over reverse", "BFloat16", "under torch.autocast", "train in one precision"
    )


def test_pooling_recorded_runs():
    loop = Loop(whole(torch.optim.SGD, lr=0.1))
    results = []
    for seed in (1, 2):
        loop.seed = seed
        results.append(fi.replay(loop.run(record=True)[1], QUERIES[0], horizon=4))
    assert fi.pool(results).data.attrs["runs"] == 2
