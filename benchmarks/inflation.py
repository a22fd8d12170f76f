"""How far plug-in trade-off curves inflate, and what correcting them leaves.

    python -m benchmarks.inflation [--repeats 10] [--steps 20] [--n 100] [--resamples 19]

Total variation of steps seen together, means over repetitions: as they are, each step corrected before composing, and
corrected after composing (`finfluence.stats.corrected_curve`); and how often its permutation p-value is below 5 %.
"""

import argparse

import numpy as np

from finfluence.stats import corrected_curve
from finfluence.tradeoff import Gaussian, compose

MUS = (0.0, 0.1, 0.2)


def measure(mu: float, repeats: int, steps: int, n: int, resamples: int) -> list[float]:
    """Return the true total variation, three estimates of it, and the share of p-values below 5 %."""
    found = []
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, steps, n])
        x, y = rng.normal(size=(steps, n)), rng.normal(mu, size=(steps, n))
        whole = corrected_curve(x, y, resamples=resamples, seed=repeat)
        single = [
            corrected_curve(a, b, resamples=resamples, seed=repeat).curve for a, b in zip(x, y, strict=True)
        ]
        before = compose(single, bound="estimate").total_variation
        found.append([whole.plug_in.total_variation, before, whole.total_variation, whole.p_value <= 0.05])
    return [Gaussian(mu * steps**0.5).total_variation, *np.mean(found, axis=0).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=19)
    options = parser.parse_args()
    print(
        "| true | as they are | corrected before composing | corrected after | p ≤ 5 % |\n|---|---|---|---|---|"
    )
    for mu in MUS:
        row = measure(mu, options.repeats, options.steps, options.n, options.resamples)
        print("| " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
