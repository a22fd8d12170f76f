"""The self-test: its rates, its verdicts, its words, and a whole scan with it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.jobs.scan import Named, ScanOptions, judge, open_scan, run_scan
from small_data import QUICK, blobs_csv, image_folder, mixed_csv

COUNTS = Named(copies=0, swaps=1, planted_swaps=50, training=20, rows=1000)


def judged(differences, errors, **changed):
    return judge(np.asarray(differences), np.asarray(errors), replace(COUNTS, **changed), fdr=0.1)


def test_right_errors_pass_at_the_stated_rate():
    rng = np.random.default_rng(0)
    outcomes = [judged(rng.normal(size=100), np.ones(100))["passed"] for _ in range(400)]
    # an exact one-sided test at 1 %: at most 4 failures expected of 400; 13 or more happens once in 10,000
    assert 400 - sum(outcomes) <= 12


def test_errors_that_are_half_too_small_fail_and_the_factor_is_named():
    rng = np.random.default_rng(1)
    result = judged(2 * rng.normal(size=100), np.ones(100))
    assert not result["passed"] and 1.7 < result["error_scale"] < 2.3
    assert "Self-test FAILED" in result["sentence"]
    assert f"multiply them by {result['error_scale']:.2f}" in result["sentence"]
    assert "expected 5 %" in result["sentence"]


def test_named_copies_fail_above_the_level_only():
    zero = np.zeros(100)
    fails = judged(zero, np.ones(100), copies=25)
    assert not fails["passed"] and "The decisions name neutral rows: lower --fdr" in fails["sentence"]
    assert judged(zero, np.ones(100), copies=10)["passed"]


def test_exact_intervals_by_hand():
    result = judged([0.0] * 9 + [5.0], np.ones(10))
    rate = result["rejected_rate"]
    # Clopper-Pearson for 1 of 10
    assert rate["value"] == 0.1
    assert rate["lower"] == pytest.approx(0.0025286, abs=1e-6) and rate["upper"] == pytest.approx(
        0.4450161, abs=1e-6
    )


def test_unknown_errors_are_said_and_nothing_is_judged_by_them():
    result = judged(np.zeros(10), np.full(10, np.nan))
    assert result["pairs"] == 0 and result["rejected_rate"] is None and result["error_scale"] is None
    assert "errors of single effects are unknown" in result["sentence"]


@pytest.mark.slow
def test_a_scan_with_it(tmp_path):
    options = {"source": blobs_csv(tmp_path, n=400), "target": "label", "seed": 3, **QUICK}
    plain = run_scan(ScanOptions(out=tmp_path / "plain", **options))
    result = run_scan(ScanOptions(out=tmp_path / "out", self_test=True, **options))
    again = run_scan(ScanOptions(out=tmp_path / "again", self_test=True, **options))
    other = run_scan(ScanOptions(out=tmp_path / "other", self_test=True, **{**options, "seed": 4}))
    kept = json.loads((tmp_path / "out/self-test.json").read_text())
    assert kept["pairs"] == 16 and kept["copies"] == 16 and kept["swaps"] == 16
    assert kept["sentence"] == result.summary["self_test"] == open_scan(tmp_path / "out").summary["self_test"]
    assert kept == json.loads((tmp_path / "again/self-test.json").read_text())
    assert kept["error_scale"] != json.loads((tmp_path / "other/self-test.json").read_text())["error_scale"]
    assert result.lines.equals(plain.lines) and again.lines.equals(plain.lines), (
        "the scan's own numbers do not change"
    )
    assert other.summary["self_test"].startswith("Self-test")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Self-test: planted neutral rows" in page and "differ from their own copy" in page
    assert "--self-test" in result.summary["command"] and "--self-test" not in plain.summary["command"]
    assert plain.summary["self_test"] == "" and not (tmp_path / "plain/self-test.json").exists()


@pytest.mark.slow
def test_interrupted_it_goes_on_to_the_same_numbers(tmp_path):
    options = {
        "source": blobs_csv(tmp_path, n=400),
        "target": "label",
        "self_test": True,
        **QUICK,
        "runs": 2,
    }
    whole = run_scan(ScanOptions(out=tmp_path / "whole", **options))

    def stop(stage, done, total):
        if stage.startswith("self-test: train run 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_scan(ScanOptions(out=tmp_path / "out", **options), stop)
    result = run_scan(ScanOptions(out=tmp_path / "out", resume=True, **options))
    assert result.summary["self_test"] == whole.summary["self_test"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixed", "images"])
def test_every_kind_of_data(tmp_path, kind):
    if kind == "mixed":
        options = {
            "source": mixed_csv(tmp_path, n=300),
            "target": "label",
            "id_column": "key",
            "group_column": "source",
        }
    else:
        options = {"source": image_folder(tmp_path, n=60)}
    result = run_scan(ScanOptions(out=tmp_path / "out", self_test=True, **options, **QUICK))
    assert result.summary["self_test"].startswith("Self-test")


def test_too_few_unnamed_rows(tmp_path):
    options = {"source": blobs_csv(tmp_path, n=11, wrong=0), "target": "label", "self_test": True, **QUICK}
    with pytest.raises(DataError) as error:
        run_scan(ScanOptions(out=tmp_path / "out", **options))
    for part in (
        "at least 10 training rows that are not named",
        "got",
        "very small data set",
        "leave --self-test out",
    ):
        assert part in str(error.value)
