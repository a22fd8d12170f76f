"""What late states change: the spread, linear effects and paired effects with and without them, against retraining.

    python -m benchmarks.late_states [--problem transformer-rough adamw sgd] [--runs 4]

For single runs (mean) and for all pooled: Pearson and slope (truth over estimate) of effects in units of the true
spread, all sets linear or all paired; spread: truth over estimate, median over queries and for the held-out loss;
chance: standard deviation of its logarithm between runs, median over queries.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import finfluence as fi
from benchmarks.calibration import FIRST_SEED
from benchmarks.truth import truth
from finfluence.evaluate import agreement


def lines(name: str, runs: int, out: Path) -> list[str]:
    """Return the lines of one problem."""
    problem, true = truth(name, out)
    named = {subset: [int(i) for i in rows] for subset, rows in problem.subsets.items()}
    spread = true.data["spread"].values[0]
    effect = true.data["effect"].values / spread
    tapes = [fi.train(problem.recipe, seed=FIRST_SEED + k) for k in range(runs)]
    found = []
    for late in (0.0, 0.1):
        results = [
            fi.replay(tape, problem.queries, subsets=named, groups="paired", late=late).data for tape in tapes
        ]
        spreads = np.array([r["spread"].values[0] for r in results])
        ratio = spread / np.sqrt((spreads**2).mean(0))
        chance = np.median(np.log(spreads).std(0, ddof=1))
        parts = [f"spread {np.median(ratio):.2f}, held-out {ratio[0]:.2f}, chance {chance:.2f}"]
        for word, column in (("linear", "linear_effect"), ("paired", "effect")):
            effects = np.array([r[column].values for r in results]) / spread
            each = [agreement(e.ravel(), effect.ravel()) for e in effects]
            pooled = agreement(effects.mean(0).ravel(), effect.ravel())
            one = f"{np.mean([a.pearson for a in each]):.3f} {np.mean([a.slope for a in each]):.2f}"
            parts.append(f"{word} {one}, pooled {pooled.pearson:.3f} {pooled.slope:.2f}")
        found.append(f"{name:18s} late {late:.1f}  " + "; ".join(parts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", nargs="+", default=["transformer-rough", "adamw", "sgd"])
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.problem:
        print(*lines(name, options.runs, options.out), sep="\n", flush=True)


if __name__ == "__main__":
    main()
