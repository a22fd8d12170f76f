from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finfluence.estimators import METHODS
from finfluence.jobs.bench import DATA, BenchOptions, BenchResult, run_bench


@pytest.fixture
def clouds(monkeypatch, tmp_path) -> Callable[..., BenchResult]:
    """Return a benchmark in a folder of the test, on two clouds of points (`bars` are small images)."""
    monkeypatch.setitem(DATA, "clouds", "jobs.bench.tiny_bench_data:CLOUDS")
    monkeypatch.setitem(DATA, "bars", "jobs.bench.tiny_bench_images:BARS")
    monkeypatch.setitem(METHODS, "toy", "conformance.toy:Toy")

    def run(experiment: str = "mislabels", folder: str = "out", **given: Any) -> BenchResult:
        options = {"methods": "own-loss,random", "seeds": 2, "data": "clouds", **given}
        return run_bench(BenchOptions(experiment=experiment, out=Path(tmp_path) / folder, **options))

    return run
