"""Pooling runs: averages, moderated errors, what random initialisation adds, and what is refused."""

from typing import Any

import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.result import Influence, pool


def run(seed: int, effect: float, value: float = 1.0, effect_se: float = 0.1, **changes: Any) -> Influence:
    attrs = {
        "method": "online", "runs": 1, "covers": ["batch order"], "n_rows": 1, "seeds": [{"init": seed, "order": seed}],
        "recipe": {"initialisation": "fixed"}, "recipe_digest": "r", "query_values": [[value]], **changes,
    }  # fmt: skip
    return Influence.build(
        effect=[[effect]], effect_se=[[effect_se]], spread=[[2.0]], se=[[0.1]], p_value=[[0.5]], subsets=["a"],
        queries=["q"], own_loss=[float(seed)], provenance=attrs,
    )  # fmt: skip


def test_effects_average_and_the_error_mixes_both_sources() -> None:
    pooled = pool([run(0, 1.0), run(1, 2.0), run(2, 3.0)])
    assert pooled.data.effect.item() == 2.0
    between, within = 1.0, 0.01
    expected = np.sqrt((4 * within + 2 * between) / 6 / 3)
    assert pooled.data.effect_se.item() == pytest.approx(expected)
    assert pooled.data.attrs["runs"] == 3
    assert pooled.data.own_loss.item() == 1.0
    assert pooled.data.spread.item() == 2.0


def test_a_run_without_an_error_of_its_own_leaves_the_others() -> None:
    pooled = pool([run(0, 1.0, effect_se=np.nan), run(1, 2.0)])
    assert pooled.data.effect_se.item() == pytest.approx(np.sqrt((4 * 0.01 + 0.5) / 5 / 2))
    alone = pool([run(0, 1.0, effect_se=np.nan), run(1, 2.0, effect_se=np.nan)])
    assert alone.data.effect_se.item() == pytest.approx(np.sqrt(0.5 / 2))


def test_random_initialisation_widens_the_spread_by_what_values_vary_beyond_it() -> None:
    values = [0.0, 10.0, 20.0]
    pooled = pool([run(s, 1.0, v, uncovered=["initialisation"]) for s, v in enumerate(values)])
    assert pooled.data.spread.item() == pytest.approx(10.0)
    assert pooled.data.attrs["covers"] == ["batch order", "initialisation"]
    calm = pool([run(s, 1.0, 1.0, uncovered=["initialisation"]) for s in range(3)])
    assert calm.data.spread.item() == pytest.approx(2.0)


def test_the_order_of_runs_does_not_matter() -> None:
    runs = [run(s, float(s) ** 2, float(s)) for s in range(4)]
    forward, backward = pool(runs).data, pool(runs[::-1]).data
    for name in ("effect", "effect_se", "spread", "mu", "lower", "upper"):
        np.testing.assert_allclose(forward[name].values, backward[name].values, rtol=1e-12)


def test_one_run_is_returned_as_it_is() -> None:
    single = run(0, 1.0)
    assert pool([single]) is single


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([], "no result"),
        ([run(0, 1.0), run(0, 2.0)], "one run"),
        ([run(0, 1.0), run(1, 2.0, recipe_digest="other")], "different recipes"),
    ],
)
def test_what_cannot_be_pooled_is_refused_in_words(runs: list[Influence], words: str) -> None:
    with pytest.raises(DataError) as error:
        pool(runs)
    assert words in str(error.value)
    assert "expected replayed results of one recipe" in str(error.value)
    assert "next step: replay every run with the same queries" in str(error.value)
