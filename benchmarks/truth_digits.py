"""The truth on digits by retraining: what every estimate of influence is checked against.

    python -m benchmarks.truth_digits --setting sgd [--runs 960 --runs-without 320 --out bench-out]

Writes <out>/truth-digits-<setting>.npz (see `save`) and the same as a Zarr result; finished runs are kept in
<out>/truth-runs, so that a stopped command goes on where it was. One thread, about five minutes a setting.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.problems import SETTINGS, Problem, digits
from finfluence.estimators import retrain
from finfluence.result import Influence


def truth_path(out: Path, setting: str) -> Path:
    return out / f"truth-digits-{setting}.npz"


def save(path: Path, influence: Influence, problem: Problem, seconds: float) -> None:
    """Write arrays [subsets, queries] effect, spread, mu, se, effect_se, lower, upper, p_value and labels.

    `rows` [subsets, 20] holds the removed positions, padded with −1.
    """
    data = influence.data
    arrays = {name: data[name].values for name in data.data_vars}
    rows = np.full((len(problem.subsets), max(map(len, problem.subsets.values()))), -1)
    for line, members in zip(rows, problem.subsets.values(), strict=True):
        line[: len(members)] = members
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part, **arrays, subsets=influence.subsets, queries=np.array(influence.queries), rows=rows,
        seconds=seconds,
    )  # fmt: skip
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", choices=list(SETTINGS), default="sgd")
    parser.add_argument("--runs", type=int, default=960)
    parser.add_argument("--runs-without", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs; the problem stays the same")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--executor", choices=["serial", "joblib"], default="serial")
    args = parser.parse_args()
    torch.set_num_threads(1)
    problem = digits(args.setting)
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def show(stage: str, done: int, total: int) -> None:
        print(f"\r{stage} {done}/{total} {time.perf_counter() - started:.0f} s", end="", flush=True)

    influence = retrain(
        problem.recipe, problem.queries, problem.subsets, runs=args.runs, runs_without=args.runs_without,
        vary="order", seed=args.seed, out=args.out / "truth-runs", executor=args.executor, progress=show,
    )  # fmt: skip
    path = truth_path(args.out, args.setting)
    save(path, influence, problem, time.perf_counter() - started)
    influence.save(path.with_suffix(".zarr"))
    print(f"\n{influence}\nwritten: {path}")


if __name__ == "__main__":
    main()
