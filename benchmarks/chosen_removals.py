"""Does the interval that verify gives for the named rows hold: python -m benchmarks.chosen_removals [--worlds N].

Worlds of 1,000 rows: effects of a t law with three degrees of freedom, estimates with noise of .3 to 3 times their
scale and a slope from .6 to 1.5 that shrinking does not know of. Groups are chosen and retrained as `verify` does (24
groups of 10 rows), the truth with noise of its own; then the rows of the most harmful estimates are removed.
"""

import argparse
from collections import defaultdict

import numpy as np
import pandas as pd
from scipy import stats

from finfluence.result import removal_interval
from finfluence.stats import shrink
from finfluence.verification import choose

ROWS, SIZE, SUBSETS, NOISE = 1000, 10, 24, 1.0
REMOVED = (5, 10, 30, 100)
LEVEL = 0.8


def intervals(seed: int) -> dict[tuple[str, int], tuple[bool, float]]:
    """Return whether each interval holds, and its width."""
    rng = np.random.default_rng(seed)
    effects = rng.standard_t(3, ROWS)
    error = np.exp(rng.uniform(np.log(0.3), np.log(3.0)))
    estimate = effects / np.exp(rng.uniform(np.log(0.6), np.log(1.5))) + error * rng.normal(size=ROWS)
    shrunken = shrink(estimate, np.full(ROWS, error))
    groups = choose(estimate[:, None], SUBSETS, SIZE, seed)
    factor = (ROWS - 1) / (ROWS - SIZE)
    points = pd.DataFrame(
        {
            "kind": [g.kind for g in groups],
            "query": "held-out",
            "size": SIZE,
            "effect": [factor * shrunken.mean[g.rows].sum() for g in groups],
            "true_effect": [factor * effects[g.rows].sum() + NOISE * rng.normal() for g in groups],
        }
    )
    z, order = stats.norm.ppf((1 + LEVEL) / 2), np.argsort(estimate)
    found = {}
    for count in REMOVED:
        rows, scale = order[:count], (ROWS - 1) / (ROWS - count)
        truth = scale * effects[rows].sum()
        raw, around = scale * estimate[rows].sum(), z * scale * error * np.sqrt(count)
        found["sum of the estimates ± its error", count] = abs(truth - raw) <= around, 2 * around
        said = scale * shrunken.mean[rows].sum()
        around = z * scale * np.sqrt((shrunken.sd[rows] ** 2).sum())
        found["shrunken sum ± its error", count] = abs(truth - said) <= around, 2 * around
        told = removal_interval(points, "held-out", said, count, level=LEVEL)
        found["**by the retrained groups**", count] = (
            told.lower <= truth <= told.upper,
            told.upper - told.lower,
        )
    return found


def table(worlds: int) -> str:
    """Return coverage and median width."""
    held, width = defaultdict(list), defaultdict(list)
    for seed in range(worlds):
        for key, (inside, wide) in intervals(seed).items():
            held[key].append(inside)
            width[key].append(wide)
    lines = [
        "| 80 % intervals | " + " | ".join(f"{count} rows" for count in REMOVED) + " |",
        "|---" * (len(REMOVED) + 1) + "|",
    ]
    for name in dict.fromkeys(n for n, _ in held):
        cells = [f"{np.mean(held[name, c]):.2f} / {np.median(width[name, c]):.0f}" for c in REMOVED]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=200)
    print(table(parser.parse_args().worlds))
