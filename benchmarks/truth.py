"""The truth by retraining: what every estimate of influence is checked against.

    python -m benchmarks.truth --problem sgd [--runs 960 --runs-without 320 --out bench-out]

Writes <out>/truth-<problem>.zarr; finished runs are kept in <out>/truth-runs, so that a stopped command goes on where
it was, and asking for more runs trains only those. One thread; 5 to 15 minutes a problem.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.problems import SETTINGS, Problem, digits
from finfluence.estimators.retrain import retrain
from finfluence.result import Influence


def truth(
    name: str,
    out: Path,
    seed: int = 0,
    runs: int | None = None,
    runs_without: int | None = None,
    progress: Callable[[str, int, int], object] = lambda *_: None,
) -> tuple[Problem, Influence]:
    """Return a problem and its truth, reusing finished runs in `out`; `seed` is of the runs, not of the problem."""
    problem, setting = digits(name), SETTINGS[name]
    return problem, retrain(
        problem.recipe, problem.queries, problem.subsets, runs=runs or setting.runs,
        runs_without=runs_without or setting.runs_without, vary="all" if setting.random else "order",
        seed=seed, out=out / "truth-runs", executor="serial", progress=progress,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", nargs="+", choices=[*SETTINGS, "all"], default=["sgd"])
    parser.add_argument("--runs", type=int, help="trainings on all rows; default: the problem's own")
    parser.add_argument("--runs-without", type=int, help="trainings without each set; default: the problem's")
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs; the problem stays the same")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS if "all" in args.problem else args.problem:
        started = time.perf_counter()

        def show(stage: str, done: int, total: int, name: str = name, started: float = started) -> None:
            print(
                f"\r{name}: {stage} {done}/{total} {time.perf_counter() - started:.0f} s", end="", flush=True
            )

        _, influence = truth(name, args.out, args.seed, args.runs, args.runs_without, show)
        path = args.out / f"truth-{name}.zarr"
        influence.save(path)
        print(f"\n{influence}\nwritten: {path}", flush=True)


if __name__ == "__main__":
    main()
