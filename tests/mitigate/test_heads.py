"""Heads on frozen features: exact terms, what a head does and refuses, and who is right more often."""

import numpy as np
import pytest
import torch

from finfluence.errors import ConfigError, DataError, TrainingError
from finfluence.mitigate import (
    HEADS,
    HeadOptions,
    compare_heads,
    consistency,
    covariance,
    dominant,
    nmtune,
    reweight,
    spectrum,
    terms,
)

F = torch.tensor([[1, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 1.0]], dtype=torch.float64)
Z = torch.tensor([[1, 0.5, 0], [0, 2, 0.5], [0.5, 0, 2], [1, 1, 2.0]], dtype=torch.float64)
SHORT = HeadOptions(epochs=4)


def rows(n: int, seed: int, distance: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    return rng.normal(size=(n, 6)) + distance * np.eye(6)[y], np.array(["a", "b", "c"])[y]


def test_terms_have_the_values_worked_out_by_hand():
    found = terms(F, Z)
    np.testing.assert_allclose(
        [float(v) for v in (found.consistency, found.covariance, found.dominant, found.total)],
        [0.0370798, 0.1027199, -1 / 3, 0.0408553],
        atol=1e-7,
    )


def test_spectrum_has_the_values_worked_out_by_hand():
    found = spectrum(Z.numpy())
    np.testing.assert_allclose(found.values, [3.366614, 1.851416, 0.994066], atol=1e-6)
    np.testing.assert_allclose([found.entropy, found.dominance], [0.986005, 0.612591], atol=1e-6)


def test_unchanged_features_cost_nothing_and_no_gradient_flows_into_the_encoder():
    f = F.clone().requires_grad_()
    assert float(consistency(f, f.detach())) == 0.0
    z = Z.clone().requires_grad_()
    terms(f, z).total.backward()
    assert f.grad is None and z.grad is not None


def test_covariance_is_of_centred_features_and_the_dominant_term_of_raw_ones():
    moved = Z + 3.0
    torch.testing.assert_close(covariance(moved), covariance(Z))
    many = torch.eye(9, dtype=torch.float64)
    assert float(dominant(many + 3.0)) < float(dominant(many)) - 0.05
    wide = torch.diag(torch.arange(1.0, 9.0))
    np.testing.assert_allclose(float(dominant(wide)), -(8 + 7 + 6 + 5 + 4) / 5 / 36)


def test_a_new_residual_head_with_a_silent_network_is_the_identity():
    head = nmtune(*rows(60, 0), options=SHORT)
    residual = head.module[0]
    with torch.no_grad():
        for p in residual.mlp[-1].parameters():
            p.zero_()
    x, _ = rows(10, 1)
    np.testing.assert_allclose(head.transform(x), (x - head.mean.numpy()) / head.scale.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_each_head_learns_and_keeps_names_of_classes(kind):
    head = nmtune(*rows(300, 2), kind=kind)
    x, y = rows(300, 3)
    p = head.predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-6)
    assert (head.classes[p.argmax(1)] == y).mean() > 0.7
    assert head.losses[-1] < head.losses[0]


def test_one_seed_one_head_another_seed_another():
    p = [nmtune(*rows(80, 4), seed=s, options=SHORT).predict_proba(rows(20, 5)[0]) for s in (0, 0, 1)]
    np.testing.assert_array_equal(p[0], p[1])
    assert (p[0] != p[2]).any()


def test_training_a_head_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    nmtune(*rows(40, 6), options=SHORT)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_of_weight_zero_do_not_teach_a_linear_probe():
    x, y = rows(200, 7)
    wrong = np.random.default_rng(8).random(200) < 0.4
    noisy = np.where(wrong, "a", y)
    long = HeadOptions(epochs=100)
    held = rows(500, 9)

    def accuracy(weights):
        head = nmtune(x, noisy, kind="linear", weights=weights, options=long)
        return (head.classes[head.predict_proba(held[0]).argmax(1)] == held[1]).mean()

    assert accuracy(reweight(wrong.astype(float))) > accuracy(None) + 0.03


def test_scaling_all_weights_changes_nothing():
    x, y = rows(50, 10)
    w = np.random.default_rng(11).random(50) + 0.1
    first, second = (nmtune(x, y, weights=f * w, options=SHORT).predict_proba(x) for f in (1.0, 4.0))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_where_heads_are_equal_the_simplest_is_best():
    train, held = rows(300, 12), rows(300, 13)
    found = compare_heads(train, held, seeds=(0, 1, 2), options=HeadOptions(epochs=20))
    assert found.right.shape == (3, 3, 300)
    assert found.lower <= found.difference <= found.upper
    assert found.best == "linear" or found.accuracy[found.best] > found.accuracy["linear"]
    assert "singular value entropy" in str(found)
    again = compare_heads(train, held, seeds=(0, 1, 2), options=HeadOptions(epochs=20))
    np.testing.assert_array_equal(found.right, again.right)


@pytest.mark.slow
def test_a_curved_boundary_is_for_the_larger_heads():
    rng = np.random.default_rng(14)
    x = np.tile(rng.normal(size=(900, 2)), 4)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    found = compare_heads(
        (x[:600], y[:600]), (x[600:], y[600:]), seeds=(0, 1), options=HeadOptions(60, learning_rate=0.01)
    )
    assert found.best == max(("mlp", "nmtune"), key=found.accuracy.__getitem__)
    assert found.lower > 0.1 and np.isnan(found.mu)
    assert "right more often" in str(found)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, y: nmtune(x[:, 0], y), DataError, "rows × dimensions"),
        (lambda x, y: nmtune(np.where(x > 2, np.nan, x), y), DataError, "the first is row"),
        (lambda x, y: nmtune(x, y[:-1]), DataError, "one label for each of 40 rows"),
        (lambda x, y: nmtune(x, np.full(40, "a")), DataError, "at least two classes"),
        (lambda x, y: nmtune(x, y, weights=-np.ones(40)), DataError, "none negative"),
        (lambda x, y: nmtune(x, y, kind="mpl"), ConfigError, "linear, mlp, nmtune"),
        (lambda x, y: nmtune(x, y, options=HeadOptions(epochs=0)), ConfigError, "at least one epoch"),
        (
            lambda x, y: nmtune(x, y, options=HeadOptions(epochs=3, learning_rate=1e30)),
            TrainingError,
            "finite loss",
        ),
        (lambda x, y: nmtune(x, y, options=SHORT).predict_proba(x[:, :2]), DataError, "6 dimensions"),
        (lambda x, y: spectrum(np.zeros((3, 2))), DataError, "not all zero"),
        (lambda x, y: reweight([1.5]), DataError, "p_wrong"),
        (lambda x, y: reweight([0.5], floor=10), ConfigError, "0.1 for a tenth"),
        (lambda x, y: compare_heads((x, y), (x, np.full(40, "z"))), DataError, "split each class"),
        (lambda x, y: compare_heads((x, y), (x, y), seeds=()), DataError, "at least one seed"),
    ],
)
def test_bad_input_is_told(call, error, words):
    with pytest.raises(error, match=words):
        call(*rows(40, 15))


def test_weights_are_the_chance_of_not_being_harmful():
    np.testing.assert_array_equal(reweight([0, 0.5, 1, np.nan], floor=0.1), [1, 0.5, 0.1, 1])
