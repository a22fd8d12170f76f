"""Which subsets are chosen, what groups are estimated at, and what a budget allows."""

import re

import numpy as np
import pytest

from finfluence.errors import ConfigError
from finfluence.result import Influence
from finfluence.verification import (
    Chosen,
    choose,
    choose_given,
    duration,
    fit_to_budget,
    group_estimates,
    measurable_size,
    runs_on_all,
    seconds_of,
    select_queries,
    shrunken_sums,
    trainings,
)


def influence(mu: np.ndarray, spread: float = 2.0, effect_se: float = 0.1, run: int = 0) -> Influence:
    one = np.ones((len(mu), 1))
    column = np.asarray(mu, dtype=float)[:, None]
    relative = 0.25
    return Influence.build(
        effect=spread * column, spread=spread * one, effect_se=effect_se * one,
        se=np.hypot(effect_se / spread, relative * column) * one, p_value=one, subsets=np.arange(len(mu)), queries=["q"],
        provenance={"method": "online", "runs": 1, "covers": ["batch order"], "n_rows": len(mu), "query_values": [[1.0 + run]],
               "seeds": [{"init": run, "order": run}]},
    )  # fmt: skip


def test_top_bottom_and_middle_share_no_row_and_random_is_from_everywhere() -> None:
    mu = np.random.default_rng(0).normal(size=(400, 1))
    groups = choose(mu, 24, 5, seed=3)
    assert [g.kind for g in groups] == ["top"] * 6 + ["bottom"] * 6 + ["middle"] * 6 + ["random"] * 6
    apart = np.concatenate([g.rows for g in groups[:18]])
    assert len(np.unique(apart)) == 90 and {len(g.rows) for g in groups} == {5}
    sums = [float(mu[g.rows].sum()) for g in groups]
    order = np.argsort(-mu[:, 0])
    assert set(np.concatenate([g.rows for g in groups[:6]])) == set(order[:30])
    assert set(np.concatenate([g.rows for g in groups[6:12]])) == set(order[-30:])
    assert sums[:6] == sorted(sums[:6], reverse=True) and sums[6:12] == sorted(sums[6:12])
    assert np.abs(sums[12:18]).max() < np.abs(sums[:12]).min()
    assert [len(choose(mu, n, 1, 0)) for n in (4, 5, 6, 7)] == [4, 5, 6, 7]


def test_choice_follows_the_seed() -> None:
    mu = np.random.default_rng(1).normal(size=(100, 1))

    def rows(seed: int) -> list[list[int]]:
        return [g.rows.tolist() for g in choose(mu, 8, 3, seed)]

    assert rows(1) == rows(1) and rows(1)[:4] == rows(2)[:4] and rows(1)[4:] != rows(2)[4:]


def test_queries_take_turns_and_rows_without_an_estimate_are_left() -> None:
    mu = np.stack([np.arange(40.0), -np.arange(40.0)], axis=1)
    mu[39, 1] = np.nan
    groups = choose(mu, 8, 2, 0)
    assert groups[0].rows.tolist() == [37, 38] and groups[1].rows.tolist() == [0, 1]
    assert all(39 not in g.rows for g in groups)


def test_no_group_empties_a_class() -> None:
    mu = np.arange(60.0)[:, None]
    labels = np.array([0] * 57 + [1] * 3)  # the rows at the very top
    top = choose(mu, 4, 5, 0, labels)[0]
    assert np.sum(labels[top.rows] == 1) == 2
    with pytest.raises(ConfigError, match="share none and empty no class"):
        choose(np.arange(8.0)[:, None], 4, 2, 0, np.arange(8))


def test_too_few_rows_for_the_subsets() -> None:
    with pytest.raises(
        ConfigError, match=r"enough rows with an estimate for 18 subsets of 1[\s\S]*10 rows"
    ) as caught:
        choose(np.arange(10.0)[:, None], 24, 1, 0)
    assert "the data set is small" in str(caught.value) and "ask for fewer subsets" in str(caught.value)


def test_groups_are_large_enough_to_be_measured_and_no_larger() -> None:
    mu = np.random.default_rng(2).normal(size=(2_000, 1))
    assert measurable_size(mu, 24, 0, noise=0.1) == 1
    sizes = [measurable_size(mu * scale, 24, 0, noise=0.1) for scale in (1, 0.1, 0.01)]
    assert sizes[0] < sizes[1] < sizes[2] <= 2_000 // 24
    groups = choose(0.1 * mu, 24, sizes[1], 0)
    assert np.std([0.1 * mu[g.rows].sum() for g in groups]) >= 0.6


def test_given_groups_are_the_units() -> None:
    names = [f"g{k}" for k in range(20)]
    members = {name: np.array([2 * k, 2 * k + 1]) for k, name in enumerate(names)}
    few = choose_given(np.arange(5.0)[:, None], names[:5], members, 24, 0)
    assert [c.name for c in few] == names[:5] and {c.kind for c in few} == {"given"}
    picked = choose_given(np.arange(20.0)[:, None], names, members, 8, 0)
    assert picked[0].name == "g19 (top 1)" and picked[0].rows is members["g19"] and len(picked) == 8


def test_estimates_of_groups_are_sums_at_a_fixed_number_of_steps() -> None:
    mu = np.array([0.5, -0.2, 0.1, 0.4])
    chosen = [Chosen("a", "top", np.array([0, 3])), Chosen("b", "random", np.array([1]))]
    data = group_estimates([influence(mu)], chosen, ["q"]).data
    scale = 3 / 2
    np.testing.assert_allclose(data["effect"].values.ravel(), [scale * 2 * 0.9, 2 * -0.2])
    np.testing.assert_allclose(data["effect_se"].values.ravel(), [scale * 0.1 * 2**0.5, 0.1])
    np.testing.assert_allclose(data["spread"].values, 2.0)
    se = np.hypot(data["effect_se"].values / 2, 0.25 * data["mu"].values)
    np.testing.assert_allclose(data["se"].values, se)
    assert data["size"].values.tolist() == [2, 1]


def test_several_runs_are_summed_each_and_pooled_then() -> None:
    """Rows whose errors are the same in one run: only what the runs differ by shows the error of their sum."""
    rng = np.random.default_rng(3)
    shift = rng.normal(size=6)
    runs = [influence(np.full(50, 0.3 + s), run=k) for k, s in enumerate(shift)]
    chosen = [Chosen("a", "top", np.arange(10))]
    pooled = group_estimates(runs, chosen, ["q"]).data
    by_rows = 49 / 40 * 10**0.5 * 2.0 * shift.std(ddof=1) / 6**0.5
    assert pooled["effect"].item() == pytest.approx(49 / 40 * 10 * 2 * (0.3 + shift.mean()))
    assert pooled["effect_se"].item() > 2 * by_rows


def test_other_queries_are_cut_off_with_what_is_said_of_them() -> None:
    one = np.ones((3, 2))
    both = Influence.build(
        effect=one, spread=one, se=one, p_value=one, subsets=[0, 1, 2], queries=["q", "r"],
        provenance={"method": "online", "runs": 1, "covers": ["batch order"], "n_rows": 3, "query_values": [[1.0, 2.0]],
               "horizon": [3, 4], "spread_profile": [[1.0]]},
    )  # fmt: skip
    data = select_queries(both, ["r"]).data
    assert data.attrs["query_values"] == [[2.0]] and data.attrs["horizon"] == [4] and data.sizes["query"] == 1
    assert "spread_profile" not in data.attrs and both.data.attrs["horizon"] == [3, 4]


def test_a_method_without_effects_sums_its_mu() -> None:
    first = influence(np.array([0.5, -0.2, 0.1]))
    bare = Influence.build(
        mu=first.data["mu"].values, subsets=first.subsets, queries=["q"], provenance=first.provenance
    )
    found = group_estimates([bare], [Chosen("a", "top", np.array([0, 2]))], ["q"])
    assert found.data["mu"].item() == pytest.approx(2 * 0.6) and not found.has_effect


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 5s", 3605),
        (7, 7),
        ("0.5m", 30),
    ],
)
def test_budgets(text: str | int, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "ten minutes", "10x", "-5m", "0", "m", "1:30", "nan"])
def test_budgets_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        seconds_of(text)
    words = str(caught.value)
    assert "a budget of time above zero, such as 90s, 10m or 1h30m" in words and f"got: {text!r}" in words
    assert "another unit, or a number of trainings" in words and "write seconds, minutes or hours" in words


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 89, 91, 3600, 5400, 20_000)] == [
        "1 s", "89 s", "2 min", "60 min", "1 h 30 min", "5 h 33 min",
    ]  # fmt: skip


def test_runs_go_first_then_subsets() -> None:
    full = trainings(100, 24)
    assert full == 490 + 2400 == runs_on_all(100, 24) + 2400

    def fit(subsets: int, runs: int, allowed: float, paired: bool = False) -> tuple[int, int]:
        return fit_to_budget(subsets, runs, (allowed + 1e-6) / 0.95, 0.0, 1.0, paired)

    assert fit(24, 100, full) == (24, 100)
    assert fit(24, 100, full - 1) == (24, 99)
    count, runs = fit(24, 100, 600)
    assert 8 <= count < 24 and runs == 30 and trainings(runs, count) <= 600 < trainings(runs, count + 1)
    assert fit(24, 100, 120) == (9, 10)
    assert fit(24, 12, 10_000) == (24, 12)
    assert trainings(10, 8, True) == 90 and fit(24, 100, 90, True) == (8, 10)
    assert fit(4, 100, trainings(10, 4)) == (4, 10)  # as few as were asked for


def test_a_budget_that_pays_for_no_verdict_is_refused_and_the_one_it_names_does() -> None:
    """One message says that 8 subsets are the least, and the other never lets a budget end below."""
    with pytest.raises(ConfigError) as caught:
        fit_to_budget(24, 100, 60, 2.0, 1.0)
    words = str(caught.value)
    found = re.search(r"a budget of at least (\d+) min for 8 subsets with 10 trainings each", words)
    assert found and "got: 60 s" in words
    assert "one training takes 1 s here, and 108 are the least that a verdict is given on" in words
    assert re.search("24 subsets with 100 trainings each need about 53 min", words)
    assert fit_to_budget(24, 100, 60 * int(found[1]) + 30, 2.0, 1.0)[0] >= 8
    assert duration(60 * int(found[1])) in words


def test_groups_are_predicted_by_shrunken_rows() -> None:
    """Effects that differ by nothing but their errors: the top as estimated is chance, as predicted it is next to nothing."""
    mu = np.random.default_rng(0).normal(size=400)
    one = influence(mu, spread=1.0, effect_se=1.0)
    chosen = [Chosen("top", "top", np.argsort(-mu)[:20])]
    summed = group_estimates([one], chosen, ["q"])
    predicted = shrunken_sums(summed, one, chosen)
    assert summed.data["effect"].item() > 35 and abs(predicted.data["effect"].item()) < 5
    assert predicted.data["effect_se"].item() < summed.data["effect_se"].item()
    inside = predicted.data["lower"].item() < predicted.data["mu"].item() < predicted.data["upper"].item()
    assert inside


def test_groups_of_one_epoch_whose_errors_are_not_known_are_sums_as_they_are() -> None:
    mu = np.random.default_rng(0).normal(size=40)
    known = influence(mu, spread=1.0, effect_se=1.0)
    gone = {
        k: known.data[k] * np.nan for k in ("shrunken", "shrunken_sd", "effect_se", "se", "lower", "upper")
    }
    one = Influence(known.data.assign(gone))
    chosen = [Chosen("top", "top", np.argsort(-mu)[:5])]
    predicted = shrunken_sums(group_estimates([one], chosen, ["q"]), one, chosen)
    assert predicted.data["mu"].item() == pytest.approx(39 / 35 * np.sort(mu)[-5:].sum())
    assert np.isnan(predicted.data["lower"].item())
