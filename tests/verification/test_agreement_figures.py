"""Figures, ceilings and verdicts on simulated truths, whose noise-free values are known."""

import numpy as np
import pytest

from finfluence.evaluate import agreement, coverage, spread_ratio
from finfluence.verification import (
    Evidence,
    Figure,
    Pairs,
    ceilings,
    evidence,
    figures,
    judge,
    pearson,
    spearman,
)

SUBSETS, RUNS, RUNS_WITH = 24, 100, 490


def truths(rng: np.random.Generator, law: str, n: int = SUBSETS) -> np.ndarray:
    """Noise-free μ of subsets: normal, or as verification picks them, a half of them near nothing."""
    if law == "normal":
        return rng.normal(size=n)
    sides = rng.uniform(0.5, 3, n // 4), -rng.uniform(0.5, 3, n // 4)
    return np.concatenate([*sides, 0.05 * rng.normal(size=n // 4), 0.25 * rng.normal(size=n - 3 * (n // 4))])


def world(
    rng: np.random.Generator, law: str = "picked", factor: float = 1.0, misfit: float = 0.2,
    se: float = float(np.hypot(1 / RUNS**0.5, 1 / RUNS_WITH**0.5)), shared: float = 1 / RUNS_WITH**0.5, n: int = SUBSETS,
) -> tuple[Pairs, np.ndarray]:  # fmt: skip
    """Estimates chosen, truths around factor · estimate, and retrained values with own and shared noise."""
    estimate = truths(rng, law, n)
    true = factor * estimate + misfit * rng.normal(size=n)
    own = np.sqrt(se**2 - shared**2)
    found = true + own * rng.normal(size=n) + shared * rng.normal()
    one = np.ones((n, 1))
    pairs = Pairs(
        estimate[:, None], (estimate - 0.5)[:, None], (estimate + 0.5)[:, None], found[:, None], se * one,
        estimate[:, None], found[:, None], one, one, shared, shared, 0.95,
    )  # fmt: skip
    return pairs, true


def by_name(pairs: Pairs, seed: int = 0, resamples: int = 2_000) -> dict[str, Figure]:
    return {f.name: f for f in figures(pairs, seed, resamples)}


def test_figures_are_those_of_evaluate() -> None:
    pairs, _ = world(np.random.default_rng(1), factor=1.3)
    found = by_name(pairs)
    e, t = pairs.estimate.ravel(), pairs.truth.ravel()
    slow = agreement(e, t)
    assert found["slope"].value == pytest.approx(slow.slope)
    assert found["Pearson"].value == pytest.approx(slow.pearson)
    assert found["Spearman"].value == pytest.approx(slow.spearman)
    assert found["spread ratio"].value == spread_ratio(pairs.spread, pairs.true_spread) == 1.0
    wide = np.hypot(0.5, 1.959964 * pairs.truth_se.ravel())
    assert found["coverage"].value == pytest.approx(coverage(e - wide, e + wide, t))
    for f in found.values():
        assert f.lower <= f.value <= f.upper


def test_ties_and_constants() -> None:
    a, b = np.array([1.0, 1, 2, 2, 3]), np.array([1.0, 2, 2, 3, 3])
    slow = agreement(a, b)
    assert pearson(a, b) == pytest.approx(slow.pearson) and spearman(a, b) == pytest.approx(slow.spearman)
    assert np.isnan(pearson(np.ones(5), b)) and np.isnan(spearman(b, np.ones(5)))
    pairs, _ = world(np.random.default_rng(2))
    still = Pairs(**{**vars(pairs), "truth": np.ones((SUBSETS, 1))})
    assert np.isnan(by_name(still)["Pearson"].value) and np.isnan(ceilings(still, 0)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "law"), [(1.0, "picked"), (1.4, "normal")])
def test_the_slope_interval_covers(factor: float, law: str) -> None:
    """Nominal 95 %, 0.93 with this few subsets; 250 worlds, standard error 1.4 %: 4 of them below fails once in 10,000."""
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(250):
        pairs, _ = world(rng, law, factor)
        f = by_name(pairs, seed, 300)["slope"]
        held += f.lower <= factor <= f.upper
    assert 0.93 - 4 * 0.0138 <= held / 250 <= 1.0


@pytest.mark.slow
def test_without_the_shared_error_the_interval_would_be_too_narrow() -> None:
    """The runs on all rows shift every truth alike; the interval has to know. 250 worlds, as above."""
    rng = np.random.default_rng(4)
    held = {True: 0, False: 0}
    for seed in range(250):
        pairs, _ = world(rng, se=0.45, shared=0.4, misfit=0.05, law="normal", n=8)
        pairs = Pairs(**{**vars(pairs), "estimate": pairs.estimate + 1.0, "truth": pairs.truth + 1.0})
        for knows in held:
            told = Pairs(**{**vars(pairs), "shared": pairs.shared if knows else 0.0})
            f = by_name(told, seed, 300)["slope"]
            held[knows] += f.lower <= 1 <= f.upper
    assert held[True] / 250 >= 0.93 - 4 * 0.0138 > held[False] / 250


@pytest.mark.parametrize("law", ["normal", "picked"])
@pytest.mark.parametrize("se", [0.11, 0.25])
def test_the_ceilings_are_what_a_perfect_estimate_reaches(law: str, se: float) -> None:
    """Means over 100 worlds; their standard errors are below 0.008, so 0.04 is five of them."""
    rng = np.random.default_rng(5)
    reached, told = [], []
    for seed in range(100):
        pairs, true = world(rng, law, misfit=0.0, se=se, shared=0.0)
        reached.append((pearson(true, pairs.truth.ravel()), spearman(true, pairs.truth.ravel())))
        told.append(ceilings(pairs, seed))
    np.testing.assert_allclose(np.mean(told, 0), np.mean(reached, 0), atol=0.04)


def test_same_seed_same_intervals_other_seed_others() -> None:
    pairs, _ = world(np.random.default_rng(6))
    first, again, other = by_name(pairs, 1), by_name(pairs, 1), by_name(pairs, 2)
    assert (
        first == again and first["slope"] != other["slope"] and first["Pearson"].best != other["Pearson"].best
    )


def test_several_queries_are_resampled_together() -> None:
    """Ten copies of one query say no more than one: the intervals stay as wide."""
    pairs, _ = world(np.random.default_rng(7))
    many = Pairs(
        **{k: np.repeat(v, 10, axis=1) if isinstance(v, np.ndarray) else v for k, v in vars(pairs).items()}
    )
    one, ten = by_name(pairs)["Pearson"], by_name(many)["Pearson"]
    assert ten.upper - ten.lower == pytest.approx(one.upper - one.lower, rel=0.15)


def test_no_movement_is_noticed_and_movement_too() -> None:
    """χ² at 0.001: of 200 worlds without movement at most 2 are called moving (3 or more: once in a thousand)."""
    rng = np.random.default_rng(8)
    calm = [evidence(world(rng, factor=0.0, misfit=0.0)[0]).p_signal for _ in range(200)]
    assert np.sum(np.array(calm) < 0.001) <= 2
    moved = evidence(world(rng)[0])
    assert moved.p_signal < 1e-6 and moved.signal == pytest.approx(1.2, abs=0.4)


def said(pairs: Pairs, runs: int = RUNS, size: int = 5) -> tuple[str, str]:
    judged = judge(by_name(pairs), evidence(pairs), runs, size)
    return judged.verdict, judged.sentence


def test_verdicts_and_their_words() -> None:
    rng = np.random.default_rng(9)
    assert said(world(rng, misfit=0.1)[0])[1].startswith("Trust the order and the size of effects (factor ")
    verdict, words = said(world(rng, factor=1.4, misfit=0.1)[0])
    assert verdict == "passed" and words.startswith("Trust the order, multiply effects (μ) by 1.4 (1.3")
    verdict, words = said(world(rng, factor=0.2, misfit=0.02)[0])
    assert verdict == "failed" and words.startswith("Trust the order, not the size: effects (μ) are about ")
    assert " times too large; multiply them by 0.2" in words
    verdict, words = said(world(rng, factor=0.0, misfit=1.0)[0])
    assert verdict == "failed" and words.startswith("The order is not to be trusted: Pearson ")
    assert "where a perfect estimate would reach 1.00." in words
    verdict, words = said(world(rng, factor=0.0, misfit=0.0)[0])
    assert verdict == "failed" and words.startswith("The size is not to be trusted: the estimate says")
    flat = world(rng)[0]
    flat = Pairs(**{**vars(flat), "estimate": np.full((SUBSETS, 1), 0.3)})
    assert said(flat) == (
        "failed",
        "The order is not to be trusted: the estimate says the same of every subset, and the truth does not.",
    )


def test_undecided_says_what_would_decide() -> None:
    rng = np.random.default_rng(10)
    verdict, words = said(world(rng, n=6)[0])
    assert (
        verdict == "undecided" and "Too few subsets to tell: 6 were measured, at least 8 are needed." in words
    )
    calm, _ = world(rng, factor=0.0, misfit=0.0)
    calm = Pairs(**{**vars(calm), "estimate": 0.05 * calm.estimate})
    verdict, words = said(calm)
    assert verdict == "undecided"
    assert words.startswith(
        "Nothing to verify: no subset moves the query by more than noise; groups of about "
    )
    rows = int(words.split("about ")[1].split()[0])
    assert 5 < rows < 200 and words.endswith("rows would.")
    zero = Pairs(**{**vars(calm), "estimate": np.zeros((SUBSETS, 1))})
    assert said(zero)[1].endswith("more runs might (400 instead of 100).")
    noisy = world(np.random.default_rng(0), "normal", se=0.95, shared=0.1, misfit=0.1, n=60)[0]
    verdict, words = said(noisy)
    assert verdict == "undecided" and "Too few retrainings to tell: their noise lets even a perfect" in words
    assert int(words.rsplit("about ", 1)[1].split()[0].replace(",", "")) > RUNS
    verdict, words = said(world(rng, misfit=0.85)[0])
    assert verdict == "undecided" and "whether the order holds: Pearson" in words
    assert "more subsets would, for instance 48" in words


def test_a_known_order_is_not_undecided_because_the_size_is() -> None:
    """Order and size are judged, and said, apart."""
    rng = np.random.default_rng(20)
    pairs = world(rng, factor=0.52, misfit=0.02)[0]
    judged = judge(by_name(pairs), evidence(pairs), RUNS, 5)
    assert (judged.order, judged.size, judged.verdict) == ("passed", "undecided", "order-only")
    assert judged.sentence.startswith(
        "Trust the order; too few retrainings to tell the size: the factor of effects"
    )
    pairs = world(rng, misfit=0.85)[0]
    judged = judge(by_name(pairs), evidence(pairs), RUNS, 5)
    assert (judged.order, judged.verdict) == ("undecided", "undecided") and judged.size in (
        "passed",
        "undecided",
    )
    assert ("The size is right" in judged.sentence) == (judged.size == "passed")
    pairs = world(rng, factor=0.2, misfit=0.02)[0]
    judged = judge(by_name(pairs), evidence(pairs), RUNS, 5)
    assert (judged.order, judged.size, judged.verdict) == ("passed", "failed", "failed")


def test_narrow_intervals_and_a_wrong_spread_are_told() -> None:
    pairs, _ = world(np.random.default_rng(11), misfit=0.25)
    narrow = Pairs(
        **{**vars(pairs), "lower": pairs.estimate, "upper": pairs.estimate, "truth_se": pairs.truth_se / 4}
    )
    assert " Its 95 % intervals are too narrow: they held the truth " in said(narrow)[1]
    wrong = Pairs(**{**vars(pairs), "truth": pairs.truth / 3, "true_spread": 3 * pairs.true_spread})
    wrong = Pairs(**{**vars(wrong), "effect": 3 * pairs.estimate, "true_effect": 3 * pairs.truth})
    verdict, words = said(wrong)
    assert verdict == "failed"
    assert "In the query's own unit effects are right (factor" in words
    assert words.endswith("it is the spread that is 3 times too small.")


def test_a_method_without_effects_or_intervals_has_the_other_figures() -> None:
    pairs, _ = world(np.random.default_rng(12))
    nan = np.full((SUBSETS, 1), np.nan)
    bare = Pairs(**{**vars(pairs), "lower": nan, "upper": nan, "effect": nan, "spread": nan})
    found = by_name(bare)
    assert np.isnan([found[k].value for k in ("effect slope", "spread ratio", "coverage")]).all()
    assert np.isfinite([found[k].value for k in ("slope", "Pearson", "Spearman")]).all()
    assert judge(found, evidence(bare), 100, 5).verdict == "passed"


def test_evidence_is_a_value() -> None:
    assert Evidence(8, 0.1, 1.0, 0.0, 1.0) == Evidence(8, 0.1, 1.0, 0.0, 1.0)
