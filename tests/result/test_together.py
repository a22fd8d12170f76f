"""Predictions of a list with what its rows do together: closed form, what cannot be used, and a real replay."""

import numpy as np
import pytest
from torch import nn

import finfluence as fi
from finfluence.errors import DataError, NotSupportedError
from finfluence.result import Influence

ROWS = 40
MADE = {"method": "online", "runs": 1, "covers": ["batch order"], "n_rows": ROWS, "recipe_digest": "r"}


def every_row() -> Influence:
    effect = np.where(np.arange(ROWS) < 4, 9.0, np.random.default_rng(0).normal(size=ROWS))[:, None]
    one = np.ones((ROWS, 1))
    return Influence.build(
        effect=effect, effect_se=one, spread=one, se=one, p_value=one, subsets=range(ROWS), queries=["q"],
        provenance=MADE,
    )  # fmt: skip


def one_list(
    effect: float, linear: float | None, size: int = 4, query: str = "q", digest: str = "r"
) -> Influence:
    one = np.ones((1, 1))
    return Influence.build(
        effect=effect * one, effect_se=one, spread=one, se=one, p_value=one, subsets=["list"], sizes=[size],
        queries=[query], provenance={**MADE, "recipe_digest": digest},
        extra=None if linear is None else {"linear_effect": linear * one},
    )  # fmt: skip


def test_the_shrunken_sum_is_multiplied_by_what_the_list_does_beyond_its_sum() -> None:
    alone = every_row().predict([0, 1, 2, 3])
    found = every_row().predict([0, 1, 2, 3], together=one_list(60.0, 40.0))
    np.testing.assert_allclose(found[["effect", "sd"]], 1.5 * alone[["effect", "sd"]])
    assert found.interaction.tolist() == [1.5] and "interaction" not in alone
    np.testing.assert_array_equal(
        found[["rows", "unshrunken", "sign_error"]], alone[["rows", "unshrunken", "sign_error"]]
    )


@pytest.mark.parametrize("linear", [-40.0, 0.0])
def test_where_effects_cancel_nothing_is_predicted(linear: float) -> None:
    found = every_row().predict([0, 1, 2, 3], together=one_list(60.0, linear))
    assert (
        found[["effect", "sd", "interaction"]].isna().all(axis=None) and np.isfinite(found.unshrunken).all()
    )


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (every_row(), DataError, "only subset holds the 4 rows"),
        (one_list(60.0, 40.0, size=5), DataError, "1 subsets of 5 rows"),
        (one_list(60.0, 40.0, query="p"), DataError, "replay it for the same queries"),
        (one_list(60.0, 40.0, digest="s"), DataError, "recipes r and s"),
        (one_list(60.0, None), NotSupportedError, "groups='paired'"),
        (one_list(60.0, np.nan), NotSupportedError, "an effect of first order"),
    ],
)
def test_what_is_of_something_else_is_refused_in_words(
    other: Influence, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")):
        every_row().predict([0, 1, 2, 3], together=other)


def test_a_list_of_a_training_is_replayed_as_one_subset() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    y = x @ np.array([1.0, -1.0, 0.5], np.float32)
    recipe = fi.Recipe(
        data=fi.Rows(x=x, y=y), model=nn.Linear(3, 1), loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2,
        optimizer=fi.SGD(lr=0.05), batch_size=8, epochs=4,
    )  # fmt: skip
    tapes = [fi.train(recipe, seed=k) for k in range(2)]
    asked = fi.mean_loss(x[:5], -y[:5], name="q")
    influence = fi.pool([fi.replay(tape, asked) for tape in tapes])
    worst = influence.top(3, "q").row_id.tolist()
    together = fi.pool([fi.replay(tape, asked, subsets={"worst": worst}) for tape in tapes])
    found = influence.predict(worst, together=together).iloc[0]
    ratio = float(together.data.effect.values[0, 0] / together.data.linear_effect.values[0, 0])
    assert found.interaction == pytest.approx(ratio) and ratio != 1.0
    assert found.effect == pytest.approx(ratio * influence.predict(worst).effect.iloc[0])
