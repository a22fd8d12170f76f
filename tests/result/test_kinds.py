"""Effects, μ alone, scores alone: what each can do, and how the rest is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results import MADE, VALUES, effects, mu_alone, scores

from finfluence.errors import DataError, NotSupportedError
from finfluence.result import Influence, load, need_effect, pool
from four_parts import assert_parts


def test_each_kind_knows_what_it_holds() -> None:
    assert [(i.has_mu, i.has_effect) for i in (effects(), mu_alone(), scores())] == [
        (True, True), (True, False), (False, False),
    ]  # fmt: skip
    assert set(mu_alone().data.data_vars) == {"mu", "own_loss"}
    assert set(scores().data.data_vars) == {"score", "own_loss"}


def test_mu_ranks_by_the_sign_of_the_query_and_scores_as_they_are() -> None:
    for query in ("held-out", "accuracy"):
        for direction in ("harmful", "helpful", "both"):
            ranked = [i.top(4, query, direction).row_id.tolist() for i in (effects(), mu_alone())]
            assert ranked[0] == ranked[1]
    assert mu_alone().top(1, "held-out").row_id.tolist() == ["d"]
    for query in ("held-out", "accuracy"):
        assert scores().top(1, query).row_id.tolist() == ["a"]
        assert scores().top(1, query, "helpful").row_id.tolist() == [
            {"held-out": "d", "accuracy": "b"}[query]
        ]
    assert scores().to_frame().columns.tolist() == ["row_id", "query", "score", "own_loss"]


def test_scores_say_what_they_are() -> None:
    text = repr(scores())
    assert "scores only: they rank, they carry no unit and no error rate" in text
    assert "from 1 training run (method: example)" in text and "spread" not in text
    assert "score of 'held-out': larger is more harmful or more suspect" in text and "[nats]" not in text
    assert "score from -4 to +2, median |score| 1.5" in text
    assert "select" not in text
    assert "mu from -4 to +2, median |mu| 1.5\n" in repr(mu_alone())


NEED_MU: dict[str, Callable[[Influence], Any]] = {
    "select": lambda i: i.select(),
    "power": lambda i: i.power(),
    "a trade-off function": lambda i: i.tradeoff("a"),
    "harm": lambda i: i.harm(),
    "pooling": lambda i: pool([i, i]),
}


@pytest.mark.parametrize("what", NEED_MU)
def test_whatever_needs_mu_refuses_scores(what: str) -> None:
    with pytest.raises(NotSupportedError) as caught:
        NEED_MU[what](scores())
    assert_parts(
        caught.value, f"an influence with mu for {what}",
        "scores only: they rank, they carry no unit and no error rate (method: example)",
        "compares rows with one another, not with the randomness of training", "rank by .top(), or estimate with",
    )  # fmt: skip


def test_whatever_needs_effects_refuses_mu_alone() -> None:
    with pytest.raises(NotSupportedError) as caught:
        need_effect(mu_alone().data, "a sum")
    assert_parts(
        caught.value, "an influence with effects for a sum", "mu alone (method: example)",
        "without an effect in the query's unit", "estimate with a method that gives effects",
    )  # fmt: skip
    need_effect(effects().data, "a sum")


def test_mu_alone_selects_by_the_empirical_null() -> None:
    mu = np.r_[np.random.default_rng(0).laplace(size=500), np.full(40, -30.0)][:, None]
    found = Influence.build(mu=mu, subsets=range(540), queries=["q"], provenance=MADE).select(fdr=0.1)
    assert len(set(found.row_id) & set(range(500, 540))) == 40


@pytest.mark.parametrize("made", [scores, mu_alone])
def test_the_kinds_survive_saving(tmp_path: Path, made: Callable[[], Influence]) -> None:
    made().save(tmp_path / "r.zarr")
    for lazy in (False, True):
        assert load(tmp_path / "r.zarr", lazy=lazy).data.equals(made().data)
    assert repr(load(tmp_path / "r.zarr")) == repr(made())


def test_the_report_of_scores_ranks_and_says_that_nothing_was_decided(tmp_path: Path) -> None:
    scores().report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Scores rank 4 rows; they carry no error rate, so nothing was decided." in page
    assert "Scores only: they rank, they carry no unit and no error rate." in page
    assert "Ranking by score on “held-out”, most harmful first" in page
    first = page.index('<h2 id="h-table-1">Ranking by score on “held-out”')
    assert page.index(">a</td>", first) < page.index(">b</td>", first) < page.index(">d</td>", first)
    mu_alone().report(tmp_path / "mu.html")
    assert "Nothing can be told from training noise" in (tmp_path / "mu.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        ({}, "none of them"),
        ({"score": VALUES, "mu": VALUES}, "mu, score"),
        ({"effect": VALUES, "spread": VALUES}, "effect, spread"),
        ({"mu": VALUES, "se": VALUES}, "mu, se"),
    ],
)
def test_what_is_of_no_kind_is_refused(parts: dict[str, Any], got: str) -> None:
    labels = {"subsets": ["a", "b", "c", "d"], "queries": ["p", "q"], "provenance": MADE}
    with pytest.raises(DataError) as caught:
        Influence.build(**parts, **labels)
    assert_parts(
        caught.value, "one of three: effect, spread, se and p_value together; mu alone; score alone", got,
        "mismatched parts", "nothing is filled in by NaN",
    )  # fmt: skip
