"""Coverage of nominal 95 % intervals: fixed numbers of runs against adaptive stopping, on simulated queries.

python -m benchmarks.until_coverage [--repeats 2000]
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from finfluence.estimators.retrain import (
    FIRST_ANALYSIS,
    Estimates,
    Precision,
    SequentialStopping,
    grow_arms,
    grow_pairs,
    pairs,
    pairs_cost,
    se,
    two_samples,
)

LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "t, 5 degrees": lambda rng, n: rng.standard_t(5, n) / np.sqrt(5 / 3),
    "t, 3 degrees": lambda rng, n: rng.standard_t(3, n) / np.sqrt(3),
}
MOST = 4096


def sequential(
    rng: np.random.Generator, law: str, mu: float, paired: bool, until: Precision
) -> tuple[Estimates, int, Estimates]:
    """Return the law at the end of adaptive stopping, its runs, and that of as many fresh runs fixed in advance."""
    draw = LAWS[law]

    def samples() -> tuple[np.ndarray, np.ndarray]:
        x, y = draw(rng, MOST)[:, None], draw(rng, MOST)[:, None]
        return x, mu + (0.95 * x + np.sqrt(1 - 0.95**2) * y if paired else y)

    x, y = samples()

    def measure(x: np.ndarray, y: np.ndarray, plan: np.ndarray) -> Estimates:
        if paired:
            return pairs([(x[: plan[1]], y[: plan[1]])], 0.95)
        return two_samples(x[: plan[0]], [y[: plan[1]]], "pooled_d", 0.95)

    looks = SequentialStopping(
        lambda plan: measure(x, y, plan), grow_pairs if paired else grow_arms,
        pairs_cost if paired else lambda plan: int(plan.sum()),
    )  # fmt: skip
    found, plan, _ = looks.until(np.array([FIRST_ANALYSIS, FIRST_ANALYSIS]), until, 2 * MOST)
    return found, int(plan.sum()), measure(*samples(), plan)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2000)
    args = parser.parse_args()
    z = norm.ppf(0.975)
    print("coverage of mu and of effect, adaptive (as many runs, fixed)       runs: median, 5 % to 95 %")
    for design, until in (
        ("leave-out", se("mu") < 0.2), ("leave-out", se("effect") < 0.2),
        ("paired", se("mu") < 0.1), ("paired", se("effect") < 0.03),
    ):  # fmt: skip
        for law in LAWS:
            for mu in (0.0, 2.0):
                rng = np.random.default_rng([len(law), int(mu)])
                covered, runs = [], []
                for _ in range(args.repeats):
                    *ends, count, fixed = sequential(rng, law, mu, design == "paired", until)
                    runs.append(count)
                    covered.append(
                        [
                            inside
                            for end in (ends[0], fixed)
                            for inside in (
                                end.lower.item() <= mu <= end.upper.item(),
                                abs(end.effect.item() - mu) <= z * end.effect_se.item(),
                            )
                        ]
                    )
                m, e, fm, fe = np.mean(covered, axis=0)
                low, mid, high = np.percentile(runs, [5, 50, 95])
                print(
                    f"{design:10s} {until!s:16s} {law:13s} mu={mu:g}  mu {m:.3f} ({fm:.3f})  "
                    f"effect {e:.3f} ({fe:.3f})  {mid:5.0f}, {low:.0f} to {high:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
