"""End to end on small files of every kind."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import finfluence as fi
from finfluence.clean import CleanOptions
from finfluence.jobs.scan import ScanOptions, clean_scan, open_scan, run_scan
from small_data import QUICK, arrays_npz, blobs, blobs_csv, image_folder, mixed_csv, regression_csv

NAMED = [
    "row_id", "query", "effect", "spread", "mu", "se", "lower", "upper", "p_value",
    "q_value", "flagged", "suggested_action", "suggested_label", "own_loss", "reason",
]  # fmt: skip


def test_wrong_labels_are_named_cleaned_and_proved(tmp_path):
    frame, wrong = blobs(n=400, wrong=40)
    frame.to_csv(tmp_path / "train.csv", index=False)
    held, _ = blobs(n=100, wrong=0, seed=1)
    held.to_csv(tmp_path / "val.csv", index=False)
    result = run_scan(
        ScanOptions(source=tmp_path / "train.csv", holdout=tmp_path / "val.csv", target="label",
                    out=tmp_path / "out", runs=2, proof_runs=4)
    )  # fmt: skip
    lines = result.lines
    assert list(lines.columns[: len(NAMED)]) == NAMED
    assert len(lines) == 400 and set(lines["query"]) == {"held-out"}
    named = set(lines.loc[lines["flagged"], "row_id"])
    assert len(named & set(wrong)) >= 32 and len(named - set(wrong)) <= 4
    assert result.verdict.startswith(f"{len(named)} of 400 rows")
    assert set(lines["suggested_action"]) <= {"keep", "ambiguous", "drop", "relabel", "review"}
    contradicted = lines[lines["suggested_action"] == "ambiguous"]
    assert (contradicted["label"] != contradicted["predicted"]).all() and not contradicted["flagged"].any()
    relabelled = lines[lines["suggested_action"] == "relabel"]
    assert (relabelled["suggested_label"] != relabelled["label"]).all()
    proof = json.loads((tmp_path / "out/proof.json").read_text())
    loss = next(
        d
        for d in proof["differences"]
        if d["name"] == "cleaned − original" and d["metric"] == "held-out log loss"
    )
    assert loss["upper"] < 0
    assert [a["runs"] for a in proof["arms"]] == [4, 4, 4]
    written = clean_scan(tmp_path / "out", tmp_path / "cleaned.csv")
    cleaned = pd.read_csv(tmp_path / "cleaned.csv")
    assert list(cleaned.columns) == list(frame.columns) and len(cleaned) == written.kept
    audit = pd.read_csv(tmp_path / "cleaned.audit.csv")
    assert set(audit["row_id"]) == named
    stored = fi.load(tmp_path / "out/influence.zarr")
    np.testing.assert_array_equal(stored.data["mu"].values[:, 0], lines["mu"])
    assert "batch order" in stored.data.attrs["covers"] and "initialisation" in stored.data.attrs["covers"]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert result.verdict[:30] in page and "Trained again" in page
    assert not list((tmp_path / "out").rglob("states-*"))
    assert open_scan(tmp_path / "out").verdict == result.verdict


def test_mixed_table_with_groups_and_all_queries(tmp_path):
    result = run_scan(
        ScanOptions(source=mixed_csv(tmp_path), target="label", id_column="key", group_column="source",
                    out=tmp_path / "out", queries=("bounded", "per-class", "own"), **QUICK)
    )  # fmt: skip
    counts = result.lines["query"].value_counts().to_dict()
    n = counts["held-out"]
    assert counts == {"held-out": n, "bounded": n, "class [yes]": n, "class no</script>": n, "own": 32}
    own = result.lines[result.lines["query"] == "own"]
    assert not own["flagged"].any() and own["q_value"].isna().all() and own["mu"].notna().all()
    asked = result.lines["row_id"].isin(own["row_id"])
    assert (result.lines["loo_loss"].notna() == asked).all()
    np.testing.assert_allclose(own["loo_loss"], own["own_loss"] + own["effect"])
    bounded = result.influence.data.sel(query="bounded")
    assert float(bounded["sign"]) == -1 and np.abs(bounded["effect"].values).max() < 1
    groups = pq.read_table(tmp_path / "out/groups.parquet").to_pandas()
    assert set(groups["query"]) == {"held-out", "bounded", "class [yes]", "class no</script>"}
    assert set(groups["row_id"]) == {"web", "[b]phone"}
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "</script><b>" not in page and "\x1b" not in page and "Groups of rows" in page
    run = yaml.safe_load((tmp_path / "out/run.yaml").read_text(encoding="utf-8"))
    assert run["training"]["model"] in ("linear", "mlp-small", "mlp") and run["training"]["batch_size"] == 8
    assert run["data"]["source"]["digest"] and run["versions"]["torch"]


def test_regression(tmp_path):
    result = run_scan(
        ScanOptions(
            source=regression_csv(tmp_path), target="price", out=tmp_path / "out", **QUICK | {"epochs": 20}
        )
    )
    lines = result.lines
    assert lines["confidence"].isna().all() and set(lines["suggested_action"]) <= {"keep", "drop", "review"}
    assert (lines.sort_values("own_loss")["row_id"].tail(5) < 10).all()
    assert "half squared standard deviations" in result.summary["sign"]


def test_images_and_their_cleaned_list(tmp_path):
    result = run_scan(ScanOptions(source=image_folder(tmp_path), out=tmp_path / "out", **QUICK))
    assert "data:image/png" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert result.lines["row_id"].str.endswith(".png").all()
    clean_scan(tmp_path / "out", tmp_path / "kept.csv")
    assert len(pd.read_csv(tmp_path / "kept.csv")) == 48


@pytest.mark.slow
def test_arrays(tmp_path):
    run_scan(ScanOptions(source=arrays_npz(tmp_path), out=tmp_path / "out", **QUICK))
    clean_scan(tmp_path / "out", tmp_path / "kept.npz", CleanOptions(action="review"))
    with np.load(tmp_path / "kept.npz") as kept:
        assert kept["x"].shape == (120, 4)


@pytest.mark.slow
def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    source = blobs_csv(tmp_path)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run_scan(ScanOptions(source=source, target="label", out=tmp_path / name, seed=seed, **QUICK))
    first, second, third = ((tmp_path / n / "influence.parquet").read_bytes() for n in "abc")
    assert first == second != third


@pytest.mark.slow
def test_one_run_covers_the_order_only_and_two_the_initialisation_too(tmp_path):
    source = blobs_csv(tmp_path, n=80, wrong=4)
    one = run_scan(ScanOptions(source=source, target="label", out=tmp_path / "one", **QUICK))
    two = run_scan(ScanOptions(source=source, target="label", out=tmp_path / "two", **QUICK | {"runs": 2}))
    assert one.summary["covers"].startswith("spread over batch order, from 1 training run")
    assert two.summary["covers"].startswith("spread over batch order, initialisation, from 2 training runs")
    assert one.summary["agreement"] is None and 0 <= two.summary["agreement"]["jaccard"] <= 1


@pytest.mark.slow
def test_clean_decides_again_at_another_level(tmp_path):
    run_scan(
        ScanOptions(
            source=blobs_csv(tmp_path, n=400, wrong=24),
            target="label",
            out=tmp_path / "out",
            **QUICK | {"epochs": 10},
        )
    )
    kept = [clean_scan(tmp_path / "out", tmp_path / f"{k}.csv", CleanOptions(fdr=fdr, action="drop", yes=True)).kept
            for k, fdr in enumerate((0.001, 0.1, 0.5))]  # fmt: skip
    lines = open_scan(tmp_path / "out").lines
    assert kept[0] >= kept[1] >= kept[2] and kept[0] > kept[2]
    assert kept == [400 - int((lines["q_value"] <= fdr).sum()) for fdr in (0.001, 0.1, 0.5)]


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("linear", "mlp")), "jobs.scan.factories:tiny"],
)
def test_models(tmp_path, name):
    run_scan(
        ScanOptions(
            source=blobs_csv(tmp_path, n=80, wrong=4),
            target="label",
            out=tmp_path / "out",
            model=name,
            **QUICK,
        )
    )
    run = yaml.safe_load((tmp_path / "out/run.yaml").read_text())
    assert run["training"]["model"] == name
    assert run["training"]["parameters"] == {"linear": 10, "mlp": 450, "jobs.scan.factories:tiny": 23}[name]


def test_nothing_to_find_is_an_answer(tmp_path):
    frame, _ = blobs(n=120, wrong=0)
    frame["label"] = np.random.default_rng(0).permutation(frame["label"])
    frame.to_csv(tmp_path / "noise.csv", index=False)
    result = run_scan(
        ScanOptions(
            source=tmp_path / "noise.csv", target="label", out=tmp_path / "out", **QUICK | {"proof": True}
        )
    )
    assert result.nothing_found and result.verdict.startswith(
        "Nothing can be told from training noise: none of 96 rows"
    )
    assert result.summary["proof"] == "" and not (tmp_path / "out/proof.json").exists()


@pytest.mark.slow
def test_the_report_of_a_result_alone(tmp_path):
    run_scan(ScanOptions(source=blobs_csv(tmp_path), target="label", out=tmp_path / "out", **QUICK))
    fi.load(tmp_path / "out/influence.zarr").report(tmp_path / "page.html", fdr=0.2)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Influence of 192 rows" in page and "batch order, from 1 training run" in page
