"""`fi.scan`: a frame, arrays or a path in, decisions under the frame's own ids out, with the numbers of the command."""

import gc
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import finfluence as fi
from finfluence.clean import Decisions
from finfluence.cli import app
from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.ingest import column_decisions
from finfluence.jobs.scan import ScanResult, open_scan
from four_parts import assert_parts
from small_data import QUICK, blobs

FLAGS = ["--runs", "1", "--epochs", "3", "--no-proof"]


@pytest.fixture(scope="module")
def frame():
    return blobs(n=160, wrong=16)[0]


def by_command(source, out, *options):
    arguments = ["scan", source, "--out", out, *FLAGS, *options]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return open_scan(out)


def test_a_frame_gives_the_numbers_of_the_command_on_its_csv(frame, tmp_path):
    frame.to_csv(tmp_path / "train.csv", index=False)
    command = by_command(tmp_path / "train.csv", tmp_path / "command", "--target", "label")
    result = fi.scan(frame, target="label", **QUICK)
    pd.testing.assert_frame_equal(result.lines, command.lines)
    assert result.verdict == command.verdict
    decisions = result.decisions
    assert len(decisions) == 128 and set(decisions.index) < set(frame.index)
    np.testing.assert_array_equal(frame.loc[decisions.index, "label"], decisions["label"])
    assert {"mu", "own_loss", "q_value", "flagged", "suggested_action", "reason"} <= set(decisions.columns)


@pytest.mark.slow
def test_what_csv_cannot_say_of_a_frame_is_said_or_spelt(tmp_path):
    """Categories of numbers, decimals without a point beside 2.155, and names of columns that are numbers."""
    sizes = [Decimal(f"{1 + i / 1000:.3f}") if i % 3 else Decimal(i % 9 + 1) for i in range(60)]
    frame = pd.DataFrame(
        {0: ["a", "b"] * 30, "size": sizes, "zip": pd.Categorical([10115, 20095, 50667] * 20)}
    )
    result = fi.scan(frame, target=0, out=tmp_path / "o", **QUICK)
    assert any(
        "column 'zip' has categories that are numbers: read as numbers" in note for note in result.notes
    )
    (source,) = (tmp_path / "o/input").iterdir()
    read_as = column_decisions(source, "0").set_index("column")
    assert read_as.loc["size", ["read_as", "format"]].tolist() == ["number", ""]


def test_labels_of_the_decisions_are_those_of_the_frame():
    lines = pd.DataFrame(
        {"label": ["1", "0"], "predicted": ["1", "1"], "suggested_label": [None, "1"], "row_id": ["4", "7"]},
        dtype=object,
    )

    class Decided(ScanResult):
        def decide(self, fdr=None):
            return Decisions(lines, 0.1, 2, 0.8, "harmful")

    found = Decided(Path(), {}, lines, {"4": 4, "7": 7}, {"0": 0, "1": 1}).decisions
    assert found["label"].dtype == found["predicted"].dtype == np.int64
    assert found["label"].to_dict() == {4: 1, 7: 0} and found["suggested_label"].tolist() == [None, 1]
    assert Decided(Path(), {}, lines).decisions["label"].tolist() == ["1", "0"]


@pytest.mark.slow
def test_rows_are_named_by_the_index_whatever_it_holds(frame, tmp_path):
    named = frame.set_axis([f"r-{i}" for i in range(len(frame))])
    result = fi.scan(named, "label", out=tmp_path / "named", **QUICK)
    assert result.decisions.index[0].startswith("r-")
    assert named.join(result.decisions[["mu"]])["mu"].notna().sum() == len(result.decisions)
    dated = frame.set_axis(pd.date_range("2020-01-01", periods=len(frame)))
    found = fi.scan(dated, "label", **QUICK).decisions
    assert found.index.isin(dated.index).all()
    np.testing.assert_array_equal(found["mu"], result.decisions["mu"])
    with_ids = frame.assign(key=[f"k{i}" for i in range(len(frame))])
    assert fi.scan(with_ids, "label", id="key", **QUICK).decisions.index[0].startswith("k")


@pytest.mark.slow
def test_arrays_and_labels_beside_a_frame(frame, tmp_path):
    x, y = frame[list("abcd")].to_numpy(), (frame["label"] == "cat").to_numpy().astype(int)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    command = by_command(tmp_path / "rows.npz", tmp_path / "command")
    for result in (fi.scan(x, y, **QUICK), fi.scan((x, y), **QUICK)):
        np.testing.assert_array_equal(result.lines["mu"], command.lines["mu"])
    beside = fi.scan(frame[list("abcd")], frame["label"], **QUICK)
    np.testing.assert_array_equal(beside.lines["mu"], fi.scan(frame, "label", **QUICK).lines["mu"])


@pytest.mark.slow
def test_held_out_rows_of_every_kind(frame, tmp_path):
    held = blobs(n=60, wrong=0, seed=1)[0]
    held.to_csv(tmp_path / "held.csv", index=False)
    frame.to_csv(tmp_path / "train.csv", index=False)
    by_path = fi.scan(tmp_path / "train.csv", "label", holdout=tmp_path / "held.csv", **QUICK)
    by_frame = fi.scan(frame, "label", holdout=held, **QUICK)
    np.testing.assert_array_equal(by_frame.lines["mu"], by_path.lines["mu"])
    assert len(by_frame.decisions) == len(frame)
    x, y = frame[list("abcd")].to_numpy(), frame["label"].to_numpy()
    arrays = fi.scan(x, y, holdout=(held[list("abcd")].to_numpy(), held["label"].to_numpy()), **QUICK)
    assert len(arrays.decisions) == len(frame)


@pytest.mark.slow
def test_a_temporary_folder_lives_as_long_as_the_result(frame, tmp_path):
    result = fi.scan(frame, "label", **QUICK)
    place = result.folder
    assert (
        place.is_dir()
        and f"folder: {place} (temporary: removed with this result; pass out= to keep it)" in repr(result)
    )
    assert repr(result).startswith(f"Scan: {result.verdict}") and "next: .decisions" in repr(result)
    assert "\n  note: One training run: the spread covers the batch order" in repr(result)
    assert result.influence.queries == ["held-out"] and result.report.exists()
    del result
    gc.collect()
    assert not place.exists()
    kept = fi.scan(frame, "label", out=tmp_path / "kept", **QUICK)
    assert f"folder: {tmp_path / 'kept'}\n" in repr(kept) and (tmp_path / "kept/input/train.csv").exists()
    again = fi.scan(frame, "label", out=tmp_path / "kept", resume=True, **QUICK)
    assert again.verdict == kept.verdict
    with pytest.raises(StorageError) as caught:
        fi.scan(frame.iloc[:-1], "label", out=tmp_path / "kept", resume=True, **QUICK)
    assert_parts(
        caught.value,
        "the rows that were scanned in",
        "others",
        "the frame was changed",
        "choose another out=",
    )
    assert len(pd.read_csv(tmp_path / "kept/input/train.csv")) == len(frame)


@pytest.mark.slow
def test_the_folder_serves_the_commands(frame, tmp_path):
    result = fi.scan(frame, "label", out=tmp_path / "out", **QUICK)
    runner = CliRunner()
    assert runner.invoke(app, ["show", str(tmp_path / "out")]).exit_code == 0
    done = result.clean(tmp_path / "cleaned.csv", action="review")
    assert done.kept == len(frame) == len(pd.read_csv(tmp_path / "cleaned.csv"))
    with pytest.raises(ConfigError, match="did you mean 'action'"):
        result.clean(tmp_path / "c.csv", acton="drop")
    bank = tmp_path / "bank"
    assert len(result.verify(subsets=4, runs=10, bank=bank).to_frame()) == 4
    kept = sorted(bank.rglob("models-*"))
    assert kept and (bank / kept[0].parent.name / "bank.json").exists()
    again = runner.invoke(
        app, ["verify", str(tmp_path / "out"), "--subsets", "4", "--runs", "10", "--bank", str(bank)]
    )
    assert again.exit_code == 0 and sorted(bank.rglob("models-*")) == kept


def test_a_notebook_shows_the_verdict_and_escapes_the_data(tmp_path):
    made = blobs(n=120, wrong=12)[0]
    made["label"] = made["label"].map({"cat": "<script>alert(1)</script>", "dog": "d&g"})
    page = fi.scan(made.set_axis([f"<b>{i}" for i in range(120)]), "label", **QUICK)._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;" in page and "d&amp;g" in page
    assert page.count("<tr>") == 11 and "rows" in page.split("</b>")[0]


def test_rows_that_cannot_be_named(frame):
    doubled = pd.concat([frame, frame])
    with pytest.raises(DataError) as caught:
        fi.scan(doubled, "label", **QUICK)
    assert_parts(caught.value, "a frame whose index names each row once", "160 index values that stand in more than one row, first '0'",
                 "put together with their old indices", "frame.reset_index(drop=True)")  # fmt: skip
    with pytest.raises(DataError) as caught:
        fi.scan(frame.set_index(["a", "b"]), "label", **QUICK)
    assert_parts(caught.value, "a frame whose index names each row once", "an index of several levels, ['a', 'b']",
                 "grouped, stacked or pivoted", "pass frame.reset_index(), whose levels become columns")  # fmt: skip
    with pytest.raises(DataError, match="a column 'row_id' that is not passed as id="):
        fi.scan(frame.set_axis(range(5, 165)).assign(row_id=1), "label", **QUICK)


def test_words_for_what_does_not_fit(frame, tmp_path):
    x = frame[list("abcd")].to_numpy()
    with pytest.raises(ConfigError) as caught:
        fi.scan(x, **QUICK)
    assert_parts(
        caught.value,
        "a DataFrame or a path with target=",
        "ndarray without labels",
        "labels of another",
        "scan(X, y)",
    )
    with pytest.raises(ConfigError, match="a path beside an array of labels"):
        fi.scan("train.csv", frame["label"], **QUICK)
    with pytest.raises(ConfigError, match=r"an option among .*did you mean 'epochs'|did you mean 'epochs'"):
        fi.scan(frame, "label", epoch=3)
    with pytest.raises(ConfigError, match=r"names of fi.scan[\s\S]*got: id_column[\s\S]*write id="):
        fi.scan(frame, "label", id_column="a")
    with pytest.raises(ConfigError, match="no id column for arrays"):
        fi.scan(x, frame["label"].to_numpy(), id="a", **QUICK)
    with pytest.raises(DataError, match=r"one label for each of the 160 rows[\s\S]*shape \(3,\)"):
        fi.scan(frame, np.zeros(3), **QUICK)
    with pytest.raises(ConfigError, match=r"an array of labels named 'label' beside a column 'label'"):
        fi.scan(frame, frame["label"], **QUICK)
    with pytest.raises(DataError, match="numbers in an array of features"):
        fi.scan(np.array([["a", 1]] * 20, dtype=object), [0, 1] * 10, **QUICK)


@pytest.mark.slow
def test_records_and_lists_in_a_frame_are_columns_as_in_a_file(frame):
    kind = pd.ArrowDtype(pa.struct({"p": pa.int64()}))
    mixed = frame.assign(
        d=[{"k": i % 3, "v": 0.5} for i in range(160)],
        s=pd.Series([{"p": i % 7} for i in range(160)], dtype=kind),
    )
    shown = str(fi.scan(mixed, "label", holdout=mixed.iloc[:50], **QUICK))
    for note in (
        "column 'd' holds records: read as 2 columns, such as 'd.k'",
        "column 's' holds records: read as 1 column, such as 's.p'",
        "hold-out: column 'd' holds records: read as 2 columns, such as 'd.k'",
        "hold-out: column 's' holds records: read as 1 column, such as 's.p'",
    ):
        assert note in shown


def test_a_scan_that_is_refused_leaves_nothing_and_takes_nothing(frame, tmp_path):
    with pytest.raises(DataError):
        fi.scan(frame, "lable", out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()
    mine = tmp_path / "mine/input"
    mine.mkdir(parents=True)
    (mine / "train.csv").write_text("precious")
    with pytest.raises(StorageError, match="the folder holds something of yours"):
        fi.scan(frame, "label", out=tmp_path / "mine", **QUICK)
    assert (mine / "train.csv").read_text() == "precious"


@pytest.mark.slow
def test_cells_that_a_csv_could_not_hold(frame, tmp_path):
    broken = frame.assign(note=["one\rtwo", "three\r\nfour"] * 80)
    found = fi.scan(broken, "label", **QUICK)
    assert len(found.decisions) == 128
    with pytest.raises(DataError) as caught:
        fi.scan(frame.assign(note=pd.Series(["\ud800 a", "b"] * 80, dtype=object)), "label", **QUICK)
    assert_parts(caught.value, "texts of whole characters", "half of one, '\\ud800'", "cut within a character", "str.encode('utf-8', 'replace')")  # fmt: skip
