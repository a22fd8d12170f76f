"""mitigate: the winning head is named and written; scans without features and files of other kinds are refused."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from finfluence.cli import app
from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.jobs.scan import MitigateOptions, ScanOptions, mitigate_scan, open_scan, run_scan
from finfluence.mitigate import load_head

FAST = {"runs": 1, "epochs": 8, "proof": False}


def run(*arguments):
    shown = CliRunner().invoke(app, ["mitigate", *map(str, arguments)])
    return shown.exit_code, " ".join(shown.output.split())


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=300)
    x = rng.normal(size=(300, 6)) + 1.2 * y[:, None]
    path = tmp_path_factory.mktemp("encoded") / "features.npz"
    np.savez(path, x=x, y=np.array(["<b>no", "yes"])[y])
    return path


@pytest.fixture(scope="module")
def mended(encoded):
    out = encoded.parent / "heads"
    return mitigate_scan(MitigateOptions(source=encoded, out=out, heads=2, epochs=6))


def test_heads_on_a_file_of_features_are_compared_and_the_winner_is_written(encoded, mended):
    out = encoded.parent / "heads"
    heads = {h["kind"]: h for h in mended.found["heads"]}
    assert set(heads) == {"linear", "mlp", "nmtune"} and heads["linear"]["gain"] is None
    surely = [k for k, h in heads.items() if h["gain"] and h["gain"]["lower"] > 0]
    assert (mended.head == "linear") == (not surely)
    head = load_head(out / "head.safetensors")
    assert head.kind == mended.head and head.classes.tolist() == ["<b>no", "yes"]
    x = np.load(encoded)["x"]
    chances = head.predict_proba(x)
    assert (head.classes[chances.argmax(1)] == np.load(encoded)["y"]).mean() > 0.85
    assert json.loads((out / "mitigation.json").read_text())["sentence"] == mended.sentence
    assert mended.sentence.startswith("Use the ") and "60 held-out rows" in mended.sentence


def test_the_same_seed_gives_the_same_head_and_another_one_another(encoded, mended):
    again, other = (
        mitigate_scan(
            MitigateOptions(source=encoded, out=encoded.parent / f"again{s}", heads=2, epochs=6, seed=s)
        )
        for s in (0, 1)
    )
    one, same, another = (
        (encoded.parent / name / "head.safetensors").read_bytes() for name in ("heads", "again0", "again1")
    )
    assert one == same and again.found["heads"] == mended.found["heads"]
    assert one != another and other.found["heads"] != mended.found["heads"]


@pytest.mark.slow
def test_a_scan_keeps_its_network_and_its_report_has_the_chapter(tmp_path):
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=320)
    frame = pd.DataFrame(
        (rng.normal(size=(320, 4)) + 1.5 * (y[:, None] - 0.5)).round(3), columns=list("abcd")
    )
    frame["label"] = np.where(y ^ (rng.random(320) < 0.1), "<i>yes", "no")
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "out"
    run_scan(ScanOptions(source=tmp_path / "t.csv", target="label", model="mlp-small", out=out, **FAST))
    code, text = run(out, "--heads", 2, "--epochs", 4)
    assert code == 0 and "the network as it was trained" in text and "head.safetensors" in text
    chapter = next(c for c in open_scan(out).chapters if c.title == "Mitigation")
    assert "the last hidden layer of the network (mlp-small)" in chapter.tables[0].note
    assert load_head(out / "head.safetensors").mean.shape == (16,)
    page = (out / "report.html").read_text()
    assert "Singular values of the features" in page and "<i>yes" not in page
    code, text = run(out, "--out", tmp_path / "elsewhere")
    assert code == 2 and "leave --out out" in text
    quiet = run(out, "--heads", 2, "--epochs", 4, "-q")[1]
    assert quiet == f"Mitigation: {chapter.sentence}"


@pytest.mark.slow
def test_a_linear_network_and_a_regression_have_nothing_to_keep(tmp_path):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(rng.normal(size=(80, 3)).round(3), columns=list("abc"))
    frame["label"] = np.where(frame["a"] > 0, "u", "v")
    frame["number"] = frame["a"] + 0.1
    for target, model, why in (
        ("label", "linear", "the network is linear"),
        ("number", "mlp", "is a number"),
    ):
        frame[["a", "b", "c", target]].to_csv(tmp_path / f"{model}.csv", index=False)
        out = tmp_path / model
        run_scan(ScanOptions(source=tmp_path / f"{model}.csv", target=target, model=model, out=out, **FAST))
        code, text = run(out)
        assert code == 2 and why in text and "an .npz file of features x and labels y" in text


def test_bad_calls_are_told(tmp_path, encoded):
    code, text = run(encoded)
    assert code == 2 and "name a new or empty folder by --out" in text
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StorageError, match="other files, which were not touched"):
        mitigate_scan(MitigateOptions(source=encoded, out=tmp_path / "mine"))
    np.savez(tmp_path / "pictures.npz", x=np.zeros((20, 8, 8)), y=np.arange(20) % 2)
    with pytest.raises(DataError, match="rows × features"):
        mitigate_scan(MitigateOptions(source=tmp_path / "pictures.npz", out=tmp_path / "o"))
    with pytest.raises(StorageError, match="the folder of a scan"):
        mitigate_scan(MitigateOptions(source=tmp_path))
    with pytest.raises(ConfigError, match="--heads to be a whole number of at least 1"):
        MitigateOptions(source=encoded, heads=0)
    (tmp_path / "head.safetensors").write_bytes(b"no head")
    with pytest.raises(StorageError, match="a head of finfluence") as told:
        load_head(tmp_path / "head.safetensors")
    assert "finfluence mitigate or save_head wrote" in str(told.value)
