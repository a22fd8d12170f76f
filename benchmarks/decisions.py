"""What `finfluence decide` recommends on two real tables with known errors: python -m benchmarks.decisions.

569 tumours of scikit-learn: twelve numbers with missing cells, a ward and a note that say nothing, 8 % of the training
labels flipped, 140 rows held out; and the digits of `finfluence demo` (a tenth of the labels planted). Each is scanned
with the command's own defaults, and decided on.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

from finfluence.jobs import demo
from finfluence.jobs.scan import Advice, DecideOptions, ScanOptions, decide_scan, run_scan

SEED, HELD, FLIPPED, MISSING = 21, 140, 0.08, 25


def tumours(folder: Path) -> ScanOptions:
    """Write train.csv and held.csv, and return what scans them."""
    rng, known = np.random.default_rng(SEED), load_breast_cancer()
    n = len(known.target)
    names = [str(name).replace(" ", "_") for name in known.feature_names[:12]]
    frame = pd.DataFrame(np.round(known.data[:, :12], 4), columns=names)
    frame["ward"] = rng.choice(["a", "b", "c & d"], n)
    frame["note"] = [f"seen on day {i}, nothing special" for i in range(n)]
    for name in names[:4]:
        frame.loc[rng.choice(n, MISSING, replace=False), name] = np.nan
    frame.insert(0, "id", [f"k{i:04d}" for i in rng.permutation(n)])
    right = np.array(["malignant", "benign"])[known.target]
    held = rng.choice(n, HELD, replace=False)
    train = np.setdiff1d(np.arange(n), held)
    flipped = rng.choice(train, int(FLIPPED * len(train)), replace=False)
    given = right.copy()
    given[flipped] = np.where(right[flipped] == "benign", "malignant", "benign")
    source, holdout = folder / "train.csv", folder / "held.csv"
    frame.assign(label=given).iloc[train].to_csv(source, index=False)
    frame.assign(label=right).iloc[held].to_csv(holdout, index=False)
    return ScanOptions(source=source, target="label", id_column="id", holdout=holdout, out=folder / "out")


def digits(folder: Path, *, short: bool = False) -> ScanOptions:
    """Write the demo's files, and return what scans them."""
    return demo.prepare(folder / "demo", short).options


def decided(options: ScanOptions, unlabelled: Path) -> Advice:
    """Scan, and decide; the held-out rows stand for rows without labels, too."""
    run_scan(options)
    return decide_scan(options.out, DecideOptions(unlabelled=unlabelled))


def told(name: str, advice: Advice) -> str:
    """Return a line of a table for each action, and the recommendation below."""
    lines = []
    for did in advice.tried:
        by_metric = {d["metric"]: d for d in did["differences"]}
        loss, accuracy = by_metric["held-out log loss"], by_metric["held-out accuracy"]
        control = did.get("control", {"better": None})["better"]
        cells = (
            f"{did['action']} ({did['rows']})",
            f"{loss['value']:+.3f} [{loss['lower']:+.3f}, {loss['upper']:+.3f}]",
            f"{100 * accuracy['value']:+.1f} [{100 * accuracy['lower']:+.1f}, {100 * accuracy['upper']:+.1f}]",
            "yes" if did["better"] and not did["harms"] and control is not False else "no",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    left = "; ".join(f"{action}: {why}" for action, why in advice.left_out.items())
    return "\n".join([*lines, f"{name}: {advice.sentence}", *([f"Not tried: {left}."] if left else [])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("tumours", "digits"))
    only = parser.parse_args().only
    print(
        "| table | action (rows) | held-out log loss | accuracy, points | surely better |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as place:
        for table, made in (("tumours", tumours), ("digits", digits)):
            if only in (None, table):
                chosen = made(Path(place))
                assert chosen.holdout is not None
                print(told(table, decided(chosen, Path(chosen.holdout))), flush=True)
