"""Where the time of a scan goes, in multiples of one plain training.

    python -m benchmarks.scan_time [--rows 5000] [--columns 20] [--folder bench-out/scan-time]

Scans a table of numbers (two classes, a tenth of the labels wrong) by the command line with all defaults, and prints
how long each stage took, beside the floor: importing torch, reading the file, and four plain trainings of the network
that was chosen, in the same process.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd


def write_table(path: Path, rows: int, columns: int, seed: int = 0) -> None:
    """Write a table of two classes that a network tells apart, a tenth of the labels wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * rng.normal(size=rows)) > 0
    y ^= rng.random(rows) < 0.1
    frame = pd.DataFrame(x.round(4), columns=[f"c{k}" for k in range(columns)])
    frame.assign(label=np.where(y, "yes", "no")).to_csv(path, index=False)


def floor(out: Path) -> dict[str, float]:
    """Return seconds of importing torch, of reading the table, and of four plain trainings of the chosen network."""
    import_torch = [sys.executable, "-c", "import torch"]
    started = time.perf_counter()
    subprocess.run(import_torch, check=True)
    seconds = {"import torch": time.perf_counter() - started}

    import torch

    from finfluence.ensemble import RunSpec, Workers, train_many
    from finfluence.jobs.scan import ScanOptions, as_trained, plan_training, read_data, read_run
    from finfluence.runs import mean_loss

    torch.set_num_threads(1)
    run = read_run(out)
    options = ScanOptions.of_run(run, out)
    started = time.perf_counter()
    data = read_data(options)
    seconds["read"] = time.perf_counter() - started
    recipe = plan_training(as_trained(options, run), data.train).recipe
    query = mean_loss(data.query.x, data.query.y, name="held-out")
    started = time.perf_counter()
    for seed in range(4):
        train_many(recipe, [RunSpec(seed, seed)], [query], Workers("serial"))
    seconds["four trainings"] = time.perf_counter() - started
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("bench-out/scan-time"))
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    table, out = args.folder / "table.csv", args.folder / "scan"
    write_table(table, args.rows, args.columns)
    command = [
        sys.executable, "-m", "finfluence", "scan", str(table), "--target", "label", "--out", str(out), "-q"
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, check=True)
    whole = time.perf_counter() - started
    stages = json.loads((out / "scan.json").read_text(encoding="utf-8"))["seconds"]
    least = floor(out)
    lowest = sum(least.values())
    print(
        f"\n{args.rows:,} rows × {args.columns} columns\n\n| stage | seconds | share |\n| --- | --- | --- |"
    )
    for name, seconds in {**stages, "import and the rest": whole - sum(stages.values())}.items():
        print(f"| {name} | {seconds:.1f} | {seconds / whole:.0%} |")
    print(f"| **whole scan** | {whole:.1f} | {whole / lowest:.1f} × the floor |")
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in least.items())
    print(f"\nFloor: {lowest:.1f} s ({parts}).")
    check = stages.get("retraining check", 0.0)
    print(f"The check by retraining takes {check / (whole - check):.2f} of the rest of the scan.")


if __name__ == "__main__":
    main()
