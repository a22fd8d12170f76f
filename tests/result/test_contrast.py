"""Effects of adding rows: the sign keeps its sentence, and harm turns round."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from results import MADE, VALUES, effects, scores

from finfluence.errors import DataError
from finfluence.result import pool

ADD = replace(MADE, contrast="add")


def test_adding_what_raises_a_loss_harms() -> None:
    removed, added = effects(), effects(provenance=ADD)
    np.testing.assert_array_equal(added.harm("held-out"), VALUES[:, 0])
    np.testing.assert_array_equal(added.harm("accuracy"), -VALUES[:, 1])
    np.testing.assert_array_equal(added.harm(), -removed.harm())
    assert added.top(1).row_id.tolist() == removed.top(1, direction="helpful").row_id.tolist() == ["a"]
    assert scores(provenance=ADD).top(1).row_id.tolist() == ["a"]


def test_the_sentence_follows() -> None:
    assert "mu > 0: adding the rows raises 'held-out' [nats], so the rows harm; mu < 0: the opposite" in repr(
        effects(provenance=ADD)
    )
    assert "mu > 0: adding the rows raises 'accuracy' [share], so the rows help" in repr(
        effects(provenance=ADD)
    )


def test_the_report_follows(tmp_path: Path) -> None:
    effects(provenance=ADD).report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "mu &gt; 0: adding the rows raises" in page
    assert "Adding it is expected to raise “held-out” by 2.00 nats" in page and "Removing it" not in page
    assert "its addition would be noticed" in page and "its removal" not in page
    assert "adding it makes the query worse" in page
    assert "A row whose addition makes the query worse: harmful to the query asked" in page


def test_removals_and_additions_do_not_pool() -> None:
    one, other = (
        effects(provenance=replace(made, query_values=((1.0, 1.0),), seeds=({"order": k},)))
        for k, made in enumerate((MADE, ADD))
    )
    with pytest.raises(DataError, match="results of removing rows and of adding rows"):
        pool([one, other])
