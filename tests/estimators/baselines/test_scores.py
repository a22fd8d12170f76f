import sys

import numpy as np
import pytest
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import DataError, NotSupportedError
from finfluence.estimators.baselines import (
    Cleanlab,
    Margin,
    cleanlab_score,
    loss_score,
    margin_score,
    random_score,
)
from finfluence.evaluate import average_precision
from four_parts import assert_parts


def flipped(seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, size=300)
    p = np.full((300, 3), 0.1)
    p[np.arange(300), true] = 0.8
    p += rng.uniform(0, 0.05, size=p.shape)
    wrong = np.arange(300) < 30
    return p / p.sum(axis=1, keepdims=True), np.where(wrong, (true + 1) % 3, true), wrong


def test_each_baseline_finds_flips_and_chance_does_not():
    p, y, wrong = flipped()
    for score in (loss_score, margin_score, cleanlab_score):
        assert average_precision(score(p, y), wrong) == pytest.approx(1.0)
    assert average_precision(random_score(300), wrong) < 0.3


def test_values():
    p = np.array([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]])
    np.testing.assert_allclose(margin_score(p, [1, 2]), [0.5, -0.2])
    np.testing.assert_allclose(loss_score(p, [0, 0]), [-np.log(0.7), 708.3964], rtol=1e-6)
    shuffle = [1, 0]
    np.testing.assert_array_equal(margin_score(p[shuffle], [2, 1]), margin_score(p, [1, 2])[shuffle])


def test_random_has_its_own_stream():
    assert not np.array_equal(random_score(5, seed=0), random_score(5, seed=1))


def test_missing_cleanlab_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    with pytest.raises(NotSupportedError, match=r"pip install 'finfluence\[baselines\]'"):
        cleanlab_score(*flipped()[:2])


def test_words_of_the_errors():
    with pytest.raises(DataError, match="labels by name, or a regression"):
        loss_score([[0.5, 0.5]], ["cat"])
    with pytest.raises(DataError, match="class index of every row"):
        margin_score([[0.5, 0.5]], [2])
    with pytest.raises(DataError, match="logits instead of probabilities"):
        loss_score([[3.0, -1.0]], [0])


def test_scores_of_a_run_are_those_of_its_outputs():
    tape = fi.train(pt.recipe())
    model, rows = tape.model(), tape.recipe.rows
    p = model(rows.fields["x"]).softmax(1).detach().numpy()
    y = rows.fields["y"].numpy()
    for method, score in (("own-loss", loss_score), ("margin", margin_score), ("cleanlab", cleanlab_score)):
        found = fi.estimate(tape, fi.own_loss([0]), method)
        assert found.queries == [method] and found.data.attrs["covers"] == []
        np.testing.assert_allclose(found.data.score.values[:, 0], score(p, y), rtol=1e-12)
    drawn = fi.estimate(tape, fi.own_loss([0]), "random", seed=4).data.score.values[:, 0]
    np.testing.assert_array_equal(drawn, random_score(12, seed=4))


def test_probabilities_are_taken_as_they_are():
    recipe = pt.recipe(
        model=pt.made(lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))),
        loss=lambda m, b: nn.functional.nll_loss(m(b["x"]).log(), b["y"], reduction="none"),
    )
    tape = fi.train(recipe)
    p = tape.model()(recipe.rows.fields["x"]).detach().numpy()
    found = fi.estimate(tape, fi.own_loss([0]), "margin").data.score.values[:, 0]
    np.testing.assert_allclose(found, margin_score(p, recipe.rows.fields["y"].numpy()), rtol=1e-12)


@pytest.mark.parametrize("made", [Margin, Cleanlab])
def test_what_is_no_classifier_is_not_supported(made):
    one = pt.recipe(
        data=fi.Rows(x=np.eye(8), y=np.arange(8.0)), model=nn.Linear(8, 1), loss=pt.square_loss,
    )  # fmt: skip
    target = pt.recipe(
        data=fi.Rows(x=np.eye(8), y=np.arange(8.0)), model=nn.Linear(8, 2), loss=pt.square_loss,
    )  # fmt: skip
    nameless = pt.recipe(
        data=fi.Rows(image=np.eye(8), y=np.arange(8) % 2), model=nn.Linear(8, 2),
        loss=lambda m, b: nn.functional.cross_entropy(m(b["image"]), b["y"], reduction="none"),
    )  # fmt: skip
    few = pt.recipe(
        data=fi.Rows(x=np.eye(8), y=np.arange(8) + 2), model=nn.Linear(8, 2),
        loss=lambda m, b: m(b["x"])[:, 0] ** 2,
    )  # fmt: skip
    for recipe, got in (
        (one, "outputs of shape (2, 1)"), (target, "labels of shape (2,) and type torch.float32"),
        (nameless, "fields id, image, y"), (few, "labels from 2 to 3 of 2 classes"),
    ):  # fmt: skip
        tape = fi.train(recipe)
        support = made().supports(tape)
        assert not support
        with pytest.raises(NotSupportedError) as caught:
            made().estimate(tape, fi.own_loss([0]))
        assert str(caught.value) == support.reason
        assert_parts(caught.value, "a classifier", got, "a regression", "use method='own-loss'")


def test_cleanlab_is_an_extra_that_fi_estimate_can_do_without(monkeypatch):
    tape = fi.train(pt.recipe())
    assert Cleanlab().supports(tape)
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    with pytest.raises(
        NotSupportedError, match=r"(?s)the library 'cleanlab'.*on this source work: .*'margin'"
    ) as caught:
        fi.estimate(tape, fi.own_loss([0]), "cleanlab")
    assert "'cleanlab'" not in str(caught.value).partition("on this source work")[2]
