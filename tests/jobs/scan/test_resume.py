"""Killed at any moment, a scan goes on to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finfluence.errors import StorageError
from finfluence.jobs.scan import ScanOptions, open_scan, run_scan
from small_data import blobs_csv

SCRIPT = """
import importlib, json, os, signal, sys
for heavy in ("torch._dynamo", "torch.fx.experimental.proxy_tensor", "sympy", "skrub", "joblib"):
    importlib.import_module(heavy)  # once, before the forks
import pytest
from finfluence.jobs.scan import ScanOptions, run_scan
from small_forests import make_small

make_small(pytest.MonkeyPatch())
source, folder, whole = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])


def attempt(out, last, resume):
    calls = 0

    def progress(stage, done, total):
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        try:
            options = dict(target="label", model="mlp", weight_decay=0.01, runs=2, epochs=4, proof_runs=2, fdr=0.3)
            run_scan(ScanOptions(source=source, out=out, resume=resume, **options), progress)
            with open(out + ".calls", "w") as file:
                file.write(str(calls))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for name, kills in whole.items():
    out = os.path.join(folder, name)
    codes = []
    for share in kills:
        with open(os.path.join(folder, "whole.calls")) as file:
            total = int(file.read())
        codes += [attempt(out, max(2, round(share * total)), True), os.path.exists(out + "/scan.json")]
    codes.append(attempt(out, 0, True))
    print(json.dumps([name, codes]), flush=True)
"""
OPTIONS = {"model": "mlp", "weight_decay": 0.01, "runs": 2, "epochs": 4, "proof_runs": 2, "fdr": 0.3}
MORE = {"early": [0.05], "training": [0.3], "replay": [0.55], "proof": [0.8], "often": [0.3, 0.3, 0.2]}


def killed(folder, shares):
    """Scans in forked processes that kill themselves at a share of all progress calls, then go on."""
    source = blobs_csv(folder, n=240, wrong=24)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), str(folder), json.dumps({"whole": [], **shares})],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, dict(json.loads(line) for line in done.stdout.splitlines()), done.stderr


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A scan that was not stopped, one that was and went on, and one that was stopped."""
    folder = tmp_path_factory.mktemp("scans")
    source = blobs_csv(folder, n=240, wrong=24)
    calls = 0

    def attempt(name, last=0):
        nonlocal calls
        calls = 0

        def progress(stage, done, total):
            nonlocal calls
            calls += 1
            if calls == last:
                raise KeyboardInterrupt

        run_scan(
            ScanOptions(source=source, out=folder / name, target="label", resume=True, **OPTIONS), progress
        )

    attempt("whole")
    total = calls
    for name, share in (("replay", 0.55), ("stopped", 0.3)):
        with pytest.raises(KeyboardInterrupt):
            attempt(name, round(share * total))
    assert not (folder / "replay/scan.json").exists()
    attempt("replay")
    return source, folder


@pytest.fixture(scope="module")
def more_scans(tmp_path_factory):
    return killed(tmp_path_factory.mktemp("more"), MORE)


def test_interrupted_and_resumed_equals_uninterrupted(scans):
    same_as_whole(scans[1], "replay")


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_killed_anywhere_and_often_equals_uninterrupted(more_scans, name):
    folder, codes, errors = more_scans
    assert codes["whole"] == [0], errors
    assert codes[name] == [-signal.SIGKILL, False] * len(MORE[name]) + [0], errors
    same_as_whole(folder, name)


def same_as_whole(folder, name):
    for file in ("influence.parquet", "proof.json"):
        assert (folder / name / file).read_bytes() == (folder / "whole" / file).read_bytes()
    assert open_scan(folder / name).verdict == open_scan(folder / "whole").verdict
    assert not list((folder / name).rglob("*.part"))


def test_resume_refuses_other_options_and_other_data(scans, tmp_path):
    source, folder = scans
    options = {"source": source, "out": folder / "stopped", "target": "label", **OPTIONS}
    with pytest.raises(StorageError, match=r"options\.seed was 0, is 1"):
        run_scan(ScanOptions(**options, seed=1, resume=True))
    with pytest.raises(StorageError, match=r"a scan that was interrupted\n.*\n.*add --resume"):
        run_scan(ScanOptions(**options))
    changed = tmp_path / "changed.csv"
    changed.write_text(source.read_text() + "1,1,1,1,cat\n")
    with pytest.raises(StorageError, match=r"options\.source was"):
        run_scan(ScanOptions(**{**options, "source": changed}, resume=True))


def test_resuming_a_finished_scan_only_reads_it(scans):
    source, folder = scans
    out = folder / "whole"
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    told = []
    options = ScanOptions(source=source, out=out, target="label", resume=True, **OPTIONS)
    result = run_scan(options, lambda stage, done, total: told.append(stage))
    assert set(told) == {"read"} and result.verdict == open_scan(out).verdict
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


def test_run_yaml_holds_what_is_needed_to_repeat(scans):
    run = yaml.safe_load((scans[1] / "whole/run.yaml").read_text())
    assert run["training"]["seeds"] and run["command"].startswith("finfluence scan")
    wanted = "--epochs 4 --batch-size 4 --lr 0.001 --weight-decay 0.01 --optimizer adamw --runs 2 --seed 0 --fdr 0.3"
    assert wanted.replace("size 4", f"size {run['training']['batch_size']}") in run["command"]
