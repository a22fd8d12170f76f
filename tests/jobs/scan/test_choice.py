"""The network of a scan is chosen by cross-validation, beside the constant."""

from dataclasses import replace

import numpy as np
import pytest

from finfluence.jobs.scan import Choice, ScanOptions, choose, read_data, run_scan
from small_data import QUICK, blobs


def options(tmp_path, frame, **given):
    frame.to_csv(tmp_path / "t.csv", index=False)
    return ScanOptions(source=tmp_path / "t.csv", target="label", out=tmp_path / "out", **given)


def chosen(asked):
    return choose(asked, read_data(asked).train)


def noise(n=240, minority=0.3, seed=3):
    rng = np.random.default_rng(seed)
    frame, _ = blobs(n=n, wrong=0, seed=seed)
    return frame.assign(label=np.where(rng.random(n) < minority, "yes", "no"))


def test_the_best_of_few_networks_stands_beside_the_constant_and_repeats(tmp_path):
    asked = options(tmp_path, blobs()[0])
    settled, choice = chosen(asked)
    names = [one.model for one in choice.tried]
    assert sorted(names) == ["constant", "linear", "mlp", "mlp-small"] and names[-1] == "constant"
    assert choice.told and not choice.asked and choice.model == settled.model
    best = next(one for one in choice.tried if one.model == choice.model)
    assert settled.epochs == best.epochs >= 2 and settled.weight_decay == best.weight_decay == 0.3
    assert best.gain > 2 * best.gain_se > 0 and best.accuracy > 0.8 and len(best.folds) == 5
    assert min(best.folds) <= best.loss <= max(best.folds)
    again = replace(asked, model=choice.model)
    assert chosen(again)[1].tried == chosen(again)[1].tried
    assert chosen(replace(again, seed=1))[1].tried != chosen(again)[1].tried
    assert Choice.of_run(choice.described()) == choice


def test_a_named_network_is_taken_and_still_scored(tmp_path):
    settled, choice = chosen(options(tmp_path, noise(), model="mlp", epochs=4, weight_decay=0.1))
    assert (settled.model, settled.epochs, settled.weight_decay) == ("mlp", 4, 0.1)
    assert choice.asked and not choice.told and {one.model for one in choice.tried} == {"mlp", "constant"}


@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_nothing_learned_is_said_and_names_nothing_by_influence(tmp_path, classes):
    rng = np.random.default_rng(classes)
    frame = noise(n=160).assign(label=[f"k{k}" for k in rng.integers(0, classes, 160)])
    result = run_scan(options(tmp_path, frame, **QUICK))
    assert result.nothing_found and not result.summary["choice"]["told"]
    assert result.summary["choice_said"][0].startswith("No network predicts rows that it has not seen better")
    assert "FI027" in [code for code, _ in result.summary["findings"]]
    assert "Networks tried by cross-validation" in result.report.read_text(encoding="utf-8")


def test_regression_is_scored_against_the_mean(tmp_path):
    frame, _ = blobs()
    noise_free = 5 * frame["a"] - 2 * frame["b"] + 100
    _, choice = chosen(options(tmp_path, frame.assign(label=noise_free.round(3))))
    assert choice.task == "regression" and choice.told
    assert choice.tried[-1].model == "constant" and choice.tried[0].accuracy is None


def test_few_rows_and_a_rare_class(tmp_path):
    rare = noise(n=50).assign(label=["a"] * 47 + ["b"] * 3)
    settled, choice = chosen(options(tmp_path, rare))
    assert not choice.told and settled.epochs and choice.rows == 40
    few = blobs(n=22, wrong=0)[0]
    settled, choice = chosen(options(tmp_path, few))
    assert not choice.told and settled.model == "mlp-small" and choice.rows == 0 and choice.tried == ()
