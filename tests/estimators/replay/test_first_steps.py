"""The first steps of Adam: what a row changes is taken as it is, against training again without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
from finfluence.errors import ConfigError
from finfluence.estimators.derivatives import Known
from finfluence.estimators.replay import SavedProgress, StepShares, StepVariance, looked_at, step_findings
from finfluence.runs import seeded

BATCH, RATE = 12, 2e-3
Batch = dict[str, Tensor]


def row_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def digits(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.from_numpy(x[order] / 16).float(), torch.from_numpy(y[order])
    return x[:rows], y[:rows], x[1500:], y[1500:]


def plain(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))


class Adapter(nn.Module):
    """A frozen layer with a low-rank part whose second factor is zero."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


def adapted() -> nn.Module:
    """A trained model, with adapters."""
    model, (x, y, _, _) = plain(), digits(400)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with seeded(1):
        return nn.Sequential(Adapter(model[0]), nn.GELU(), Adapter(model[2]))


def warm(step: int, steps: int) -> float:
    return min(1.0, step / 10)


PROBLEMS = {
    "Adam": (plain, fr.Adam(lr=RATE), "constant", BATCH),
    "AdamW, warmed up from zero": (plain, fr.AdamW(lr=RATE), warm, BATCH),
    "LoRA": (adapted, fr.AdamW(lr=4e-4), "constant", 6),
}
QUERIES = 5


def tape_of(name: str, epochs: int = 1, rows: int = 1300) -> tuple[fr.Tape, list[fr.AnyQuery]]:
    make, optimizer, schedule, batch = PROBLEMS[name]
    x, y, test_x, test_y = digits(rows)
    recipe = fr.Recipe(
        data=fr.Rows(x=x, y=y), model=make(), loss=row_loss, optimizer=optimizer, batch_size=batch, epochs=epochs,
        schedule=schedule,
    )  # fmt: skip
    queries: list[fr.AnyQuery] = [fr.mean_loss(test_x, test_y, name="held-out")]
    queries += [
        fr.mean_loss(test_x[k : k + 1], test_y[k : k + 1], name=f"row {k}") for k in range(QUERIES - 1)
    ]
    return fi.train(recipe, seed=0), queries


def values(tape: fr.Tape, queries: list[fr.AnyQuery], model: nn.Module) -> np.ndarray:
    return fr.query_values(queries, model, tape)


def without(tape: fr.Tape, queries: list[fr.AnyQuery], rows: np.ndarray) -> np.ndarray:
    """Train again with torch.optim over the same batches, each without one row: what that does to the queries."""

    def trained(left_out: int) -> np.ndarray:
        recipe, model = tape.recipe, tape.model(0)
        optimizer = recipe.optimizer.torch([p for p in model.parameters() if p.requires_grad])
        for t, batch in enumerate(tape.order):
            for group in optimizer.param_groups:
                group["lr"] = recipe.optimizer.lr * recipe.rate(t)
            optimizer.zero_grad()
            row_loss(model, tape.batch(batch[batch != left_out])).mean().backward()
            optimizer.step()
        return values(tape, queries, model)

    whole = trained(-1)
    return np.array([trained(int(row)) - whole for row in rows])


def agreement(estimate: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Pearson and slope of truth over estimate, of each query."""
    pearson = [np.corrcoef(e, t)[0, 1] for e, t in zip(estimate.T, truth.T, strict=True)]
    slope = (estimate * truth).sum(0) / (estimate**2).sum(0)
    return np.array(pearson), slope


@pytest.mark.parametrize(
    ("name", "pearson", "slopes", "before"),
    [
        ("Adam", 0.99, (0.9, 1.15), 0.9),
        pytest.param("AdamW, warmed up from zero", 0.99, (0.9, 1.15), 0.99, marks=pytest.mark.slow),
        ("LoRA", 0.7, (0.6, 1.6), 0.2),
    ],
)
@pytest.mark.quick(1)
def test_rows_of_the_first_batch_against_training_without_them(
    name: str, pearson: float, slopes: tuple[float, float], before: float
) -> None:
    """One epoch, every row once: what leaving it out of the first batch does. `before`: by tangents, at best one query."""
    torch.set_num_threads(1)
    tape, queries = tape_of(name)
    rows = tape.order[0].numpy()
    truth = without(tape, queries, rows)
    found = {
        how: fi.replay(tape, queries, horizon=1, late=0, first_steps=how).data.effect.values[rows]
        for how in ("finite", "tangent")
    }
    now, then = agreement(found["finite"], truth), agreement(found["tangent"], truth)
    print(
        f"\n{name}: Pearson {now[0].round(3)} slope {now[1].round(2)}; by tangents {then[0].round(3)}, {then[1].round(2)}"
    )
    assert now[0].min() > pearson
    assert slopes[0] < now[1].min() < now[1].max() < slopes[1]
    assert then[0].min() < before


def clipped(
    x: Tensor, y: Tensor, order: list[Tensor], left_out: int = -1, record: bool = False
) -> tuple[nn.Module, Any]:
    """A loop with SGD, clipped to half of the gradients' norm, over the given batches; recorded on request."""
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    data = fr.Rows(x=x, y=y)
    recorder = fr.Tape.record(model, optimizer, row_loss, data, clip_norm=0.2) if record else None
    for batch in order:
        optimizer.zero_grad()
        row_loss(model, data.batch(batch[batch != left_out])).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()
        if recorder is not None:
            recorder.step(ids=batch)
    return model, None if recorder is None else recorder.finish()


def test_rows_of_the_first_batch_of_clipped_sgd_against_training_without_them() -> None:
    """Clipping makes a step's length the same whatever the gradient is: bent, but little on the scale of one row."""
    torch.set_num_threads(1)
    x, y, test_x, test_y = digits(360)
    order = list(torch.randperm(360, generator=torch.Generator().manual_seed(0)).split(BATCH))
    queries: list[fr.AnyQuery] = [
        fr.mean_loss(test_x, test_y, name="held-out"),
        fr.mean_loss(test_x[:1], test_y[:1]),
    ]
    whole, tape = clipped(x, y, order, record=True)
    rows = order[0].numpy()
    base = values(tape, queries, whole)
    truth = np.array([values(tape, queries, clipped(x, y, order, int(row))[0]) - base for row in rows])
    found = {
        how: fi.replay(tape, queries, horizon=1, late=0, first_steps=how).data.effect.values[rows]
        for how in ("finite", "tangent")
    }
    now, then = agreement(found["finite"], truth), agreement(found["tangent"], truth)
    print(
        f"\nSGD, clipped: {now[0].round(4)} {now[1].round(3)}; by tangents {then[0].round(4)}, {then[1].round(3)}"
    )
    assert now[0].min() > 0.98
    assert 0.9 < now[1].min() < now[1].max() < 1.1
    assert now[0].min() > then[0].min() - 1e-3


def test_all_rows_at_every_step_see_the_first_one_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """*full*: the spread is no longer that of a derivative; and an interrupted replay ends in the same numbers."""
    tape, queries = tape_of("Adam", epochs=2, rows=60)
    found = {
        how: fi.replay(tape, queries, "full", horizon=2, first_steps=how) for how in ("finite", "tangent")
    }
    finite, tangent = found["finite"], found["tangent"]
    assert np.isfinite(finite.data.effect.values).all()
    assert not np.allclose(finite.data.effect.values, tangent.data.effect.values, rtol=1e-2)
    monkeypatch.setattr(SavedProgress, "seconds", -1.0)

    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fi.replay(tape, queries, "full", horizon=2, out=tmp_path, progress=interrupt)
    resumed = fi.replay(tape, queries, "full", horizon=2, out=tmp_path)
    assert resumed.data.equals(finite.data)
    assert resumed.provenance.step_notes == finite.provenance.step_notes


CONSTANT = np.array([3.0, -1.0, -1.0, -0.5])


def one_step(optimizer: Callable[..., torch.optim.Optimizer], **options: float) -> fi.Influence:
    """A scalar θ and losses a_i·θ: one step on all four rows; the query is θ itself."""
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    data = fr.Rows(x=torch.from_numpy(CONSTANT)[:, None])

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch["x"])[:, 0]

    made = optimizer(model.parameters(), lr=0.1)
    recorder = fr.Tape.record(model, made, loss, data, **options)
    loss(model, data.batch(torch.arange(4))).mean().backward()
    if "clip_norm" in options:
        nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
    made.step()
    made.zero_grad()
    recorder.step(ids=list(range(4)))
    query = fr.Query(lambda m: m.weight.sum(), name="θ", unit="value", sign=1)
    return fi.replay(recorder.finish(), query, late=0)


def test_one_step_of_adam_in_closed_form() -> None:
    """θ = −lr·sign(mean a): without row 0 the sign turns, without another one it does not. The derivative says 0."""
    changed = np.array([0.2, 0.0, 0.0, 0.0])  # −lr·(sign(mean a without i) − sign(mean a))
    effect = one_step(torch.optim.Adam).data.effect.values[:, 0]
    np.testing.assert_allclose(effect, changed - changed.mean(), atol=1e-7)


def test_one_step_of_clipped_sgd_in_closed_form() -> None:
    """Clipped to a norm of 0.01, a step has length 0.001 whatever the gradient is; unclipped it is linear."""
    changed = np.array([0.002, 0.0, 0.0, 0.0])
    effect = one_step(torch.optim.SGD, clip_norm=0.01).data.effect.values[:, 0]
    np.testing.assert_allclose(effect, changed - changed.mean(), rtol=1e-3, atol=1e-8)
    free = one_step(torch.optim.SGD, clip_norm=10.0).data.effect.values[:, 0]
    np.testing.assert_allclose(free, -0.1 * (CONSTANT.mean() - CONSTANT) / 3, rtol=1e-12)


@pytest.mark.parametrize("optimizer", [fr.SGD(lr=0.1), fr.SGD(lr=0.05, momentum=0.9, nesterov=True)])
def test_without_a_bend_nothing_changes_in_a_bit(optimizer: fr.SGD) -> None:
    x, y, test_x, test_y = digits(120)
    recipe = fr.Recipe(
        data=fr.Rows(x=x, y=y), model=plain(), loss=row_loss, optimizer=optimizer, batch_size=BATCH, epochs=2
    )
    tape = fi.train(recipe, seed=0)
    query = fr.mean_loss(test_x, test_y, name="held-out")
    found = [fi.replay(tape, query, first_steps=how).data for how in ("finite", "tangent")]
    assert found[0].equals(found[1])


def test_a_row_that_alone_owns_a_coordinate_takes_its_whole_step_along() -> None:
    """Only row 0 has feature 1: Adam moves its weight by lr whatever the gradient is; without the row, not at all."""
    x = torch.ones(6, 2, dtype=torch.float64)
    x[1:, 1] = 0.0
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    recipe = fr.Recipe(
        data=fr.Rows(x=x), model=model, loss=lambda m, b: -m(b["x"])[:, 0], optimizer=fr.Adam(lr=0.1), batch_size=6,
        epochs=1,
    )  # fmt: skip
    query = fr.Query(lambda m: m.weight[0, 1], name="its weight", unit="value", sign=1)
    tape = fi.train(recipe)
    assert float(tape.model().weight[0, 1].detach()) == pytest.approx(0.1)
    changed = np.array([-0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    effect = fi.replay(tape, query, late=0).data.effect.values[:, 0]
    np.testing.assert_allclose(effect, changed - changed.mean(), atol=1e-7)
    by_tangent = fi.replay(tape, query, late=0, first_steps="tangent").data.effect.values[:, 0]
    assert np.abs(by_tangent).max() < 1e-6


def test_a_candidate_comes_in_for_an_average_row() -> None:
    """One step of Adam on a = 1, −.9: the mean is .05, and a candidate of −1 in an average row's place turns its sign."""
    a = torch.tensor([[1.0], [-0.9]], dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    recipe = fr.Recipe(
        data=fr.Rows(x=a), model=model, loss=lambda m, b: m(b["x"])[:, 0], optimizer=fr.Adam(lr=0.1), batch_size=2,
        epochs=1,
    )  # fmt: skip
    query = fr.Query(lambda m: m.weight.sum(), name="θ", unit="value", sign=1)
    tape = fi.train(recipe)
    more = fr.Rows(x=torch.tensor([[-1.0], [1.0]], dtype=torch.float64), ids=["turns", "keeps"])
    effect = fi.replay(tape, query, late=0, candidates=more).data.effect.values[:, 0]
    assert float(tape.model().weight.detach()) == pytest.approx(-0.1)
    # slopes: 2·(+.2) of the candidate that turns the sign, 0 of the other; of the rows −1·(+.2) (without 1.0) and 0
    np.testing.assert_allclose(effect, np.array([0.4, 0.0]) / 3 - np.mean([-0.2, 0.0]) / 3, atol=1e-7)


def test_a_step_with_much_of_the_variance_is_named() -> None:
    tape, queries = tape_of("Adam", rows=240)
    influence = fi.replay(tape, queries, horizon=1, late=0)
    (first, *_) = influence.provenance.step_notes or ("",)
    assert first.startswith("step 0 held ")
    for words in ("of the slopes' variance of", "tangent", "finite change of the update was taken", "%"):
        assert words in first
    assert f"note: {first}" in str(influence)
    kept = fi.replay(tape, queries, horizon=1, late=0, first_steps="tangent").provenance.step_notes or ("",)
    assert any(note.startswith("step 0 holds ") and "tangent was kept" in note for note in kept)


def test_findings_name_share_query_and_what_was_done() -> None:
    kept = np.array([[0.1, 0.6], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    taken = np.array([[[0.9, np.nan], [0.15, np.nan], [1.0, 0.0]]])
    steps = np.array([[7, 9], [-1, -1], [-1, -1], [-1, -1]])
    first, doubtful, later = step_findings(["a", "b"], (kept, taken), steps, [0])
    assert "step 0 held 90% of the slopes' variance of 'a'" in first and "it holds 15%" in first
    for words in ("rows of step 0", "'a'", "is not settled 2 steps later", "doubtful", "groups='paired'"):
        assert words in doubtful
    assert "step 9 holds 60% of the slopes' variance of 'b'; its tangent was kept" in later
    assert step_findings(["a"], (kept[:, :1], taken[:, :, 1:]), steps[:, :1], [0]) == []


def test_shares_are_of_the_queries_that_accept_an_epoch() -> None:
    def of(t: int, slopes: list[list[float]]) -> StepVariance:
        return StepVariance.of_tangent(t, 2.0, torch.tensor(slopes))

    shares = StepShares(2, looked_at(1), torch.device("cpu"))
    shares.add(
        [of(1, [[0.0, 2.0], [0.0, 2.0]]), of(0, [[0.0, 4.0], [0.0, 4.0]])], torch.tensor([True, False])
    )
    kept, taken = shares.shares()
    np.testing.assert_allclose(kept[:, 0], [0.8, 0.2, 0.0, 0.0])
    np.testing.assert_allclose(kept[:, 1], 0.0)
    assert shares.largest_step[:2, 0].tolist() == [0, 1] and np.isnan(taken[:, :2]).all()
    again = StepShares(2, looked_at(1), torch.device("cpu"))
    again.restore(shares.tensors())
    np.testing.assert_array_equal(again.shares()[0], kept)


@pytest.mark.slow
def test_numbers_do_not_depend_on_queries_asked_together_nor_on_the_call() -> None:
    tape, queries = tape_of("Adam", epochs=2, rows=240)
    together = fi.replay(tape, queries).data
    assert fi.replay(tape, queries).data.equals(together)
    alone = fi.replay(tape, queries[1]).data
    np.testing.assert_allclose(alone.effect.values[:, 0], together.effect.values[:, 1], rtol=1e-3, atol=1e-6)
    other = fi.replay(fi.train(tape.recipe, seed=1), queries).data
    assert not np.array_equal(other.effect.values, together.effect.values)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="first_steps") as error:
        fi.estimate(None, fi.own_loss([0]), first_steps="exact")  # type: ignore[arg-type]
    for words in ("finite", "tangent", "exact"):
        assert words in str(error.value)


def test_gradients_read_off_the_buffers_are_as_good_as_computed_ones(monkeypatch):
    """The run's own at the first steps: what they change in effects is rounding."""
    tape, queries = tape_of("LoRA", rows=120)
    step, state = tape.at(3), tape.state(3)
    read = Known(tape.state(4)).read(tape.optimizer, state, step.hyper).gradient
    model = tape.model(3)
    loss = row_loss(model, step.batch).mean()
    wanted = tape.layout.flatten(list(torch.autograd.grad(loss, tape.layout.parameters(model))))
    torch.testing.assert_close(read, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()))
    quick = fi.replay(tape, queries[:2], differentiation="exact").data["effect"].values
    monkeypatch.setattr(fr.AdamW, "gradient", lambda *_: None)
    slow = fi.replay(tape, queries[:2], differentiation="exact").data["effect"].values
    assert not np.array_equal(quick, slow)
    np.testing.assert_allclose(quick, slow, atol=2e-4 * np.abs(slow).max())


def test_changes_of_pieces_of_the_coordinates_add_up():
    """A clipping norm, which never clips here, is of all coordinates at once: the changes are the same."""

    def replayed(**options: float) -> np.ndarray:
        x, y, test_x, test_y = digits(48)
        model = plain()
        optimizer = torch.optim.Adam(model.parameters(), RATE)
        recorder = fi.Tape.record(model, optimizer, loss=row_loss, data=fr.Rows(x=x, y=y), **options)
        for rows in torch.arange(48).split(BATCH):
            optimizer.zero_grad()
            row_loss(model, {"x": x[rows], "y": y[rows]}).mean().backward()
            optimizer.step()
            recorder.step(ids=rows)
        asked = fr.mean_loss(test_x[:8], test_y[:8])
        return fi.replay(recorder, asked, differentiation="exact").data["effect"].values[:, 0]

    pieces, whole = replayed(), replayed(clip_norm=1e9)
    np.testing.assert_allclose(pieces, whole, atol=1e-4 * np.abs(whole).max())
