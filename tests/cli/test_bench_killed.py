"""A benchmark that is killed, and goes on."""

import subprocess
import sys
import time

import pytest

WORDS = [
    "bench", "truth", "--rows", "40", "--seeds", "1", "--subsets", "8", "--runs", "2", "--methods",
    "own-loss,grad-dot,replay",
]  # fmt: skip


def start(out):
    command = [sys.executable, "-m", "finfluence", *WORDS, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_tables(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(200) == 0
    first = start(killed)
    deadline = time.monotonic() + 200
    while not list(killed.glob("answers/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait(200)
    kept = {path: path.stat().st_mtime_ns for path in killed.rglob("models-*")}
    assert kept and list(killed.glob("answers/*.parquet")) and not list(killed.rglob("tables.md"))
    assert start(killed).wait(200) == 0
    for name in ("agreement.parquet", "removed.parquet"):
        assert (whole / "truth-digits" / name).read_bytes() == (killed / "truth-digits" / name).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
