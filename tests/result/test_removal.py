"""What removing chosen rows does, by the ratios of the retrained groups."""

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import ConfigError
from finfluence.result import Influence, Provenance, load, removal_interval, report_content
from finfluence.stats import shrink
from finfluence.verification import Verification, choose


def points(ratios, kind="top", size=5):
    effect = np.linspace(1.0, 2.0, len(ratios))
    return pd.DataFrame(
        {"kind": kind, "query": "held-out", "size": size, "effect": effect, "true_effect": effect * ratios}
    )


def test_ends_are_order_statistics_of_the_ratios():
    ratios = [0.9, 0.5, 1.2, 0.7, 0.8, 1.0, 0.6, 1.1, 0.65]  # nine: at 80 % the smallest and the largest
    found = removal_interval(points(ratios), "held-out", 2.0, 5)
    assert (found.lower, found.upper) == pytest.approx((1.0, 2.4))
    negative = removal_interval(points(ratios), "held-out", -2.0, 5)
    assert (negative.lower, negative.upper) == pytest.approx((-2.4, -1.0))
    half = removal_interval(points(ratios), "held-out", 2.0, 5, level=0.6)  # the second of each side
    assert (half.lower, half.upper) == pytest.approx((1.2, 2.2))


def test_groups_from_the_middle_and_other_queries_do_not_count():
    base = points(np.full(9, 0.8))
    middle = points(np.full(9, 9.0), kind="middle")
    other = points(np.full(9, 9.0)).assign(query="class a")
    found = removal_interval(pd.concat([base, middle, other]), "held-out", 1.0, 5)
    assert (found.lower, found.upper, found.groups) == pytest.approx((0.8, 0.8, 9))


@pytest.mark.parametrize("ratios", [[0.9] * 8, [], [np.nan] * 12])
def test_too_few_groups_have_no_ends_and_say_so(ratios):
    found = removal_interval(points(np.array(ratios)), "held-out", 1.0, 5)
    assert (found.lower, found.upper) == (-np.inf, np.inf)
    assert "at least 9 retrained groups" in found.sentence and f"there are {found.groups}." in found.sentence


def test_more_rows_than_any_group_had_are_said():
    assert "none had more than 5 rows" in removal_interval(points([0.9] * 9), "held-out", 1.0, 6).sentence
    assert "none had" not in removal_interval(points([0.9] * 9), "held-out", 1.0, 5).sentence


def test_a_level_in_per_cent_is_told():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        removal_interval(points([0.9] * 9), "held-out", 1.0, 5, level=80)


def test_it_holds_for_the_worst_rows_where_the_shrunken_sum_does_not():
    held, naive = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        effects = rng.standard_t(3, 400)
        estimate = effects / rng.choice([0.6, 1.5]) + rng.normal(size=400)
        found = shrink(estimate, np.ones(400))
        groups = choose(estimate[:, None], 24, 6, seed)
        table = pd.DataFrame(
            {
                "kind": [g.kind for g in groups],
                "query": "held-out",
                "size": 6,
                "effect": [found.mean[g.rows].sum() for g in groups],
                "true_effect": [effects[g.rows].sum() + rng.normal() for g in groups],
            }
        )
        worst = np.argsort(estimate)[:6]
        truth, said = effects[worst].sum(), found.mean[worst].sum()
        told = removal_interval(table, "held-out", said, 6)
        held.append(told.lower <= truth <= told.upper)
        naive.append(abs(truth - said) <= 1.2816 * np.sqrt((found.sd[worst] ** 2).sum()))
    assert np.mean(held) >= 0.8 > 0.5 > np.mean(naive)


def of_eighty(**changes):
    rng = np.random.default_rng(0)
    effect = np.where(np.arange(80) < 6, -12.0, rng.normal(size=80))[:, None] * [1.0, 0.5]
    one = np.ones_like(effect)
    made = Provenance(method="example", runs=1, covers=("batch order",), n_rows=80, **changes)
    return Influence.build(
        effect=effect, effect_se=one, spread=one, se=one, p_value=0.001 * one, subsets=range(80),
        queries=["held-out", "class a"], signs=[-1, -1], provenance=made,
    )  # fmt: skip


def verified(ratios):
    groups = points(ratios)
    return Verification("passed", "Trust it.", (), groups, {}, (), {"runs": 10}).attach(of_eighty())


def test_a_selection_says_what_its_removal_does_from_the_result_itself(tmp_path):
    verified(np.linspace(0.5, 1.3, 9)).save(tmp_path / "influence.zarr")
    influence = load(tmp_path / "influence.zarr")
    chosen = influence.select(query=["held-out", "class a"], interval="feedback")
    told = chosen.attrs["removal"]["held-out"]
    assert told.rows == len(chosen) > 5 and told.known
    predicted = influence.predict(chosen["row_id"].tolist(), "held-out")["effect"].iloc[0]
    assert (told.lower, told.upper) == pytest.approx((1.3 * predicted, 0.5 * predicted))
    assert not chosen.attrs["removal"]["class a"].known
    assert str(told) == told.sentence
    pd.testing.assert_frame_equal(influence.select(query=["held-out", "class a"]), chosen)


def test_the_verdict_of_a_report_ends_in_it(tmp_path):
    influence = verified(np.linspace(0.5, 1.3, 9))
    chosen = influence.select(interval="feedback")
    influence.report(tmp_path / "report.html", query="held-out")
    assert chosen.attrs["removal"]["held-out"].sentence in report_content(influence.data, "held-out").verdict
    few = verified(np.linspace(0.5, 1.3, 8))
    assert "retrained groups" not in report_content(few.data, "held-out").verdict


def test_nothing_named_has_no_removal():
    influence = of_eighty()
    nothing = Influence(
        influence.data.assign(mu=influence.data["mu"] * 0, effect=influence.data["effect"] * 0)
    )
    assert nothing.select(interval="feedback", pairs=points([1.0] * 9)).attrs["removal"] == {}


@pytest.mark.parametrize(
    ("made", "asked", "words"),
    [
        ({}, {}, "that was not verified.*finfluence verify"),
        ({}, {"direction": "both", "pairs": points([1.0] * 9)}, "one direction for an interval"),
        ({}, {"pairs": points([1.0] * 9).drop(columns="kind")}, "no kind"),
        ({}, {"interval": "naive"}, "did you mean|use one of"),
        ({"contrast": "add"}, {"pairs": points([1.0] * 9)}, "a result of add"),
    ],
)
def test_what_an_interval_needs_is_told(made, asked, words):
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        of_eighty(**made).select(**{"interval": "feedback", **asked})
