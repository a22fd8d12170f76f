"""The published single-run algorithm: closed form against its definition, Monte Carlo against the closed form."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.errors import ConfigError
from finfluence.estimators.first_order import Fine, arms, step_influence
from four_parts import assert_parts


def by_definition(s: np.ndarray, rows: list[int], b: int) -> float:
    outside = np.delete(s, rows)
    k, own = len(rows), s[rows].sum()
    mean_q, sd_q = outside.mean(), outside.std() / np.sqrt(b)
    mean_p, sd_p = (b * outside.mean() + own) / (b + k), b / (b + k) * sd_q
    return (mean_q - mean_p) / np.sqrt((sd_p**2 + sd_q**2) / 2)


def test_the_analytic_step_of_the_paper():
    """s = (1, 2, 3), S value 6, b = 4: mean_P 2.8, sd_P 0.326599, mean_Q 2.0, sd_Q 0.408248, d′ = −2.164007."""
    s = np.array([[1.0], [2.0], [3.0], [6.0]])
    assert step_influence(s, [np.array([3])], 4).item() == pytest.approx(-2.164007, abs=5e-7)
    assert by_definition(s[:, 0], [3], 4) == pytest.approx(-2.164007, abs=5e-7)


def test_rows_and_groups_follow_the_definition():
    s = np.random.default_rng(0).normal(size=(12, 3)) + 5.0
    where = [[0], [7], [1, 2, 3], [0, 4, 5, 8, 9, 10]]
    found = step_influence(s, [np.array(w) for w in where], 8)
    for k, rows in enumerate(where):
        for q in range(3):
            assert found[k, q] == pytest.approx(by_definition(s[:, q], rows, 8), rel=1e-10)


def test_invariances_of_the_step():
    s, where = np.random.default_rng(1).normal(size=(9, 2)), [np.array([0]), np.array([2, 5])]
    base = step_influence(s, where, 4)
    np.testing.assert_allclose(step_influence(7.5 * s, where, 4), base, rtol=1e-12)
    np.testing.assert_allclose(step_influence(-s, where, 4), -base, rtol=1e-12)
    np.testing.assert_allclose(step_influence(s + 1e6, where, 4), base, rtol=1e-7)
    assert not step_influence(np.ones((5, 1)), [np.array([2])], 4).any()


def frozen(n: int = 20, batch_size: int = 8, epochs: int = 450) -> tuple[fr.Recipe, np.ndarray]:
    """Training that hardly moves: the slopes of the query θ are those of the start at every step."""
    y = np.random.default_rng(2).normal(size=n)
    model = nn.Linear(1, 1, bias=False, dtype=pt.DOUBLE)
    nn.init.zeros_(model.weight)
    rows = fr.Rows(x=torch.ones(n, 1, dtype=pt.DOUBLE), y=torch.from_numpy(y))
    recipe = fr.Recipe(
        data=rows,
        model=model,
        loss=pt.square_loss,
        optimizer=fr.SGD(lr=1e-9),
        batch_size=batch_size,
        epochs=epochs,
    )
    return recipe, -y


LEVEL = fi.Query(lambda m: m.weight.sum(), name="level", sign=1)
LEVEL_OF_MLP = fi.Query(lambda m: m[0].weight.sum(), name="level", sign=1)


def test_closed_form_composes_the_steps():
    """|μ| = √R·|d′| where every step is alike; sign: a row whose step lowers the query raises it when removed."""
    recipe, s = frozen(epochs=20)
    tape = fi.train(recipe)
    found = fi.estimate(
        tape, LEVEL, method="fine", records=25, subsets={i: [i] for i in range(20)} | {"g": [0, 3]}
    )
    expected = [-by_definition(s, rows, 8) * 5 for rows in [[i] for i in range(20)] + [[0, 3]]]
    np.testing.assert_allclose(found.data.mu.values[:, 0], expected, rtol=1e-5)
    above = s > s.mean()
    assert (found.data.mu.values[:20, 0][above] > 0).all() and (
        found.data.mu.values[:20, 0][~above] < 0
    ).all()
    assert found.has_mu and not found.has_effect and "effect" not in found.data


@pytest.mark.parametrize("method", ["fine", "fine-mc"])
def test_scale_and_sign_of_the_query(method):
    tape = fi.train(pt.recipe(epochs=6))
    x, y = tape.recipe.rows.fields["x"], tape.recipe.rows.fields["y"]

    def scaled(factor):
        return fi.Query(lambda m: factor * nn.functional.cross_entropy(m(x), y), name=f"{factor}")

    mu = fi.estimate(tape, [scaled(1.0), scaled(9.0), scaled(-1.0)], method=method).data.mu.values
    np.testing.assert_allclose(mu[:, 1], mu[:, 0], rtol=1e-9)
    np.testing.assert_allclose(mu[:, 2], -mu[:, 0], rtol=1e-9)
    assert np.abs(mu).min() > 0


@pytest.mark.slow
def test_monte_carlo_agrees_with_the_closed_form_as_records_grow():
    """810 records of alike steps: |μ_mc + d′| within 4.5 standard errors √(2/R)(1 + d′²/8) for 20 rows (1.4e-4)."""
    recipe, s = frozen()
    tape = fi.train(recipe)
    expected = np.array([-by_definition(s, [i], 8) for i in range(20)])
    errors = {}
    for records in (60, 810):
        found = fi.estimate(tape, LEVEL, method="fine-mc", records=records).data
        errors[records] = np.abs(found.mu.values[:, 0] - expected)
        assert (errors[records] < 4.5 * np.sqrt(2 / records) * (1 + expected**2 / 8)).all()
    assert errors[810].mean() < 0.5 * errors[60].mean()
    assert np.abs(found.mu_scan.values).mean() > np.abs(found.mu.values).mean()


@pytest.mark.slow
def test_difference_in_differences_keeps_the_signal():
    """The auxiliary signal is without S in both arms; with S in it the arms would have equal means."""
    recipe, _ = frozen()
    tape, auxiliary = fi.train(recipe), fi.train(recipe, seed=1)
    plain = fi.estimate(tape, LEVEL, method="fine").data.mu.values[:, 0]
    ours = fi.estimate(tape, LEVEL, method="fine-mc", records=400, auxiliary=auxiliary).data.mu.values[:, 0]
    assert np.corrcoef(plain, ours)[0, 1] > 0.85 and np.abs(ours).max() > 0.5
    s, where = np.random.default_rng(3).normal(size=(20, 1)), [np.array([4])]
    s[4] = 3.0
    draws = [
        (arms(s, where, 8, 0, t, True), arms(s, where, 8, 1, t, k))
        for k in (True, False)
        for t in range(4000)
    ]
    means = np.array([(p - pa) - (q - qa) for (p, q), (pa, qa) in draws])[:, 0, 0].reshape(2, -1)
    error = means.std(1) / np.sqrt(means.shape[1])
    signal = (s[4, 0] - np.delete(s, 4).mean()) / 9
    assert abs(means[0].mean()) < 4 * error[0] < abs(signal)
    assert abs(means[1].mean() - signal) < 4 * error[1]


def test_an_arm_without_s_never_holds_it():
    s = np.zeros((6, 1))
    s[[1, 4]] = 1.0
    p, q = arms(s, [np.array([1, 4])], 5, seed=0, t=0, include=True)
    assert q.item() == 0.0 and p.item() == pytest.approx(2 / 7)
    p, q = arms(s, [np.array([1, 4])], 5, seed=0, t=0, include=False)
    assert p.item() == q.item() == 0.0


def test_recorded_steps_leave_out_the_burn_in():
    done = []
    fi.estimate(
        fi.train(pt.recipe(epochs=10)), fi.own_loss([0]), method="fine", records=1000,
        progress=lambda *call: done.append(call),
    )  # fmt: skip
    assert done == [("record", k, 27) for k in range(1, 28)]


def test_result_says_that_it_has_no_effect_of_its_own():
    found = fi.estimate(fi.train(pt.recipe()), fi.own_loss([0]), method="fine", records=4)
    assert found.data.attrs["method"] == "fine" and found.data.attrs["records"] == 4
    assert "method: fine" in repr(found) and len(found.top(3)) == 3


def test_an_auxiliary_run_is_another_run_of_the_same_recipe():
    tape = fi.train(pt.recipe())
    for auxiliary, got, cause in (
        (tape, "the same seeds (0, 0)", "passed twice"),
        (fi.train(pt.recipe(data=pt.table(seed=9)), seed=1), "a run of another recipe", "mixed up"),
    ):
        with pytest.raises(ConfigError) as caught:
            fi.estimate(tape, LEVEL_OF_MLP, method="fine-mc", auxiliary=auxiliary)
        assert_parts(caught.value, "another run of the same recipe", got, cause, "another seed")
    with pytest.raises(ConfigError) as caught:
        fi.estimate(tape, LEVEL_OF_MLP, method="fine-mc", auxiliary=pt.recipe())
    assert_parts(
        caught.value,
        "auxiliary to be a tape",
        "of type Recipe",
        "the recipe of the second",
        "fi.train(recipe, seed=1)",
    )


def test_samples_that_no_memory_holds_are_refused():
    with pytest.raises(ConfigError) as caught:
        fi.estimate(fi.train(pt.recipe()), LEVEL_OF_MLP, method="fine-mc", records=300_000_000)
    assert_parts(
        caught.value,
        "records × subsets small enough",
        "300000000 × 12",
        "too many steps",
        "name fewer subsets",
    )


@pytest.mark.parametrize("method", ["fine", "fine-mc"])
@pytest.mark.parametrize("records", [0, -3, 1.5, "all", True])
def test_records_are_a_whole_number(method, records):
    with pytest.raises(ConfigError) as caught:
        fi.estimate(fi.train(pt.recipe()), LEVEL_OF_MLP, method=method, records=records)
    assert_parts(
        caught.value,
        "records to be a whole number of at least 1",
        repr(records),
        "a share or a text",
        "records=100",
    )


def test_a_loss_that_cannot_be_differentiated_along_a_direction_is_not_supported():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return torch.from_numpy(2 * gradient.detach().numpy())

    recipe = pt.recipe(loss=lambda m, b: Doubled.apply(pt.class_loss(m, b)))
    support = Fine().supports(fi.train(recipe))
    assert not support and "derivative" in support.reason
