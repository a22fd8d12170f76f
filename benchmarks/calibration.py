"""Estimates from one training run against retraining, on digits: the table of the design.

    python -m benchmarks.calibration [--setting sgd adamw adamw-3e-3] [--seeds 3] [--out bench-out]

The truth is computed first where it is missing (about five minutes a setting on one core), then reused.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import finfluence as fi
from benchmarks.problems import SETTINGS, Problem, digits
from finfluence.estimators import retrain
from finfluence.evaluate import agreement, coverage
from finfluence.result import Influence

RUNS, RUNS_WITHOUT = 960, 320
FIRST_SEED = 1000


@dataclass(frozen=True)
class Line:
    """Agreement of one estimate with the truth over all (subset, query) pairs; slopes are truth over estimate."""

    method: str
    pearson: float
    slope: float
    spearman: float
    spread_ratio: float
    covered: float

    def __str__(self) -> str:
        return (
            f"  {self.method:34s} {self.pearson:7.3f} {self.slope:7.2f} {self.spearman:8.3f}"
            f" {self.spread_ratio:7.2f} {self.covered:8.2f}"
        )


HEADER = f"  {'estimate':34s} {'Pearson':>7s} {'slope':>7s} {'Spearman':>8s} {'spread':>7s} {'covered':>8s}"


def truth(setting: str, out: Path) -> tuple[Problem, Influence]:
    """Return the problem and its truth by retraining, reusing finished runs in `out`."""
    problem = digits(setting)
    result = retrain(
        problem.recipe, problem.queries, problem.subsets, runs=RUNS, runs_without=RUNS_WITHOUT, vary="order",
        seed=0, out=out / "truth-runs",
    )  # fmt: skip
    return problem, result


def compare(method: str, estimate: Influence, true: Influence) -> Line:
    """Hold an estimate against the truth."""
    mu, mu_true = estimate.data["mu"].values.ravel(), true.data["mu"].values.ravel()
    found = agreement(mu, mu_true)
    spread, spread_true = estimate.data["spread"].values, true.data["spread"].values
    lower, upper = estimate.data["lower"].values.ravel(), estimate.data["upper"].values.ravel()
    noise = 1.96 * true.data["se"].values.ravel()
    lower, upper = mu - np.hypot(mu - lower, noise), mu + np.hypot(upper - mu, noise)
    inside = coverage(lower, upper, mu_true) if np.isfinite(lower).any() else np.nan
    with np.errstate(invalid="ignore"):
        ratio = float(np.median(spread_true / spread)) if np.isfinite(spread).all() else np.nan
    return Line(method, found.pearson, found.slope, found.spearman, ratio, inside)


def estimates(problem: Problem, seed: int) -> dict[str, Callable[[], Influence]]:
    """Return the estimators that see one training run of `seed`."""
    tape = fi.train(problem.recipe, seed=seed)
    named = {name: [int(i) for i in rows] for name, rows in problem.subsets.items()}
    return {
        "replay, full": lambda: fi.replay(tape, problem.queries, "full", named),
        "replay, online": lambda: fi.replay(tape, problem.queries, "online", named),
        "fine (closed form)": lambda: fi.replay(tape, problem.queries, "fine", named),
        "fine-mc (AUC-probit)": lambda: fi.replay(tape, problem.queries, "fine-mc", named),
    }


def table(setting: str, seeds: int, out: Path) -> list[Line]:
    """Return the lines of one setting: every estimator for each seed, then four online runs pooled."""
    problem, true = truth(setting, out)
    lines, pooled = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + max(seeds, 4)):
        for method, estimate in estimates(problem, seed).items():
            if seed >= FIRST_SEED + seeds and method != "replay, online":
                continue
            result = estimate()
            if method == "replay, online":
                pooled.append(result)
            if seed < FIRST_SEED + seeds:
                lines.append(compare(f"{method}, seed {seed}", result, true))
    lines.append(compare("replay, online, 4 runs pooled", fi.pool(pooled[:4]), true))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for setting in options.setting:
        print(f"\ndigits, {setting}: one training run against {RUNS} + 30 × {RUNS_WITHOUT} retrainings")
        print(HEADER)
        for line in table(setting, options.seeds, options.out):
            print(line, flush=True)


if __name__ == "__main__":
    main()
