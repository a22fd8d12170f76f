import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import finfluence.runs as fr
from finfluence.ensemble import RunStore
from finfluence.errors import ConfigError
from finfluence.estimators.retrain import (
    FIRST_ANALYSIS,
    Estimates,
    SequentialStopping,
    grow_arms,
    grow_halves,
    grow_pairs,
    pairs_cost,
    retrain,
    se,
    two_samples,
)
from small_recipes import classifier, held_out, mean_of_four

SUBSETS = {"first": ["r0"], "pair": ["r4", "r7"]}
DESIGNS = {
    "leave-out": se("mu") < 0.2,
    "half-subsets": se("mu") < 0.35,
    "paired": se("effect") < 0.0008,
}


def words(error: pytest.ExceptionInfo[Exception]) -> list[str]:
    first, *rest = str(error.value).splitlines()
    return [first.removeprefix("expected "), *(line.split(": ", 1)[1] for line in rest)]


def precise(out: Path | None, design: str, **options: object):
    return retrain(
        classifier(), held_out()[0], SUBSETS, until=DESIGNS[design], design=design, out=out, **options
    )


def normal_looks(rng: np.random.Generator, mus: list[float], scales: list[float]) -> SequentialStopping:
    most = 4000
    x = rng.normal(size=(most, 1))
    arms = [mu + rng.normal(scale=scale, size=(most, 1)) for mu, scale in zip(mus, scales, strict=True)]

    def measure(plan: np.ndarray) -> Estimates:
        parts = [arm[:count] for arm, count in zip(arms, plan[1:], strict=True)]
        return two_samples(x[: plan[0]], parts, "pooled_d", 0.95)

    return SequentialStopping(measure, grow_arms, lambda plan: int(plan.sum()))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.quick(1)
def test_every_pair_reaches_the_precision(design):
    data = precise(None, design).data
    until = DESIGNS[design]
    assert ((data.se if until.of == "mu" else data.effect_se) < until.bound).all()
    assert data.attrs["until"] == str(until)
    assert data.attrs["unreached"] == []
    assert data.attrs["looks"] >= 2
    assert data.attrs["runs"] == data.attrs["runs_trained"]


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_stopping_in_between_changes_nothing(design, tmp_path):
    whole = precise(None, design)

    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):  # each time one stack further
        with pytest.raises(KeyboardInterrupt):
            precise(tmp_path, design, progress=interrupt)
    again = precise(tmp_path, design)
    assert again.data.attrs["runs_reused"] > 0
    assert again.data.attrs["runs_trained"] < whole.data.attrs["runs_trained"]
    assert again.data.drop_attrs().identical(whole.data.drop_attrs())
    assert again.data.attrs["runs"] == whole.data.attrs["runs"]
    # more runs than needed in the store: still the same plan
    retrain(classifier(), held_out()[0], SUBSETS, runs=200, design=design, out=tmp_path)
    assert precise(tmp_path, design).data.drop_attrs().identical(whole.data.drop_attrs())


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_two_halves_equal_one_whole_with_a_fixed_number_of_runs(design, tmp_path):
    fixed = {"subsets": SUBSETS, "design": design}
    retrain(classifier(), held_out(), runs=24, out=tmp_path, **fixed)
    more = retrain(classifier(), held_out(), runs=40, out=tmp_path, **fixed)
    assert (more.data.attrs["runs_trained"], more.data.attrs["runs_reused"]) in [(16, 24), (48, 72)]
    assert more.data.drop_attrs().identical(
        retrain(classifier(), held_out(), runs=40, **fixed).data.drop_attrs()
    )


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_numbers(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from test_sequential import precise\n"
        "precise(Path(sys.argv[1]), 'leave-out')\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        str(tmp_path),
        str(Path(__file__).parent),
        str(Path(__file__).parents[2]),
    ]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs-*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(RunStore(tmp_path))
    assert kept >= FIRST_ANALYSIS
    again = precise(tmp_path, "leave-out")
    assert again.data.attrs["runs_reused"] >= kept
    assert again.data.drop_attrs().identical(precise(None, "leave-out").data.drop_attrs())


def test_only_arms_in_need_grow():
    rng = np.random.default_rng(0)
    # an arm with a large effect needs more runs; 1/n alone would let all stop at the same number
    found, plan, looks = normal_looks(rng, [0.0, 6.0], [1.0, 1.0]).until(
        np.array([32, 32, 32]), se("mu") < 0.25, 9000
    )
    assert (found.se < 0.25).all()
    assert plan[2] > 1.5 * plan[1]
    assert looks <= 4


def test_the_plan_is_cheap():
    # 16 arms without influence: (1 + √16)²/0.1² = 2,500 runs at best, 3,400 with arms of one length
    rng = np.random.default_rng(1)
    looks = normal_looks(rng, [0.0] * 16, [1.0] * 16)
    found, plan, _ = looks.until(np.full(17, 32), se("mu") < 0.1, 9000)
    assert (found.se < 0.1).all()
    assert 2400 < plan.sum() < 2500 * 1.15
    assert plan[0] > 2 * plan[1:].max()


def test_noise_of_one_arm_is_met_by_that_arm():
    rng = np.random.default_rng(2)
    _, plan, _ = normal_looks(rng, [0.0, 0.0], [1.0, 4.0]).until(
        np.array([32, 32, 32]), se("effect") < 0.3, 9000
    )
    assert plan[2] > 2 * plan[1]


@pytest.mark.parametrize(
    ("until", "mu"), [(se("mu") < 0.2, 0.0), (se("mu") < 0.2, 2.0), (se("effect") < 0.2, 0.0)]
)
@pytest.mark.quick(1)
def test_intervals_hold_under_stopping(until, mu):
    # 800 simulations of nominal 95 %: 4 standard errors are 0.031, a false failure in 16,000
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(800):
        found, *_ = normal_looks(rng, [mu], [1.0]).until(np.array([32, 32]), until, 9000)
        covered.append(
            (found.lower <= mu) & (mu <= found.upper)
            if until.of == "mu"
            else np.abs(found.effect - mu) <= norm.ppf(0.975) * found.effect_se
        )
    assert np.mean(covered) > 0.95 - 0.031


def test_the_largest_number_of_runs_is_kept_and_what_is_missing_is_told():
    recipe, level = mean_of_four(epochs=4)
    data = retrain(recipe, level, [7, 0], until=se("effect") < 0.002, max_runs=150).data
    assert data.attrs["runs"] <= 150
    assert data.attrs["runs"] > 140
    assert sorted(data.attrs["unreached"]) == [["0", "level"], ["7", "level"]]
    (told,) = data.attrs["findings"]
    assert told.startswith(
        "2 of 2 pairs of subset and query did not reach se(effect) < 0.002 within max_runs=150"
    )
    worst = data.effect_se.values.max()
    assert f"(worst: {worst:.3g}, '" in told
    needed = int(told.rsplit("about ", 1)[1].split()[0])
    assert needed == int(np.ceil(data.attrs["runs"] * (worst / 0.002) ** 2))
    assert told.endswith("runs in all would do")


def test_looks_are_in_the_attributes():
    data = precise(None, "leave-out").data
    each = data.attrs["runs_without_each"]
    assert len(each) == 2
    assert min(each) == data.attrs["runs_without"]
    assert data.attrs["runs_with"] + sum(each) == data.attrs["runs"]


def test_one_look_suffices_where_the_first_is_precise_enough():
    data = retrain(classifier(), held_out()[0], SUBSETS, until=se("mu") < 5).data
    assert (data.attrs["looks"], data.attrs["runs"]) == (1, 3 * FIRST_ANALYSIS)


def test_a_constant_query_needs_no_more_runs():
    same = fr.Query(lambda m: m[0].weight.sum() * 0 + 1, name="one")
    data = retrain(classifier(), [held_out()[0], same], ["r0"], until=se("mu") < 0.25).data
    assert data.attrs["unreached"] == []
    assert data.attrs["findings"] == ["no spread between runs, so no μ, for some subsets of: one"]


def test_auc_probit_stops_as_well():
    data = retrain(classifier(), held_out()[0], ["r0"], until=se("mu") < 0.3, mu="auc_probit").data
    assert data.se.item() < 0.3


def test_a_precision_out_of_reach_says_how_many_runs_it_takes():
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), SUBSETS, until=se("mu") < 0.01)
    assert words(raised) == [
        "max_runs to have room for se(mu) < 0.01: at least 58285 runs for 2 subsets",
        "max_runs=50000",
        "the standard error of μ falls with the square root of the number of runs",
        "pass max_runs=72856, or until=se('mu') < 0.0121, or fewer subsets",
    ]
    with pytest.raises(ConfigError) as raised:
        retrain(
            classifier(), held_out(), SUBSETS, until=se("mu") < 0.01, design="half-subsets", max_runs=1000
        )
    assert words(raised)[0] == "max_runs to have room for se(mu) < 0.01: at least 40000 runs for 2 subsets"


@pytest.mark.parametrize("bound", [0, -1.0, float("nan"), "small"])
def test_a_bound_is_a_positive_number(bound):
    with pytest.raises(ConfigError) as raised:
        se("mu") < bound  # noqa: B015
    assert words(raised) == [
        "se('mu') to be compared with a positive number",
        repr(bound),
        "no number of runs brings an error to zero",
        "pass for instance until=se('mu') < 0.1",
    ]


def test_only_mu_and_effect_have_a_standard_error_to_stop_on():
    with pytest.raises(ConfigError) as raised:
        se("spread")
    assert words(raised) == [
        "se('mu') or se('effect')",
        "se('spread')",
        "a mistyped word",
        "use one of the two",
    ]


@pytest.mark.parametrize("until", [0.1, se("mu")])
def test_until_is_a_comparison(until):
    with pytest.raises(ConfigError) as raised:
        retrain(classifier(), held_out(), SUBSETS, until=until)
    assert words(raised) == [
        "until to be None or a comparison such as se('mu') < 0.1",
        repr(until),
        "the number alone was passed, or se(…) without a bound",
        "pass until=se('mu') < 0.1 (from finfluence import se)",
    ]


def test_no_look_asks_for_less_than_before():
    ones = np.ones((3, 1))
    found = Estimates(*(ones for _ in range(8)))
    plan = np.array([40, 17, 100, 33])
    ratio = np.array([[0.5], [np.inf], [1.0]])
    for grow in (grow_arms, grow_pairs):
        wider = grow(found, ratio, plan)
        assert (wider >= plan).all()
        assert wider[1] == 17
        # an arm at the bound is brought below it by more runs of its own, or of the arm that all share
        errors = [1 / arms[3] + (1 / arms[0] if grow is grow_arms else 0) for arms in (plan, wider)]
        assert errors[1] < errors[0]
    assert grow_halves(found, ratio, np.array([20])).tolist() == [96]
    assert pairs_cost(np.array([10, 12, 5])) == 12 + 12 + 5
