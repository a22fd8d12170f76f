"""Do intervals hold what they promise? Estimates from one and from four pooled runs against retraining.

    python -m benchmarks.interval_coverage [--setting …] [--groups auto linear] [--method online full]

Digits and breast cancer, SGD and AdamW, initialisation fixed and random. The truth is computed first where it is
missing (one to six minutes a setting on one core), then reused. Covered: the share of (subset, query) pairs whose true
μ lies in the nominal 95 % interval, the truth's own error allowed for.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer
from torch import nn

import finfluence as fi
import finfluence.runs as fr
from benchmarks.problems import Problem, digits, row_loss
from finfluence.estimators.retrain import retrain
from finfluence.result import Influence
from finfluence.runs import seeded

RUNS, RUNS_WITHOUT = 3840, 320
FEWER = 320, 100
TABULAR_ROWS = 400


def tabular_mlp(activation: type[nn.Module], seed: int) -> nn.Module:
    """Return the 30-16-2 network with the weights of `seed`."""
    with seeded(seed):
        return nn.Sequential(nn.Linear(30, 16), activation(), nn.Linear(16, 2))


TABULAR = {
    "cancer-sgd": (fr.SGD(lr=0.05), nn.ReLU, False),
    "cancer-adamw": (fr.AdamW(lr=2e-3), nn.GELU, False),
    "cancer-sgd-random": (fr.SGD(lr=0.05), nn.ReLU, True),
    "cancer-adamw-random": (fr.AdamW(lr=2e-3), nn.GELU, True),
}
DIGITS = ("sgd", "adamw", "adamw-3e-3", "sgd-random", "adamw-random")


ALL = (*DIGITS, *TABULAR)
FIRST_SEED = 1000


def tabular(setting: str, seed: int = 0) -> Problem:
    """Return 400 rows of the breast-cancer data, standardised, a tenth of the labels flipped, batch 20, reshuffled."""
    optimizer, activation, random = TABULAR[setting]
    x, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(x))
    x, y = x[order], y[order].astype(np.int64)
    n = TABULAR_ROWS
    x = ((x - x[:n].mean(0)) / x[:n].std(0)).astype(np.float32)
    flipped = np.sort(rng.choice(n, n // 10, replace=False))
    noisy = y[:n].copy()
    noisy[flipped] = 1 - noisy[flipped]
    factory = partial(tabular_mlp, activation)
    recipe = fr.Recipe(
        data=fr.Rows(x=x[:n], y=noisy), model=factory if random else factory(seed), loss=row_loss,
        optimizer=optimizer, batch_size=20, epochs=20,
    )  # fmt: skip
    good = np.setdiff1d(np.arange(n), flipped)
    bad_rows, good_rows = rng.choice(flipped, 6, replace=False), rng.choice(good, 6, replace=False)
    subsets = {
        **{f"flipped row {i}": [int(i)] for i in bad_rows},
        **{f"good row {i}": [int(i)] for i in good_rows},
        **{f"10 random {k}": rng.choice(n, 10, replace=False).tolist() for k in range(3)},
        **{f"10 flipped {k}": rng.choice(flipped, 10, replace=False).tolist() for k in range(3)},
        **{f"10 of class {c}": rng.choice(good[y[good] == c], 10, replace=False).tolist() for c in (0, 1)},
    }  # fmt: skip
    x_test, y_test = x[n:], y[n:]
    asked = rng.choice(len(x_test), 5, replace=False)
    queries: list[fr.AnyQuery] = [
        fr.mean_loss(x_test, y_test, name="held-out"),
        *(fr.mean_loss(x_test[y_test == c], y_test[y_test == c], name=f"class {c}") for c in (0, 1)),
        fr.each_loss(x_test[asked], y_test[asked], names=[f"test row {i}" for i in asked]),
        fr.own_loss(rows=[*bad_rows.tolist(), *good_rows.tolist()]),
    ]
    return Problem(recipe, subsets, queries, y[:n], flipped, x_test, y_test)


def truth(setting: str, out: Path) -> tuple[Problem, Influence]:
    """Return the problem and its truth by retraining, reusing finished runs in `out`."""
    problem = tabular(setting) if setting in TABULAR else digits(setting)
    random = problem.recipe.random_initialisation
    runs, runs_without = FEWER if random else (RUNS, RUNS_WITHOUT)
    result = retrain(
        problem.recipe, problem.queries, problem.subsets, runs=runs, runs_without=runs_without,
        vary="all" if random else "order",
        seed=0, out=out / "truth-runs",
    )  # fmt: skip
    return problem, result


def covered(estimate: Influence, true: Influence, level: float = 0.95) -> np.ndarray:
    """Return which intervals [S, Q] hold the true μ, its own standard error added in squares."""
    found, truth = estimate.data, true.data
    mu, noise = found["mu"].values, norm.ppf((1 + level) / 2) * truth["se"].values
    lower = mu - np.hypot(mu - found["lower"].values, noise)
    upper = mu + np.hypot(found["upper"].values - mu, noise)
    inside: np.ndarray = (lower <= truth["mu"].values) & (truth["mu"].values <= upper)
    return inside


def kinds(subsets: np.ndarray) -> np.ndarray:
    """Return the kind of each subset: "flipped row 3" and "20 of class 3" without their last word."""
    return np.array([" ".join(str(name).split()[:-1]) for name in subsets])


def runs(problem: Problem, method: str, groups: str, count: int = 4) -> list[Influence]:
    """Return the influences that `count` training runs show, one by one."""
    named = {name: [int(i) for i in rows] for name, rows in problem.subsets.items()}
    tapes = (fr.train(problem.recipe, seed=FIRST_SEED + k) for k in range(count))
    return [fi.replay(tape, problem.queries, method, named, groups=groups) for tape in tapes]


def lines(setting: str, method: str, groups: str, out: Path) -> list[str]:
    """Return the lines of one setting: one run (mean of four) and the four pooled."""
    problem, true = truth(setting, out)
    single = runs(problem, method, groups)
    pooled = fi.pool(single)
    one = np.mean([covered(r, true) for r in single], axis=0)
    four = covered(pooled, true)
    kind = kinds(true.data["subset"].values)

    def line(name: str, inside: np.ndarray, width: float) -> str:
        parts = "  ".join(f"{k} {inside[kind == k].mean():.2f}" for k in dict.fromkeys(kind))
        return (
            f"{setting:20s} {method:7s} {groups:7s} {name:5s} {inside.mean():.3f}  width {width:.2f}  {parts}"
        )

    def width(result: Influence) -> float:
        return float((result.data["upper"] - result.data["lower"]).median())

    return [
        line("1 run", one, float(np.mean([width(r) for r in single]))),
        line("4", four, width(pooled)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument(
        "--groups", nargs="+", choices=["auto", "linear", "paired"], default=["auto", "linear"]
    )
    parser.add_argument("--method", nargs="+", choices=["online", "full"], default=["online"])
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for setting in options.setting:
        for method in options.method:
            for groups in options.groups:
                print(*lines(setting, method, groups, options.out), sep="\n", flush=True)


if __name__ == "__main__":
    main()
