"""Wrong numbers in targets: what `finfluence.labels.judge_targets` names, beside the rule of four median deviations.

    python -m benchmarks.wrong_numbers [--seeds 3] [--noise …] [--level 0.1]

Tables: the progression of diabetes of 442 patients (scikit-learn), and Friedman's function of ten features (600 rows)
with noise of several laws. Errors: ten times the number, a tenth of it, 2.54 times it (another unit), or another row's
number; in none, 3 % and 8 % of the rows. The rule: the residual of extremely randomised trees, out of fold, beyond four
median absolute deviations (scaled to a normal law's standard deviation).
"""

import argparse
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from threadpoolctl import threadpool_limits

from finfluence.labels import judge_targets, out_of_fold

RATES = (0.0, 0.03, 0.08)
MEDIANS = 4.0
Table = tuple[np.ndarray, np.ndarray]


def diabetes(seed: int) -> Table:
    """Return the patients, in another order for each seed."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    return x[order].astype(np.float32), y[order]


def friedman(noise: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> Callable[[int], Table]:
    """Return tables of Friedman's function with this noise: a function of the generator and of the mean."""

    def made(seed: int) -> Table:
        x, mean = make_friedman1(600, random_state=seed)
        return x.astype(np.float32), noise(np.random.default_rng([seed, 1]), mean)

    return made


TABLES: Mapping[str, Callable[[int], Table]] = {
    "diabetes": diabetes,
    "normal": friedman(lambda rng, mean: mean + rng.normal(size=len(mean))),
    "Student, 3 degrees": friedman(lambda rng, mean: mean + rng.standard_t(3, len(mean))),
    "spread that varies": friedman(lambda rng, mean: mean + 0.2 * np.abs(mean) * rng.normal(size=len(mean))),
    "prices (log-normal)": friedman(lambda rng, mean: np.exp(mean / 6 + 0.3 * rng.normal(size=len(mean)))),
    "exponential": friedman(lambda rng, mean: mean + 2 * rng.exponential(size=len(mean))),
    "weak signal": friedman(lambda rng, mean: mean + 8 * rng.normal(size=len(mean))),
}
ERRORS: Mapping[str, Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]] = {
    "times ten": lambda rng, y, wrong: 10 * y[wrong],
    "a tenth": lambda rng, y, wrong: y[wrong] / 10,
    "another unit": lambda rng, y, wrong: 2.54 * y[wrong],
    "another row's": lambda rng, y, wrong: rng.permutation(y)[: len(wrong)],
}


def cases(seeds: int) -> Iterator[tuple[str, str, float, np.ndarray, np.ndarray, np.ndarray, int]]:
    """Yield table, error, rate, features, targets, whether each is wrong, and seed."""
    for seed in range(seeds):
        for name, table in TABLES.items():
            x, y = table(seed)
            yield name, "none", 0.0, x, y, np.zeros(len(y), dtype=bool), seed
            for error, made in ERRORS.items():
                for rate in RATES[1:]:
                    rng = np.random.default_rng([seed, round(1000 * rate)])
                    wrong = rng.choice(len(y), round(rate * len(y)), replace=False)
                    given = y.copy()
                    given[wrong] = made(rng, y, wrong)
                    yield name, error, rate, x, given, np.isin(np.arange(len(y)), wrong), seed


def by_rule(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Return each out-of-fold residual in median absolute deviations [n]."""
    trees = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=seed)
    residual = y - cross_val_predict(trees, x, y, cv=5)
    size = np.abs(residual - np.median(residual))
    return size / (1.4826 * np.median(size))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--level", type=float, default=0.1)
    options = parser.parse_args()
    found: dict[tuple[str, str], list[list[float]]] = {}
    with threadpool_limits(1):
        for name, error, _, x, y, wrong, seed in cases(options.seeds):
            verdict = judge_targets(out_of_fold(x, y, task="regression", seed=seed), x, y, seed)
            sizes = by_rule(x, y, seed)
            line: list[float] = []
            for named, size in (
                (verdict.named(options.level), verdict.size),
                (sizes > MEDIANS, sizes),
            ):
                precision = average_precision_score(wrong, size) if wrong.any() else np.nan
                line += [precision, named.sum(), (named & ~wrong).sum(), (named & wrong).sum()]
            found.setdefault((name, error), []).append([*line, wrong.sum()])
    print("| table | errors | planted | AP | named, false, found | AP of the rule | named, false, found |")
    print("|---|---|---|---|---|---|---|")
    for (name, error), lines in found.items():
        at = np.array(lines)
        total = at.sum(0)
        cells = [
            f"{at[:, k].mean():.2f} | {total[k + 1]:.0f}, {total[k + 2] / max(1, total[k + 1]):.2f}, "
            f"{total[k + 3] / max(1, total[8]):.2f}"
            for k in (0, 4)
        ]
        print(f"| {name} | {error} | {total[8]:.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
