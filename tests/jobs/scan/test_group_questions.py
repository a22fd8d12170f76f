"""Groups are asked on held-out rows of other groups, and a named one is retrained without."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.datasets import make_classification
from typer.testing import CliRunner

from finfluence.clean import CleanOptions
from finfluence.cli import app
from finfluence.errors import ConfigError, DataError
from finfluence.jobs.scan import (
    ScanOptions,
    clean_scan,
    group_lines,
    group_questions,
    questions_sentence,
    read_data,
    run_scan,
    verdict_of,
)
from four_parts import assert_parts


def one_sided_source(folder, n=1500):
    """Ten sources; source s3 calls a third of the "no" rows "yes", in the training rows and in the hold-out alike."""
    x, y = make_classification(n, 12, n_informative=6, flip_y=0.05, class_sep=1.0, random_state=1)
    rng = np.random.default_rng(1)
    source = rng.integers(0, 10, n)
    flip = (source == 3) & (y == 0) & (rng.random(n) < 0.6)
    frame = pd.DataFrame(x.round(3), columns=[f"x{i}" for i in range(12)])
    frame["source"], frame["label"] = [f"s{k}" for k in source], np.where(y | flip, "yes", "no")
    frame.to_csv(folder / "d.csv", index=False)
    return folder / "d.csv"


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    options = ScanOptions(source=one_sided_source(folder), target="label", group_column="source", runs=2,
                          proof_runs=3, model="mlp-small", epochs=8, out=folder / "out")  # fmt: skip
    return folder / "out", run_scan(options)


def test_a_group_is_asked_on_rows_of_the_other_groups_alone(tmp_path):
    source = one_sided_source(tmp_path, n=400)
    data = read_data(ScanOptions(source=source, target="label", group_column="source", out=tmp_path / "o"))
    questions = group_questions(data)
    held = data.query.groups.astype(str)
    assert questions.apart and len(questions.rows) == 5
    for group in np.unique(data.train.groups.astype(str)):
        asked = questions.rows[questions.block[group]]
        assert group not in held[asked] and len(asked) > 0.6 * len(held)
        assert questions.asked_rows(group) == len(asked)
        in_block = [g for g, b in questions.block.items() if b == questions.block[group]]
        assert set(held) - set(held[asked]) <= set(in_block)
    assert group_questions(read_data(ScanOptions(source=source, target="label", out="o"))) is None


@pytest.mark.slow
def test_groups_that_cannot_be_asked_are_said(tmp_path):
    frame = pd.read_csv(one_sided_source(tmp_path, n=240)).assign(source=["a", "b", "c"] * 80)
    frame.iloc[:180].to_csv(tmp_path / "train.csv", index=False)
    frame.iloc[180:].assign(source="a").to_csv(tmp_path / "val.csv", index=False)
    result = run_scan(
        ScanOptions(source=tmp_path / "train.csv", holdout=tmp_path / "val.csv", target="label", proof=False,
                    group_column="source", runs=1, epochs=2, model="linear", out=tmp_path / "out")
    )  # fmt: skip
    lines = {line["group"]: line for line in result.summary["groups"]}
    assert lines["a"]["effect"] is None and lines["a"]["asked_rows"] == 0 and not lines["a"]["harmful"]
    assert lines["b"]["effect"] is not None and lines["b"]["asked_rows"] >= 25
    assert "rows; where there are none, it is not asked" in result.summary["groups_said"][-1]
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "out")])
    assert shown.exit_code == 0 and "removal" in shown.output


def test_one_group_alone_is_refused_before_anything_is_trained(tmp_path):
    frame = pd.read_csv(one_sided_source(tmp_path, n=200)).assign(source="only")
    frame.to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(DataError) as caught:
        read_data(
            ScanOptions(
                source=tmp_path / "one.csv", target="label", group_column="source", out=tmp_path / "o"
            )
        )
    assert_parts(caught.value, "two groups or more among the training rows, in the group column 'source'",
                 "'only' in all 160 of them", "nothing to compare a group with", "leave --group out")  # fmt: skip


@pytest.mark.slow
def test_the_bad_source_does_harm_although_the_hold_out_shares_its_faults(scanned):
    out, result = scanned
    groups = pd.read_parquet(out / "groups.parquet").set_index("row_id")
    assert groups.index[0] == "s3" and bool(groups.loc["s3", "harmful"])
    assert groups.loc["s3", "effect"] < 0 and groups.loc["s3", "p_value_adjusted"] < 0.05
    assert (groups["p_value_adjusted"] >= groups["p_value"]).all() and not groups["harmful"].iloc[1:].any()
    assert groups["asked_rows"].between(60, 150).all() and groups["own_loss"].notna().all()
    line = result.summary["groups"][0]
    assert line["group"] == "s3" and line["bad"] and line["oof_loss"] > 0.3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("Groups of rows, the worst first") < page.index('id="rows"')
    assert page.index("Trained again without the named groups") < page.index('id="rows"')


@pytest.mark.slow
def test_what_retraining_without_it_measures_stands_in_the_verdict(scanned):
    out, result = scanned
    proof = json.loads((out / "groups-proof.json").read_text())
    assert list(proof) == ["s3"] and [a["name"] for a in proof["s3"]["arms"]] == [
        "original", "without", "random removals"
    ]  # fmt: skip
    held = pd.read_parquet(out / "holdout_labels.parquet")
    assert proof["s3"]["judging_rows"] < ((held["role"] == "evaluation") & ~held["left_out"]).sum()
    loss = {d["name"]: d for d in proof["s3"]["differences"] if d["metric"] == "held-out log loss"}
    assert loss["without − random removals"]["upper"] < 0
    assert "trained again, leaving it out lowers the held-out log loss by" in result.verdict
    assert "random rows" in result.verdict and result.verdict.index("s3") < result.verdict.index(
        "rows are named"
    )
    assert result.summary["groups"][0]["confirmed"] is True
    assert {line["confirmed"] for line in result.summary["groups"][1:]} == {None}
    assert result.summary["groups_said"][0].startswith("s3: trained again 3 times without its")
    assert not (out / "proof").exists()


@pytest.mark.slow
def test_harm_that_retraining_does_not_show_is_not_confirmed(scanned):
    line = {**scanned[1].summary["groups"][0], "named": False}
    assert verdict_of(line) == "harmful"
    assert verdict_of({**line, "confirmed": None}) == "harmful"
    assert verdict_of({**line, "confirmed": False}) == "harm not confirmed"
    assert verdict_of({**line, "confirmed": False, "named": True}) == "bad source, harm not confirmed"


@pytest.mark.slow
def test_groups_come_before_rows_on_the_terminal_and_the_next_command_drops_the_worst(scanned, tmp_path):
    out, _ = scanned
    shown = CliRunner().invoke(app, ["show", str(out)]).output
    assert shown.index("verdict") < shown.index("network") < shown.index("row in short")
    assert "Each group is asked on held-out rows of other groups alone" in shown
    assert "--to without-s3.csv --group s3" in shown
    assert clean_scan(out, tmp_path / "c.csv", CleanOptions(group="s3", yes=True)).dropped > 100


@pytest.mark.slow
def test_a_group_whose_removal_does_measured_harm_stays(scanned, tmp_path):
    out, _ = scanned
    before = (out / "groups-proof.json").read_text()
    proof = json.loads(before)
    for d in proof["s3"]["differences"]:
        if d["name"] == "without − original" and d["metric"] in ("held-out log loss", "held-out accuracy"):
            d.update({k: -v for k, v in (("value", -0.3), ("lower", -0.2), ("upper", -0.4))})
            if d["metric"] == "held-out accuracy":
                d.update(value=-0.03, lower=-0.04, upper=-0.02)
    try:
        (out / "groups-proof.json").write_text(json.dumps(proof))
        with pytest.raises(ConfigError) as caught:
            clean_scan(out, tmp_path / "c.csv", CleanOptions(group="s3", yes=True))
        words = str(caught.value)
        assert "leaving out s3 raises the held-out log loss by 0.3 [0.2, 0.4]" in words
        assert "lowers the held-out accuracy by 3 [2, 4] points" in words and "--even-if-worse" in words
        assert "held-out rows of other groups" in words and "leave --group out" in words
        clean_scan(out, tmp_path / "c.csv", CleanOptions(group="s3", yes=True, even_if_worse=True))
    finally:
        (out / "groups-proof.json").write_text(before)


class Found:
    """Influence of three groups that are all estimated to do harm."""

    subsets = np.array(["a", "b", "c"])

    def __init__(self):
        values = {"p_value": [1e-6] * 3, "effect": [-0.1, -0.3, -0.2], "size": [9] * 3, "own_loss": [1.0] * 3}
        values |= {name: [0.0] * 3 for name in ("mu", "lower", "upper")}
        self.data = xr.Dataset(
            {name: (("subset", "query"), np.array(v)[:, None]) for name, v in values.items()},
            coords={"query": ["held-out"]},
        )

    def harm(self, query):
        return -self.data["effect"].sel(query=query).values


class Questions:
    apart = True
    of_own_class = frozenset()

    def asked_rows(self, group):
        return 30


def retrained(upper):
    loss = {
        "metric": "held-out log loss",
        "name": "without − original",
        "value": -0.1,
        "lower": -0.2,
        "upper": upper,
    }
    return {
        "metrics": [{"name": "held-out log loss"}],
        "differences": [loss],
        "arms": [{"runs": 3}],
        "changed_rows": 9,
    }


@pytest.mark.parametrize(
    ("checks", "bad", "verdicts"),
    [
        (None, ["b", "c", "a"], ["harmful"] * 3),
        ({"b": retrained(-0.05)}, ["b"], ["harmful", "harm not checked", "harm not checked"]),
        ({"b": retrained(0.05)}, [], ["harm not confirmed", "harm not checked", "harm not checked"]),
    ],
)
def test_harm_that_was_not_retrained_is_no_verdict_where_others_were(checks, bad, verdicts):
    lines = group_lines(Found(), [], Questions(), checks)
    assert [line["group"] for line in lines if line["bad"]] == bad
    by_name = {line["group"]: verdict_of(line) for line in lines}
    assert [by_name[name] for name in "bca"] == verdicts


def test_a_group_of_classes_of_its_own_is_not_called_harmful(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(180, 2)), columns=["u", "v"])
    frame["label"] = rng.choice(["x", "y", "z"], 180)
    frame["site"] = np.where(frame["label"] == "z", "c", rng.choice(["a", "b"], 180))
    frame.to_csv(tmp_path / "d.csv", index=False)
    options = ScanOptions(source=tmp_path / "d.csv", target="label", group_column="site", out=tmp_path / "o")
    assert group_questions(read_data(options)).of_own_class == {"c"}
    questions = Questions()
    questions.of_own_class = frozenset("b")
    lines = group_lines(Found(), [], questions)
    assert [line["group"] for line in lines if line["bad"]] == ["c", "a"]
    words = {line["group"]: verdict_of(line) for line in lines}
    assert words == {"a": "harmful", "b": "its classes are its own", "c": "harmful"}
    assert "What removing 'b' does cannot be told" in questions_sentence(lines, questions)
