"""Damaged files of a scan are said as such, with exit code 2 and how to make them again; and that way works."""

import re
import shutil

import pytest
from typer.testing import CliRunner

import finfluence as fi
from finfluence.cli import app
from finfluence.errors import StorageError
from finfluence.jobs import Job, JobFolder
from finfluence.jobs.scan import ScanOptions, run_scan
from small_data import blobs_csv

OPTIONS = [
    "--target",
    "label",
    "--runs",
    "2",
    "--epochs",
    "6",
    "--proof-runs",
    "2",
    "--fdr",
    "0.3",
    "--self-test",
]
VERIFY = ["--subsets", "4", "--runs", "10"]


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished and verified scan in which some rows are named, and the command that made it."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["scan", blobs_csv(folder, n=200, wrong=30), *OPTIONS]
    for done in (run(*command, "--out", folder / "out"), run("verify", folder / "out", *VERIFY)):
        assert done.exit_code == 0, done.output
    assert (folder / "out/proof.json").exists()
    return folder / "out", command


@pytest.fixture
def scanned(whole, tmp_path):
    """A copy of it, and what is done with a folder by name."""
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)

    def does(what):
        words = {
            "show": ["show", out],
            "clean": ["clean", out, "--to", tmp_path / "c.csv", "--force", "--even-if-worse"],
            "verify": ["verify", out, *VERIFY],
            "resume": [*whole[1], "--out", out, "--resume"],
        }
        return run(*words[what])

    return out, does


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def another(path):
    path.write_text("{}")


def folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [
    ("influence.parquet", folder, ("show", "clean")),
    ("influence.parquet", cut, ("show", "clean", "verify", "resume")),
    ("influence.parquet", remove, ("show", "clean", "verify", "resume")),
    ("scan.json", empty, ("show", "clean", "verify", "resume")),
    ("scan.json", another, ("show", "clean", "verify", "resume")),
    ("previews.parquet", cut, ("show",)),
    ("influence.zarr/mu/c", remove, ("verify",)),
    ("influence.zarr", remove, ("verify",)),
    ("runs/000/influence.zarr/zarr.json", empty, ("verify",)),
    ("runs/001/influence.zarr/effect/c", remove, ("verify",)),
    ("runs/000/predictions.safetensors", cut, ("verify",)),
    ("runs/000/predictions.safetensors", remove, ("verify",)),
    ("proof.json", empty, ("verify",)),
    ("proof.json", remove, ("verify",)),
    ("self-test.json", cut, ("verify",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage", "commands"), DAMAGES)
def test_a_damaged_file_is_said_and_made_again(scanned, name, damage, commands):
    out, does = scanned
    damage(out / name)
    for command in commands:
        done = does(command)
        assert done.exit_code == 2, done.output
        words = " ".join(done.output.split())
        of = re.match(r".*?\.(zarr|parquet|json|safetensors)", name).group()
        assert f"expected {of}, whole, in the scan folder {out}" in words
        for part in ("got:", "cut short by a copy or a full disk", "next step: make it again: delete "):
            assert part in words
    for gone in re.search(r"delete (.+?) there", words).group(1).split(" and "):
        remove(out / gone)
    assert does("resume").exit_code == 0
    for command in commands:
        assert does(command).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", [empty, cut])
def test_a_damaged_run_yaml_is_said_and_cannot_be_made_again(scanned, damage):
    out, does = scanned
    if damage is cut:
        (out / "run.yaml").write_text("options: [never closed")
    else:
        damage(out / "run.yaml")
    for command in ("show", "clean", "verify", "resume"):
        done = does(command)
        words = " ".join(done.output.split())
        assert done.exit_code == 2 and f"expected run.yaml, whole, in the scan folder {out}" in words
        assert "restore it from a copy; without it, scan again into another folder" in words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "damage", "words"),
    [
        ("verify/plan-*.json", empty, "delete this one file and verify again"),
        ("verify/cost-*.json", another, "delete this one file and verify again"),
        ("verify/runs-*.parquet", cut, "delete this one file: its runs are trained again"),
    ],
)
def test_a_damaged_file_of_a_verification(scanned, pattern, damage, words):
    out, does = scanned
    path = sorted(out.glob(pattern))[0]
    damage(path)
    if "cost" in pattern:
        remove(next(out.glob("verify/plan-*.json")))
    done = does("verify")
    assert done.exit_code == 2 and str(path) in done.output and words in done.output
    remove(path)
    assert does("verify").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["tape.json", "states-*.safetensors"])
def test_what_an_interrupted_scan_left_may_be_damaged_too(whole, tmp_path, pattern):
    out, replayed = tmp_path / "out", []

    def stop(stage, done, total):
        if stage.startswith("replay run 1"):
            replayed.append(done)
        if len(replayed) > 1 and replayed[-1] > replayed[0]:
            raise KeyboardInterrupt

    options = {"source": whole[1][1], "target": "label", "out": out, "runs": 1, "epochs": 6, "proof": False}
    with pytest.raises(KeyboardInterrupt):
        run_scan(ScanOptions(**options), stop)
    path = sorted((out / "runs/000").glob(pattern))[0]
    cut(path) if path.suffix == ".safetensors" else empty(path)
    with pytest.raises(StorageError) as caught:
        run_scan(ScanOptions(**options, resume=True))
    name = f"runs/000/{path.name}"
    assert f"expected {name}, whole, in the scan folder" in str(caught.value)
    assert f"make it again: delete {name} there" in str(caught.value)
    path.unlink()
    assert run_scan(ScanOptions(**options, resume=True)).verdict


@pytest.mark.slow
def test_load_says_what_a_folder_is(scanned, tmp_path):
    out, _ = scanned
    assert fi.load(out).queries == ["held-out"]
    remove(out / "influence.zarr/mu/c")
    with pytest.raises(StorageError, match=r"damaged arrays[\s\S]*delete influence.zarr and scan.json there"):
        fi.load(out)
    remove(out / "influence.zarr")
    with pytest.raises(StorageError, match=r"the folder of a job without influence.zarr[\s\S]*with --resume"):
        fi.load(out)
    with pytest.raises(StorageError, match=r"got: a tape\n[\s\S]*open it with fi.Tape.open"):
        fi.load(out / "runs/000")
    with pytest.raises(StorageError, match=r"got: finished runs\n[\s\S]*fi.retrain or fi.verify again"):
        fi.load(out / "verify")
    (tmp_path / "other").mkdir()
    with pytest.raises(
        StorageError, match=r"a file or folder of another program[\s\S]*fi.replay\(…\).save\(path\)"
    ):
        fi.load(tmp_path / "other")
    with pytest.raises(StorageError, match="got: no such folder"):
        fi.load(tmp_path / "nowhere")


def test_a_later_version_is_named(tmp_path):
    folder = JobFolder(tmp_path, Job("tune", version=1))
    folder.start({"format": "finfluence-tune", "version": 2, "versions": {"finfluence": "9.9.9"}})
    with pytest.raises(StorageError) as caught:
        folder.read_run()
    for part in (
        "run.yaml in",
        "format 2, written by finfluence 9.9.9",
        "a later version",
        "update this one",
    ):
        assert part in str(caught.value)
