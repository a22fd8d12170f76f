"""The second experiment: agreement with models trained again, all from one bank."""

import numpy as np
import pandas as pd
import pytest
import torch

import finfluence as fi
from finfluence.ensemble import ModelBank, RunSpec
from finfluence.errors import DataError
from finfluence.estimators import METHODS
from finfluence.estimators.baselines import OwnLoss
from finfluence.evaluate import agreement_ceiling, datamodel_ceiling, datamodel_score, resampled_interval
from finfluence.grads import Layout
from jobs.bench.tiny_bench_data import CLOUDS, read

SMALL = {"experiment": "truth", "seeds": 1, "subsets": 12, "runs": 4}


def texts(result):
    return {row[0]: row for row in result.outcome.sections[0].rows}


@pytest.mark.slow
def test_replay_agrees_with_retraining_and_chance_does_not(clouds):
    result = clouds(methods="replay,random,toy", **SMALL)
    figures = pd.read_parquet(result.folder / "agreement.parquet").set_index(["method", "figure"])["value"]
    assert figures["replay", "lds_same_seed"] > 0.6 > 0.3 > abs(figures["random", "lds_same_seed"])
    assert figures["replay", "pearson"] > figures["random", "pearson"] + 0.2
    assert np.isfinite(figures["replay", "slope_effect"]) and np.isnan(figures["random", "slope_mu"])
    rows = texts(result)
    assert rows["(at best)"][1] == "1.000" and float(rows["(at best)"][2]) <= 1
    assert rows["toy"][-1] == rows["random"][-1] == "scores rows by themselves, whatever is asked"
    assert "predicted best by replay: LDS over seeds" in result.outcome.verdict
    found = (
        pd.read_parquet(result.folder / "proponents.parquet").groupby(["share", "method"])["change"].mean()
    )
    assert found[0.05, "replay"] > found[0.05, "(rows at random)"] + 0.002 and len(found) == 2 * 4
    qld = {row[0]: row for row in result.outcome.sections[1].rows}
    assert next(iter(qld)) == "(rows at random)" and qld["replay"][2].startswith("+") and qld["toy"][-1]


@pytest.mark.slow
def test_a_new_method_trains_only_what_it_names_and_gives_the_same_figures_for_the_others(clouds):
    first = clouds(methods="random", **SMALL)
    files = sorted((first.folder.parent / "bank").rglob("*.safetensors"))
    stamps = [f.stat().st_mtime_ns for f in files]
    second = clouds(methods="random,own-loss", **SMALL)
    added = set((second.folder.parent / "bank").rglob("*.safetensors")) - set(files)
    assert [f.stat().st_mtime_ns for f in files] == stamps and second.measured == 2
    assert len(files) >= 3 and len(added) == 1  # without the rows that own loss calls proponents
    a, b = (
        pd.read_parquet(r.folder / "agreement.parquet").query("method == 'random'") for r in (first, second)
    )
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.slow
def test_the_truth_is_that_of_the_bank_however_often_it_is_asked(clouds):
    first, second = (clouds(folder=f, methods="random", **SMALL).folder for f in ("a", "b"))
    for name in ("removed.parquet", "agreement.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    removed = pd.read_parquet(first / "removed.parquet")
    assert removed["group"].nunique() == 13 and removed["query"].nunique() == 25
    np.testing.assert_allclose(removed["mu"], removed["effect"] / removed["spread"])


@pytest.mark.slow
def test_a_failing_method_leaves_the_others_alone(clouds, monkeypatch):
    monkeypatch.setitem(METHODS, "broken", f"{__name__}:Broken")
    rows = texts(clouds(methods="broken,own-loss", **SMALL))
    assert rows["broken"][-1] == "failed: RuntimeError: out of luck" and rows["broken"][1] == ""
    assert rows["own-loss"][1]


class Broken(OwnLoss):
    """A method that fails."""

    name = "broken"

    def scores(self, tape):
        raise RuntimeError("out of luck")


def test_a_tape_of_a_seed_is_the_run_of_that_seed_in_the_bank(tmp_path):
    x, y = read()
    recipe = fi.Recipe(
        data=fi.Rows(x=x[:60], y=y[:60]), model=CLOUDS.model, optimizer=CLOUDS.optimizer, batch_size=10, epochs=6,
        loss=lambda m, b: torch.nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"),
    )  # fmt: skip
    model = fi.train(recipe, seed=3).model()
    kept = ModelBank(recipe, tmp_path, "one").parameters([RunSpec(3, 3)])[0]
    torch.testing.assert_close(kept, Layout(model).theta(model).detach(), rtol=1e-5, atol=1e-6)


SUMS = np.array([[4.0], [1.0], [1.5], [-1.5]])


def test_linear_datamodelling_score_of_the_dossier():
    both = datamodel_score(np.tile(SUMS, 2), np.array([[5.0, 2], [2, 5], [1.4, 1.4], [-3, -3]]))
    np.testing.assert_allclose(both, [0.8, 0.4])
    assert np.isnan(datamodel_score(np.ones((4, 1)), SUMS)).all()


def test_a_ceiling_is_what_a_perfect_prediction_reaches():
    rng = np.random.default_rng(0)
    free = rng.normal(size=(400, 1))
    outcomes = free + rng.normal(size=(3, 400, 1))
    reached = datamodel_score(free, outcomes.mean(0)).item()
    assert abs(datamodel_ceiling(outcomes).item() - reached) < 0.04 and 0.8 < reached < 0.9
    assert datamodel_ceiling(rng.normal(size=(3, 400, 1))).item() < 0.5


def test_an_estimate_without_error_reaches_the_ceiling_of_a_noisy_truth():
    rng = np.random.default_rng(1)
    free = rng.normal(size=(500, 1))
    seen = free + 0.8 * rng.normal(size=(500, 1))
    wanted = np.corrcoef(free.ravel(), seen.ravel())[0, 1]
    assert (
        abs(agreement_ceiling(seen, np.full((500, 1), 0.8)).item() - wanted) < 0.06
    )  # each side has a standard error of .02
    assert agreement_ceiling(rng.normal(size=(50, 1)), np.full((50, 1), 3.0)).item() < 1e-9


def test_intervals_cover_a_mean_at_their_level():
    rng = np.random.default_rng(2)
    drawn = [
        rng.normal(size=60) for _ in range(200)
    ]  # 95 % of 200, give or take four standard errors: 178 to 200
    held = [resampled_interval(lambda at, x=x: x[at].mean(), 60, seed) for seed, x in enumerate(drawn)]
    assert 0.87 <= np.mean([low <= 0 <= high for low, high in held]) <= 1
    assert resampled_interval(lambda at: float("nan"), 5) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_what_cannot_be_scored_is_refused_in_words():
    with pytest.raises(DataError, match=r"(?s)of one shape \[subsets, queries\].*predict the subsets"):
        datamodel_score(SUMS, SUMS[:3])
    with pytest.raises(DataError, match=r"(?s)two trainings or more.*another seed"):
        datamodel_ceiling(np.ones((1, 4, 2)))
