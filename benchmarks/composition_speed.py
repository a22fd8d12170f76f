"""Seconds for 256 compositions of 1,000 different subsampled Gaussian steps, beside one and dp-accounting's one.

python -m benchmarks.composition_speed [--subsets 256] [--steps 1000] [--repeats 5]
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from finfluence.tradeoff import Compositions, Gaussian, compose_counts, counts_on_grid, subsample

RATE, LOW, HIGH = 0.01, 0.25, 1.0


def composed(mus: np.ndarray, points: int, bound: str, cells: int) -> Compositions:
    """Compose every row of steps, tables included."""
    grid = np.geomspace(LOW, HIGH, points)
    steps = [subsample(Gaussian(mu), RATE) for mu in grid]
    return compose_counts(steps, counts_on_grid(mus, grid, bound), bound, cells)


def clock(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least wall and the least processor seconds of some repeats."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(t[0] for t in times), min(t[1] for t in times)


def oracle(steps: int) -> Callable[[], object] | None:
    """Return dp-accounting's composition of equal steps (it has no batch), if installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from dp_accounting.pld import privacy_loss_distribution as pld
        except ImportError:
            return None

    def work() -> object:
        return pld.from_gaussian_mechanism(1 / HIGH, sampling_prob=RATE).self_compose(steps)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subsets", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--cells", type=int, default=2**13)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    mus = np.random.default_rng(0).uniform(LOW, HIGH, (options.subsets, options.steps))
    print(f"{options.subsets} x {options.steps} steps, {options.points} tables, {options.cells} cells")
    one_wall = clock(lambda: composed(mus[:1], options.points, "lower", options.cells), options.repeats)
    print(f"one of them, lower bound:  {one_wall[0]:.3f} s wall, {one_wall[1]:.3f} s processor")
    ends = {}
    for bound in ("lower", "upper"):
        wall, processor = clock(
            lambda b=bound: composed(mus, options.points, b, options.cells), options.repeats
        )
        ends[bound] = composed(mus, options.points, bound, options.cells).total_variation
        ratio = processor / one_wall[1]
        print(f"all, {bound} bound:  {wall:.3f} s wall, {processor:.3f} s processor, {ratio:.1f} times one")
    gap = np.max(ends["lower"] / ends["upper"] - 1.0)
    print(f"largest gap between the bounds on total variation: {100 * gap:.1f} %")
    work = oracle(options.steps)
    if work is None:
        print("dp-accounting is not installed: pip install finfluence[oracle]")
    else:
        wall, processor = clock(work, options.repeats)
        print(
            f"dp-accounting, one composition of equal steps:  {wall:.3f} s wall, {processor:.3f} s processor"
        )


if __name__ == "__main__":
    main()
