"""Estimates from one training run and from four against retraining, on digits: the table of the design.

    python -m benchmarks.calibration [--problem all] [--seeds 3] [--pooled 4] [--method online …]

The truth is computed first where it is missing (`python -m benchmarks.truth`), then reused. *online* is the default of
`replay`: sets of several rows are paired, single rows linear; *linear* and *paired* take all sets in one way. *full* is
like *online* with all rows at every step. "perfect" is what an estimate without error would reach against a truth as
noisy as this one.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm, spearmanr

import finfluence as fi
from benchmarks.problems import SETTINGS, Problem
from benchmarks.truth import truth
from finfluence.evaluate import agreement, coverage
from finfluence.result import Influence

FIRST_SEED = 1000
METHODS = {
    "linear": "replay, linear",
    "online": "replay, online",
    "paired": "replay, paired",
    "full": "replay, full",
    "fine": "fine (closed form)",
    "fine-mc": "fine-mc (AUC-probit)",
}


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


def ceiling(true: Influence, seed: int = 0, draws: int = 50) -> tuple[float, float]:
    """Return Pearson and Spearman of a perfect estimate with this truth, given the truth's own errors.

    The noise-free μ are drawn from their posterior under a mixture of centred normals, fitted by expectation
    maximisation, and noise of the truth's size is added.
    """
    mu, se = true.data["mu"].values.ravel(), true.data["se"].values.ravel()
    scales = np.geomspace(1e-3, 2 * np.abs(mu).max(), 24)
    weights = np.full(len(scales), 1 / len(scales))
    density = norm.pdf(mu[:, None], scale=np.hypot(scales, se[:, None]))
    for _ in range(500):
        share = density * weights
        share /= share.sum(1, keepdims=True)
        weights = share.mean(0)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        scale = scales[(share.cumsum(1) < rng.random((len(mu), 1))).sum(1).clip(max=len(scales) - 1)]
        shrink = scale**2 / (scale**2 + se**2)
        clean = shrink * mu + np.sqrt(shrink) * se * rng.normal(size=len(mu))
        noisy = clean + se * rng.normal(size=len(mu))
        found.append((np.corrcoef(clean, noisy)[0, 1], spearmanr(clean, noisy)[0]))
    pearson, spearman = np.mean(found, axis=0)
    return float(pearson), float(spearman)


def table(
    name: str, seeds: int, out: Path, methods: list[str] | None = None, pool: int = 4
) -> Iterator[Line]:
    """Yield the lines of one problem: what is possible, every estimator for each seed, then `pool` runs pooled.

    By default what is not plain MLP is spared *full*, which takes a transformer ten minutes a run.
    """
    problem, true = truth(name, out)
    pearson, spearman = ceiling(true)
    yield Line("perfect", pearson, 1.0, spearman, 1.0, np.nan)
    if methods is None:
        methods = [m for m in METHODS if m != "full" or not SETTINGS[name].few]
    pooled: dict[str, list[Influence]] = {m: [] for m in methods if not m.startswith("fine")}
    for seed in range(FIRST_SEED, FIRST_SEED + max(seeds, pool)):
        tape = fi.train(problem.recipe, seed=seed)
        for method in methods:
            if seed >= FIRST_SEED + seeds and method not in pooled:
                continue
            result = estimate(problem, tape, method)
            if method in pooled:
                pooled[method].append(result)
            if seed < FIRST_SEED + seeds:
                yield compare(f"{METHODS[method]}, seed {seed}", result, true)
    for method, results in pooled.items() if pool > 1 else ():
        yield compare(f"{METHODS[method]}, {pool} runs pooled", fi.pool(results[:pool]), true)


def estimate(problem: Problem, tape: fi.Tape, method: str) -> Influence:
    """Return what one training run says of the problem's sets and queries."""
    named = {name: [int(i) for i in rows] for name, rows in problem.subsets.items()}
    if method in ("linear", "paired"):
        return fi.replay(tape, problem.queries, subsets=named, groups=method)
    if method.startswith("fine"):
        return fi.estimate(tape, problem.queries, method, named)
    return fi.replay(tape, problem.queries, method, named)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", nargs="+", choices=[*SETTINGS, "all"], default=["all"])
    parser.add_argument("--method", nargs="+", choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pooled", type=int, default=4, help="runs pooled; 1: no such line")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in SETTINGS if "all" in options.problem else options.problem:
        setting = SETTINGS[name]
        sets = 20 if setting.few else 30
        print(f"\n{name}: against {setting.runs} + {sets} × {setting.runs_without} retrainings\n{HEADER}")
        for line in table(name, options.seeds, options.out, options.method, options.pooled):
            print(line, flush=True)


if __name__ == "__main__":
    main()
