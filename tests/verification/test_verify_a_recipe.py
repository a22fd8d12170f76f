"""verify against trainings whose response is exactly linear, and against estimates that are wrong."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.estimators.replay import replay
from finfluence.result import Influence, load, pool, verification_sentence
from finfluence.runs import SGD, Query, Recipe, Rows, train
from finfluence.verification import Plan, Verification, verify

N = 64
LEVEL = Query(lambda m: m.bias.sum(), name="level", unit="value", sign=1)


def square(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (model(batch["x"])[:, 0] - batch["y"]) ** 2 / 2


def flat(seed: int = 0) -> nn.Module:
    model = nn.Linear(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.fill_(0.1 * (seed % 7))
    return model


def recipe(**changes: Any) -> Recipe:
    """One number θ trained on ½(θ − y)²: removing rows moves it linearly but for the factor (n−1)/(n−|S|)."""
    y = np.random.default_rng(0).standard_t(4, size=N)
    options: dict[str, Any] = {
        "data": Rows(x=torch.zeros(N, 1).double(), y=torch.from_numpy(y), ids=[f"r{i}" for i in range(N)]), "model": flat(), "loss": square,
        "optimizer": SGD(lr=0.1), "batch_size": 4, "epochs": 3,
    }  # fmt: skip
    return Recipe(**{**options, **changes})


@pytest.fixture(scope="module")
def estimated() -> tuple[Recipe, Influence]:
    made = recipe()
    return made, replay(train(made, order_seed=5), LEVEL, "full")


@pytest.fixture(scope="module")
def verified(
    estimated: tuple[Recipe, Influence], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, ...]:
    made, influence = estimated
    out, plans, told = tmp_path_factory.mktemp("verify"), [], []
    done = verify(
        influence, made, LEVEL, subsets=12, runs=60, out=out, measure=True, announce=plans.append,
        progress=lambda stage, d, total: told.append((stage, d, total)),
    )  # fmt: skip
    return done, out, plans[0], told


def changed(influence: Influence, **arrays: Any) -> Influence:
    dims = ("subset", "query")
    if "effect" in arrays:
        factor = arrays["effect"] / influence.data["effect"].values
        arrays["shrunken"] = factor * influence.data["shrunken"].values
    return Influence(influence.data.assign({k: (dims, v) for k, v in arrays.items()}))


@pytest.mark.slow
def test_a_bank_changes_no_number_and_trains_nothing_twice(estimated, tmp_path):
    made, influence = estimated
    options, plans = {"subsets": 8, "runs": 10, "measure": True, "announce": lambda p: plans.append(p)}, []
    plain = verify(influence, made, LEVEL, out=tmp_path / "plain", **options)
    first = verify(influence, made, LEVEL, out=tmp_path / "first", bank=tmp_path / "bank", **options)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").rglob("models-*")}
    again = verify(influence, made, LEVEL, out=tmp_path / "again", bank=tmp_path / "bank", **options)
    without = verify(influence, made, LEVEL, bank=tmp_path / "bank", **options)
    for done in (first, again, without):
        assert done.to_frame().equals(plain.to_frame()) and done.figures == plain.figures
    assert [plan.left for plan in plans][2:] == [0, 0] and plans[0].left > 0
    assert kept and {p: p.stat().st_mtime_ns for p in (tmp_path / "bank").rglob("models-*")} == kept


@pytest.mark.slow
def test_a_bank_of_another_training_is_never_used(estimated, tmp_path):
    made, influence = estimated
    plans: list[Plan] = []
    verify(influence, made, LEVEL, subsets=4, runs=10, bank=tmp_path, announce=plans.append)
    changed = made.rows.fields["y"].clone()
    changed[-1] += 1e-9
    other = recipe(data=Rows(x=made.rows.fields["x"], y=changed, ids=made.rows.ids.tolist()))
    for one in (other, recipe(batch_size=8), recipe(optimizer=SGD(lr=0.2))):
        before = {path.name for path in tmp_path.iterdir()}
        estimate = replay(train(one, order_seed=5), LEVEL, "full")
        verify(estimate, one, LEVEL, subsets=4, runs=10, bank=tmp_path, announce=plans.append)
        assert plans[-1].left == plans[0].left > 0
        assert len({path.name for path in tmp_path.iterdir()} - before) == 1


def test_a_damaged_file_of_the_bank_is_told(estimated, tmp_path):
    made, influence = estimated
    verify(influence, made, LEVEL, subsets=4, runs=10, bank=tmp_path)
    path = next(tmp_path.rglob("models-*"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StorageError, match=r"(?s)a whole file of retrained models.*delete this one file"):
        verify(influence, made, LEVEL, subsets=4, runs=10, bank=tmp_path)


def test_one_epoch_whose_error_is_not_known_is_verified() -> None:
    made = recipe(epochs=1)
    influence = replay(train(made, order_seed=5), LEVEL)
    assert np.isnan(influence.data["effect_se"].values).all()
    done = verify(influence, made, LEVEL, subsets=8, runs=40)
    points = done.to_frame()
    assert points["estimate"].notna().all() and points["estimate_lower"].isna().all()
    assert 0.5 < done.figure("effect slope").value < 2


def test_a_linear_response_is_verified(verified: tuple[Any, ...]) -> None:
    done, _, plan, told = verified
    assert done.verdict == "passed" and done.sentence.startswith("Trust the order")
    slope = done.figure("slope")
    assert slope.lower < 1.05 and slope.upper > 0.95  # the 95 % interval, up to the curvature of reshuffling
    assert done.figure("Pearson").value > 0.95 and done.figure("Pearson").best > 0.97
    frame = done.to_frame()
    assert len(frame) == 12 and frame["kind"].value_counts().to_dict() == dict.fromkeys(
        ("top", "bottom", "middle", "random"), 3
    )
    true_sign = np.sign(frame["true_effect"])[frame["kind"].isin(("top", "bottom"))]
    assert (true_sign == np.where(frame["kind"][true_sign.index] == "top", 1, -1)).all()
    assert plan.trainings == done.made["trainings"] == 60 * 12 + 208 and plan.seconds_each > 0
    assert (
        "12 subsets of " in plan.sentence
        and "3 from the top, 3 from the bottom, 3 from the middle" in plan.sentence
    )
    assert re.search(
        r"928 trainings \(1\d\d of them are there already\), 208 on all rows and 60 without each",
        plan.sentence,
    )
    assert (done.made["order"], done.made["size"]) == ("passed", "passed")
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["measure", "retrain"] and told[-1][1] == told[-1][2]


def test_the_members_are_rows_of_the_recipe(verified: tuple[Any, ...]) -> None:
    done = verified[0]
    assert set(done.members) == set(done.to_frame()["subset"])
    assert all(str(i).startswith("r") for rows in done.members.values() for i in rows)


@pytest.mark.slow
def test_called_again_it_goes_on_to_the_same_numbers(
    verified: tuple[Any, ...], estimated: tuple[Recipe, Influence], tmp_path: Any
) -> None:
    done, out, _, _ = verified
    plans: list[Plan] = []
    options: dict[str, Any] = {"subsets": 12, "runs": 60, "measure": True}
    again = verify(estimated[1], estimated[0], LEVEL, out=out, announce=plans.append, **options)
    assert plans[0].left == 0
    assert again.to_frame().equals(done.to_frame()) and again.figures == done.figures

    class Stop(Exception):
        pass

    def stop(stage: str, d: int, total: int) -> None:
        if stage == "retrain" and d > total / 3:
            raise Stop

    with pytest.raises(Stop):
        verify(estimated[1], estimated[0], LEVEL, out=tmp_path, progress=stop, **options)
    resumed = verify(estimated[1], estimated[0], LEVEL, out=tmp_path, announce=plans.append, **options)
    assert 0 < plans[1].left < plans[1].trainings
    assert resumed.to_frame().equals(done.to_frame()) and resumed.figures == done.figures
    other = verify(estimated[1], estimated[0], LEVEL, subsets=12, runs=10, seed=1, out=tmp_path)
    assert not np.array_equal(other.to_frame()["truth"], done.to_frame()["truth"])


def test_wrong_estimates_fail(estimated: tuple[Recipe, Influence], tmp_path: Any) -> None:
    made, influence = estimated
    data = influence.data
    order = changed(influence, **{k: -data[k].values for k in ("effect", "mu")})
    done = verify(order, made, LEVEL, subsets=12, runs=40)
    assert done.verdict == "failed" and "order is not to be trusted" in done.sentence
    larger = changed(influence, effect=data["effect"].values * 5, mu=data["mu"].values * 5)
    done = verify(larger, made, LEVEL, subsets=12, runs=40)
    assert done.verdict == "failed" and "Trust the order, not the size" in done.sentence
    noted = done.attach(larger)
    assert "VERIFICATION FAILED: Trust the order, not the size" in repr(noted)
    noted.save(tmp_path / "i.zarr")
    again = load(tmp_path / "i.zarr")
    assert again.data.attrs["verification"] == noted.data.attrs["verification"]
    again.report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'class="error"' in page and "FI050" in page and "VERIFICATION FAILED" in page
    assert "verification" not in larger.data.attrs


def test_a_passed_one_is_a_plain_line(
    verified: tuple[Any, ...], estimated: tuple[Recipe, Influence], tmp_path: Any
) -> None:
    noted = verified[0].attach(estimated[1])
    assert verification_sentence(noted.provenance.verification).startswith(
        "Verified against retraining: Trust the order"
    )
    noted.report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Verified against retraining" in page and "FI050" not in page and "FI051" not in page


def test_a_pooled_result_is_another_estimate(verified: tuple[Any, ...]) -> None:
    made = recipe()
    runs = [replay(train(made, order_seed=k), LEVEL, "full") for k in (5, 6)]
    assert "verification" not in pool([verified[0].attach(run) for run in runs]).data.attrs


def test_save_and_load(verified: tuple[Any, ...], tmp_path: Any) -> None:
    done = verified[0]
    done.save(tmp_path / "v.json")
    again = Verification.load(tmp_path / "v.json")
    assert again.to_frame().equals(done.to_frame()) and again.figures == done.figures
    assert (again.verdict, again.sentence, again.findings) == (done.verdict, done.sentence, done.findings)
    assert dict(again.made) == dict(done.made) and dict(again.members) == dict(done.members)
    assert (
        repr(again) == repr(done)
        and "Verification passed: " in repr(done)
        and "next: .to_frame()" in repr(done)
    )
    json.loads((tmp_path / "v.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    (tmp_path / "v.json").write_text("{}")
    for path in (tmp_path / "v.json", tmp_path / "none.json"):
        with pytest.raises(StorageError) as caught:
            Verification.load(path)
        words = str(caught.value)
        assert f"a verification of finfluence at {path}" in words and "or verify again" in words
        assert "Error" in words and "cut short or belongs to another program" in words


@pytest.mark.slow
def test_initialisation_varies_only_if_the_estimate_covers_it(tmp_path: Any) -> None:
    made = recipe(model=flat)
    one = replay(train(made, init_seed=3, order_seed=5), LEVEL, "full")
    done = verify(one, made, LEVEL, subsets=4, runs=10)
    assert done.made["covers"] == ["batch order"] and done.verdict == "undecided"
    runs = [replay(train(made, seed=k), LEVEL, "full") for k in (3, 4)]
    done = verify(runs, made, LEVEL, subsets=4, runs=10)
    assert done.made["covers"] == ["batch order", "initialisation"]


def test_groups_that_the_influence_holds(estimated: tuple[Recipe, Influence]) -> None:
    made, _ = estimated
    groups = {f"g{k}": [f"r{i}" for i in range(4 * k, 4 * k + 4)] for k in range(9)}
    grouped = replay(train(made, order_seed=5), LEVEL, "full", groups)
    done = verify(grouped, made, LEVEL, groups=groups, runs=30)
    assert set(done.to_frame()["subset"]) == set(groups) and done.members["g1"] == groups["g1"]
    expected = grouped.data["mu"].sel(subset=done.to_frame()["subset"].tolist()).values.ravel()
    np.testing.assert_array_equal(done.to_frame()["estimate"], expected)
    assert done.findings[0] == "the estimate has 9 groups: all are retrained"
    with pytest.raises(DataError, match=r"an influence over groups, and no groups=[\s\S]*pass groups="):
        verify(grouped, made, LEVEL)
    with pytest.raises(DataError, match="none for 1 groups, first 'g8'"):
        verify(grouped, made, LEVEL, groups={k: v for k, v in groups.items() if k != "g8"})


def test_a_budget_reduces_and_says_so(
    estimated: tuple[Recipe, Influence], verified: tuple[Any, ...], tmp_path: Path
) -> None:
    (cost,) = verified[1].glob("cost-*.json")
    (tmp_path / cost.name).write_text('{"seconds_each": 1.0}')
    plans: list[Plan] = []
    options: dict[str, Any] = {"out": tmp_path, "subsets": 8}
    done = verify(estimated[1], estimated[0], LEVEL, runs=100, budget="4m", announce=plans.append, **options)
    assert plans[0].trainings <= 240 and plans[0].runs < 100
    assert done.findings[0] == (
        f"the budget of 4 min allows 8 subsets with {plans[0].runs} trainings each, instead of 8 with 100"
    )
    assert (
        "8 subsets of 1 row: " in plans[0].sentence
        and "in pairs under common random numbers" in plans[0].sentence
    )
    assert done.made["design"] == "paired" and plans[0].trainings == 9 * plans[0].runs
    assert (done.made["order"], done.verdict) == ("passed", "passed") and "Order" not in done.sentence
    with pytest.raises(ConfigError, match="a budget of at least 2 min for 8 subsets with 10 trainings each"):
        verify(estimated[1], estimated[0], LEVEL, budget="30s", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"subsets": 3},
            ["at least 4 subsets: one each", "got: 3", "a quick look", "ask for 24; 8 is the least"],
        ),
        (
            {"runs": 5},
            ["at least 10 trainings without each", "got: 5", "by more than 0.4 spreads", "ask for 100"],
        ),
        (
            {"subsets": 400, "runs": 10},
            ["enough rows with an estimate for 300 subsets", "64 rows", "fewer subsets"],
        ),
    ],
)
def test_too_few(estimated: tuple[Recipe, Influence], options: dict[str, int], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        verify(estimated[1], estimated[0], LEVEL, **options)
    for word in words:
        assert word in str(caught.value)


def test_other_rows_recipes_and_queries_are_refused(estimated: tuple[Recipe, Influence]) -> None:
    made, influence = estimated
    with pytest.raises(ConfigError, match="did you mean 'level'"):
        verify(influence, made, Query(LEVEL.fn, name="levl"))
    with pytest.raises(DataError, match=r"recipe that the influence was estimated for[\s\S]*another one"):
        verify(influence, recipe(epochs=4), LEVEL)
    bare = Influence(influence.data.assign_attrs(recipe_digest=None))
    with pytest.raises(
        DataError, match=r"64 rows of the influence[\s\S]*63 rows[\s\S]*rows were added or removed"
    ):
        verify(bare, recipe(data=Rows(x=torch.zeros(63, 1).double(), y=torch.zeros(63).double())), LEVEL)
    with pytest.raises(DataError, match=r"over every single row of the recipe[\s\S]*10 of 64 rows"):
        verify(Influence(influence.data.isel(subset=slice(10))), made, LEVEL)
    with pytest.raises(DataError, match=r"some subsets with a finite μ[\s\S]*the estimate is NaN"):
        _compare_all_nan(influence)


def _compare_all_nan(influence: Influence) -> None:
    from finfluence.verification import Chosen, compare

    chosen = tuple(Chosen(f"r{i}", "top", np.array([i])) for i in range(4))
    some = Influence(influence.data.isel(subset=slice(4)))
    nan = changed(some, mu=np.full((4, 1), np.nan))
    compare(nan, some, Plan(chosen, 10, 20, float("nan"), 0), {}, 0)


def test_what_is_no_number_is_left_out_and_told(estimated: tuple[Recipe, Influence]) -> None:
    from finfluence.verification import Chosen, compare

    influence = estimated[1]
    chosen = tuple(Chosen(f"r{i}", "top", np.array([i])) for i in range(12))
    some = Influence(influence.data.isel(subset=slice(12)).assign_attrs(findings=["3 of 90 runs diverged"]))
    holes = some.data["mu"].values.copy()
    holes[3] = np.nan
    done = compare(changed(some, mu=holes), some, Plan(chosen, 10, 20, float("nan"), 0), {}, 0)
    assert done.findings == (
        "1 subsets are left out, some value of theirs is no number: r3", "3 of 90 runs diverged",
    )  # fmt: skip
    assert len(done.to_frame()) == 12 and np.isfinite(done.figure("slope").value)
