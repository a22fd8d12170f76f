"""Standard error of an effect: paired runs against independent ones, the same number of each.

python -m benchmarks.paired_gain [--runs 64] [--problem sgd adamw adamw-3e-3]
"""

import argparse

import numpy as np

from benchmarks.problems import digits
from finfluence.estimators.retrain import retrain


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--problem", nargs="*", default=["sgd", "adamw", "adamw-3e-3"])
    args = parser.parse_args()
    for name in args.problem:
        problem = digits(name)
        wanted = ("flipped row", "good row", "20 random", "20 flipped")
        subsets = {
            key: rows
            for kind in wanted
            for key, rows in [item for item in problem.subsets.items() if item[0].startswith(kind)][:2]
        }
        queries = problem.queries[:11]  # held-out loss and that of each class
        apart, paired = (
            retrain(problem.recipe, queries, subsets, runs=args.runs, design=d).data
            for d in ("leave-out", "paired")
        )
        z = (paired.effect - apart.effect) / np.hypot(paired.effect_se, apart.effect_se)
        print(
            f"{name}: {args.runs} runs an arm; effects of both agree to z² = {float((z**2).mean()):.2f} on average"
        )
        for kind in wanted:
            rows = [str(s) for s in apart.subset.values if str(s).startswith(kind)]
            gain = (apart.effect_se / paired.effect_se).sel(subset=rows)
            mu = (apart.se / paired.se).sel(subset=rows)
            print(
                f"  {kind:12s} effect_se leave-out / paired: held-out {float(gain[:, 0].mean()):5.2f}, all queries "
                f"{float(gain.median()):5.2f}   se(mu): {float(mu.median()):5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
