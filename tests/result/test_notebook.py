"""A result in a notebook: what it shows, what it compares, how it is indexed; hostile ids and texts stay text."""

import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from results import MADE, VALUES, effects, mu_alone, scores

from finfluence.errors import ConfigError, DataError, NotSupportedError
from finfluence.result import Influence
from four_parts import assert_parts

HOSTILE = ["<script>alert(1)</script>", "a\u202e\x00b", '" onerror="x', "$\\frac{1}$"]


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.shown += data + "\n"


def many(n: int = 60, planted: int = 1) -> Influence:
    mu = np.random.default_rng(0).normal(size=(n, 1)) / 3
    mu[:planted] = -12.0
    one = np.ones_like(mu)
    return Influence.build(
        effect=mu, spread=one, se=0.3 * one, p_value=0.5 * one, subsets=[f"row-{i}" for i in range(n)],
        queries=["held-out"], provenance=replace(MADE, n_rows=n, findings=("Something to know.",)),
    )  # fmt: skip


def test_it_shows_verdict_sign_rows_and_findings() -> None:
    page = Tags(many(planted=12)._repr_html_())
    for words in (
        "of 60 rows make 'held-out' worse", "mu > 0: removing the rows raises 'held-out' [nats], so the rows help",
        "Spread over batch order, from 1 training run", "Most harmful", "Most helpful", "row-0", "q-value", "interval",
        "Something to know.", "FI010",
    ):  # fmt: skip
        assert words in page.shown, words
    assert page.tags.count("tr") == 2 * (10 + 1)
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_scores_and_mu_alone_have_a_face_too() -> None:
    page = Tags(scores()._repr_html_()).shown
    assert "nothing was decided" in page and "q-value" not in page and "1 more query" in page
    assert page.index("\na\n") < page.index("Most helpful") < page.index("\nd\n") < page.index("\nb\n")
    assert "q-value" in Tags(mu_alone()._repr_html_()).shown
    assert "interval" not in Tags(mu_alone()._repr_html_()).shown.replace("intervals", "")
    assert "0 rows" in many().data.isel(subset=[]).pipe(Influence)._repr_html_()


def test_hostile_ids_queries_and_findings_stay_text() -> None:
    made = replace(MADE, findings=("<img src=x onerror=alert(1)>\u2066",))
    found = effects(subsets=HOSTILE, queries=["<b>q</b>", "r\x1b"], provenance=made)
    pieces = [found._repr_html_(), found.grid([f"<i>{h}" for h in HOSTILE]).html]
    pieces.append(found.grid(np.zeros((4, 8, 8), dtype=np.uint8)).html)
    for piece in pieces:
        page = Tags(piece)
        assert not {"script", "b ", "i"} & set(page.tags) and "onerror" not in page.attributes
        assert "\u202e" not in piece and "\x00" not in piece and "\x1b" not in piece and "\u2066" not in piece
        assert "<script>alert(1)</script>" in page.shown and "a⟨U+202E⟩⟨U+0000⟩b" in page.shown
    assert Tags(pieces[0]).tags.count("img") == 0 and Tags(pieces[2]).tags.count("img") == 4


def test_length_iteration_and_indexing_by_id() -> None:
    influence = effects()
    assert len(influence) == 4 and list(influence) == ["a", "b", "c", "d"] and bool(influence)
    line = influence["b"]
    assert line.index.tolist() == ["held-out", "accuracy"] and line.loc["held-out", "mu"] == -1.0
    assert effects(subsets=[10, 20, 30, 40])[20].loc["accuracy", "mu"] == -2.0
    with pytest.raises(DataError) as caught:
        many()["row-x7"]
    assert_parts(
        caught.value, "one of the 60 subsets, such as 'row-0', 'row-1', 'row-2'", "'row-x7'", "a mistyped id",
        "did you mean 'row-7'",
    )  # fmt: skip
    with pytest.raises(DataError, match="'20', a str where ids are int"):
        effects(subsets=[10, 20, 30, 40])["20"]


def test_comparing_two_results() -> None:
    alike = effects().compare(effects(effect=VALUES * 2), k=2)
    assert [(q.query, q.k, q.jaccard, round(q.pearson, 9)) for q in alike.queries] == [
        ("held-out", 2, 1.0, 1.0), ("accuracy", 2, 1.0, 1.0),
    ]  # fmt: skip
    assert alike.queries[0].chance == pytest.approx(2 / (2 * 4 - 2)) and alike.frame().shape == (2, 7)
    assert "Pearson 1.000, Spearman 1.000; of the 2 most harmful a share of 1.000 is common" in repr(alike)
    turned = effects().compare(scores(score=VALUES), k=1).queries[0]
    assert turned.spearman == pytest.approx(-1.0) and turned.jaccard == 0.0
    shuffled = effects(subsets=["d", "c", "b", "z"], effect=VALUES[[3, 2, 1, 0]], own_loss=None)
    some = effects().compare(shuffled).queries[0]
    assert some.shared == 3 and some.pearson == pytest.approx(1.0) and some.k == 1
    assert np.isnan(effects().compare(effects(effect=np.ones((4, 2)))).queries[0].pearson)


def test_two_random_rankings_agree_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    labels: dict[str, Any] = {
        "subsets": range(2000),
        "queries": [f"q{i}" for i in range(40)],
        "provenance": MADE,
    }
    first, second = (Influence.build(score=rng.normal(size=(2000, 40)), **labels) for _ in range(2))
    found = first.compare(second, k=200).frame()
    assert found.chance[0] == 200 / 3800
    assert found.jaccard.mean() == pytest.approx(200 / 3800, abs=4 * found.jaccard.std() / 40**0.5)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError) as caught:
        effects().compare(effects(queries=["p", "q"]))
    assert_parts(
        caught.value, "two results with a query in common", "'held-out', 'accuracy' and 'p', 'q'", "named differently",
        "the same queries",
    )  # fmt: skip
    with pytest.raises(DataError) as none:
        effects().compare(effects(subsets=[1, 2, 3, 4]))
    assert_parts(
        none.value, "rows in common on 'held-out'", "0 shared rows", "another type", "give the rows ids="
    )
    for k in (0, 5, 0.5, True):
        with pytest.raises(ConfigError) as wrong:
            effects().compare(effects(), k=k)  # type: ignore[arg-type]
        assert_parts(wrong.value, "from 1 to the 4 shared rows", repr(k), "a share was passed", "leave k out")


def test_grids_of_images_and_texts() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, size=(4, 8, 8), dtype=np.uint8)
    grid = effects().grid(images, n=2)
    assert grid.count == 2 and grid._repr_html_() == grid.html and "Grid of 2 rows" in repr(grid)
    assert grid.html.index("μ −4.00") < grid.html.index("μ −1.00")
    assert grid.html.count("data:image/png;base64,") == 2
    first = np.moveaxis(np.stack([images] * 3, axis=-1), -1, 1)
    assert effects().grid(first / 255.0, n=1).count == effects().grid({"a": images[0]}, rows=["a"]).count == 1
    assert "score 2.00" in scores().grid(["one", "two", "three", "four"], n=1).html
    assert "four" in scores().grid(["one", "two", "three", "four"], rows=["d"]).html


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (None, "none"),
        (["x"], "1 items for 4 rows"),
        ({"a": "x"}, "a mapping without row 'd'"),
        ("text", "str"),
    ],
)
def test_a_grid_needs_the_rows_themselves(data: Any, got: str) -> None:
    with pytest.raises(DataError) as caught:
        effects().grid(data)
    assert_parts(
        caught.value,
        "data= to hold what each row looks like",
        got,
        "not the rows",
        "pass data=images (or texts)",
    )
    with pytest.raises(DataError, match="'e'"):
        effects().grid(["w", "x", "y", "z"], rows=["a", "e"])


@pytest.mark.parametrize("kind", ["intervals", "distribution", "tradeoff"])
def test_plots_are_drawn_with_any_ids(kind: Any) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    hostile = effects(subsets=HOSTILE, queries=["$x", "r"])
    for influence in (many(planted=12), hostile):
        axes = influence.plot(kind, n=3)
        axes.figure.canvas.draw()
        pyplot.close(axes.figure)
    if kind == "intervals":
        axes = many(planted=12).plot(kind, n=3)
        assert [t.get_text() for t in axes.get_yticklabels()] == ["row-0", "row-1", "row-2"]
        assert axes.get_xlabel() == "μ on held-out, 95 % intervals"
        again = many().plot("tradeoff", subset="row-3", ax=axes)
        assert again is axes and axes.get_title() == "Row row-3 on held-out"
        pyplot.close(axes.figure)


def test_plots_refuse_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotSupportedError, match=r"an influence with mu for a plot of the distribution"):
        scores().plot("distribution")
    with pytest.raises(NotSupportedError, match=r"an influence with effects for a plot of the intervals"):
        mu_alone().plot()
    with pytest.raises(ConfigError, match="did you mean 'intervals'"):
        effects().plot("interval")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one of the 4 subsets"):
        effects().plot("tradeoff", subset="e")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ConfigError) as caught:
        effects().plot()
    assert_parts(
        caught.value,
        "the library 'matplotlib', which draws the plots",
        "it cannot be imported",
        "its extra 'plot'",
        "or use .report",
    )
