"""The how-to page on scans names the files that there are, and every column of them."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finfluence.jobs.scan import ScanOptions, ScanResult, run_scan
from small_data import mixed_csv

PAGE = (Path(__file__).parents[3] / "docs/how-to/scan.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> ScanResult:
    folder = tmp_path_factory.mktemp("page")
    return run_scan(
        ScanOptions(source=mixed_csv(folder), target="label", id_column="key", group_column="source", out=folder / "out",
                    runs=1, epochs=3, proof_runs=2, fdr=0.5, self_test=True)
    )  # fmt: skip


def section(title: str) -> str:
    return PAGE.split(f"## {title}")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_column_is_explained_in_its_order(scanned):
    assert first_cells(section("Columns of `influence.parquet`")) == list(scanned.lines.columns)


def test_groups_previews_and_decisions_are_named_in_full(scanned):
    last = section("Columns of `influence.parquet`").split("`groups.parquet` has the columns")[1]
    of_groups, of_decisions = last.split("`result.decisions` has")
    columns = pq.read_schema(scanned.folder / "groups.parquet").names
    assert set(re.findall(r"`([a-z_]+)`", of_groups)) == set(columns)
    assert set(re.findall(r"`([a-z_]+)`", of_decisions)) == set(scanned.decisions.columns)
    assert list(scanned.previews.columns) == ["row_id", "preview"]


def test_every_file_is_named(scanned):
    there = {path.name + "/" * path.is_dir() for path in scanned.folder.iterdir()}
    named = set(first_cells(section("Files of a scan")))
    assert {name.rstrip("/") for name in there} <= {name.rstrip("/") for name in named}
    assert {name.rstrip("/") for name in named} - {name.rstrip("/") for name in there} <= {
        "proof.json", "groups-proof.json", "proof", "decision.json", "verification.json", "verify", "input",
    }  # fmt: skip
