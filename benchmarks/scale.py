"""Memory of a replay: 50,000 rows × 64 queries on a tiny model, in memory and written to Zarr on the way.

Run: python -m benchmarks.scale [--rows 50000] [--queries 64] [--method online|full]
Prints the peak of resident memory above where it stood before the replay. One process for each line, so that peaks do
not mix.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
from finfluence.runs import seeded

WIDTH, CLASSES = 8, 4


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def recipe(rows: int, epochs: int) -> fr.Recipe:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    y = (x[:, :CLASSES] + rng.normal(size=(rows, CLASSES))).argmax(1)
    with seeded(0):
        model = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, CLASSES))
    return fr.Recipe(
        data=fr.Rows(x=x, y=y),
        model=model,
        loss=loss,
        optimizer=fr.AdamW(lr=0.01),
        batch_size=1000,
        epochs=epochs,
    )


class Peak:
    """The most resident memory of this process while the block runs, sampled every 2 ms."""

    def __enter__(self) -> "Peak":
        self._process, self._on = psutil.Process(), True
        self.before = self.most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()

    def _watch(self) -> None:
        while self._on:
            self.most = max(self.most, self._process.memory_info().rss)
            time.sleep(0.002)


def one(rows: int, queries: int, method: str, memory_bytes: int, zarr: bool) -> None:
    tape = fi.train(recipe(rows, epochs=3))
    rng = np.random.default_rng(1)
    query = fi.each_loss(
        rng.normal(size=(queries, WIDTH)).astype(np.float32), rng.integers(0, CLASSES, queries)
    )
    fi.replay(
        tape, fi.each_loss(np.ones((2, WIDTH), np.float32), np.zeros(2, np.int64)), horizon=1
    )  # libraries
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "r.zarr" if zarr else None
        with Peak() as peak:
            start = time.perf_counter()
            fi.replay(tape, query, method=method, memory_bytes=memory_bytes, save_to=place)  # type: ignore[arg-type]
            seconds = time.perf_counter() - start
    together = "all" if memory_bytes >= 2**30 else f"{memory_bytes / 2**20:.0f} MiB"
    print(
        f"| {method} | {rows:,} × {queries} | {together} | {'Zarr' if zarr else 'memory'} "
        f"| {(peak.most - peak.before) / 2**20:.0f} | {seconds:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--one", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        method, memory_bytes, zarr = options.one
        one(options.rows, options.queries, method, int(memory_bytes), zarr == "zarr")
        return
    print(
        "| method | rows × queries | `memory_bytes` | result | peak, MiB | seconds |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for method, memory_bytes, place in (
        ("online", 2**30, "memory"), ("online", 2**30, "zarr"), ("online", 2**26, "zarr"), ("full", 2**30, "memory"),
    ):  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.scale", "--rows", str(options.rows)]
        command += ["--queries", str(options.queries), "--one", method, str(memory_bytes), place]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
