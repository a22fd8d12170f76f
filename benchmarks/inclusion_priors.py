"""Effects from logged runs where effects are unlike those assumed, and in real retrainings of digits.

python -m benchmarks.inclusion_priors. Synthetic logs of 128 rows and 400 runs whose effects follow other laws than a
spike at zero with a normal or t slab, or are alike within groups of neighbours (as the prediction's errors are then),
or whose noise is heavy-tailed; and a logistic regression of threes and eights, a tenth of the labels flipped, trained
on random halves: 400 runs are the log, 4,000 others the judge; an interval holds there if it does for the judge's
difference, whose own noise is added to it.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.chosen_intervals import chance, fitted, hessian, loss
from finfluence.assess import InclusionEffects, inclusion

ROWS, RUNS, JUDGES = 128, 400, 4000
LEVELS = (0.5, 0.8, 0.9)
NAMES = (
    "difference of arms",
    "James-Stein",
    "prediction alone",
    "posterior, no prediction",
    "posterior with it",
    "network with it",
)


SOURCES = {"correlated": (8, 0.8), "four sources": (32, 0.95)}
"""Rows of a group, and their correlation."""


def together(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return normal values of the rows, alike within groups."""
    size, within = SOURCES[kind]
    shared = np.repeat(rng.normal(size=ROWS // size), size)
    return np.asarray(np.sqrt(within) * shared + np.sqrt(1 - within) * rng.normal(size=ROWS))


def effects_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return effects of one kind, in the unit of the runs' noise."""
    scale = np.exp(rng.uniform(np.log(0.05), np.log(0.3)))
    if kind == "two clusters":
        return np.asarray(scale * (rng.choice([-1.0, 1.0], ROWS) + 0.1 * rng.normal(size=ROWS)))
    if kind == "one-sided":
        return np.asarray(scale * rng.exponential(size=ROWS))
    if kind == "Cauchy":
        return np.asarray(0.2 * scale * rng.standard_cauchy(ROWS))
    if kind in SOURCES:
        return np.asarray(scale * together(kind, rng))
    if kind == "normal":
        return np.asarray(scale * rng.normal(size=ROWS))
    if kind == "two scales":
        return np.asarray(scale * np.where(rng.random(ROWS) < 0.1, 3.0, 0.2) * rng.normal(size=ROWS))
    return np.asarray(scale * np.where(rng.random(ROWS) < 0.3, rng.normal(size=ROWS), 0.0))


KINDS = (
    "spike and normal",
    "two clusters",
    "one-sided",
    "Cauchy",
    "two scales",
    "heavy noise",
    "wrong prediction",
    "correlated",
    "normal",
    "four sources",
)


def estimates(
    included: np.ndarray, outcome: np.ndarray, predicted: np.ndarray
) -> tuple[list[np.ndarray], InclusionEffects, InclusionEffects]:
    """Return the estimates in the order of NAMES, and the posteriors with the prediction, by grid and by network."""
    alone = inclusion(included, outcome)
    both, network = (
        inclusion(included, outcome, predicted=predicted, posterior=p) for p in ("grid", "network")
    )
    z = alone.difference / alone.se
    james_stein = max(0.0, 1 - (len(z) - 2) / (z @ z)) * alone.difference
    return (
        [alone.difference, james_stein, predicted, alone.effect, both.effect, network.effect],
        both,
        network,
    )


def of_kind(kind: str, worlds: int) -> str:
    """Return a line of the table: squared errors relative to the difference of arms, and coverage."""
    errors, held, large, plain, said, alike = [], [], [], [], 0, 0
    for seed in range(worlds):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        effects = effects_of(kind, rng)
        included = rng.random((RUNS, ROWS)) < 0.5
        noise = rng.standard_t(2.5, RUNS) if kind == "heavy noise" else rng.normal(size=RUNS)
        errors_of_prediction = together(kind, rng) if kind in SOURCES else rng.normal(size=ROWS)
        predicted = effects + effects.std() * errors_of_prediction
        if kind == "wrong prediction":
            predicted = -effects
        values, grid, network = estimates(included, noise - included @ effects, predicted)
        errors.append([np.mean((v - effects) ** 2) for v in values])
        intervals = [grid.interval(level) for level in LEVELS] + [network.interval(LEVELS[-1])]
        inside = [(low <= effects) & (effects <= high) for low, high in intervals]
        held.append(np.mean(inside, 1))
        told_apart = np.abs(effects) > 2 / np.sqrt(RUNS)
        large.extend(inside[2][told_apart])
        said += any("unlike" in f for f in network.findings)
        alike += any("near each other" in f for f in grid.findings)
        plain.append(np.mean(np.abs(grid.difference - effects) < 1.64 * grid.se))
    relative = np.mean(np.array(errors) / np.array(errors)[:, :1], 0)
    *posterior, of_network = np.mean(held, 0)
    shares = [f"{h:.2f}" for h in (*posterior, np.mean(large), of_network)]
    return _line(kind, relative, [*shares, f"{said}", f"{alike}", f"{np.mean(plain):.2f}"])


def of_digits(seeds: int) -> str:
    """Return the same line for real retrainings; the truth is other runs, whose own noise is taken out."""
    errors, held_by_posteriors, said, alike = [], [], 0, 0
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 99])
        x, y = load_digits(return_X_y=True)
        two = rng.permutation(np.flatnonzero(np.isin(y, (3, 8))))
        x, y = np.column_stack([x[two] / 16, np.ones(len(two))]), (y[two] == 8).astype(np.float64)
        held = (x[ROWS:], y[ROWS:])
        noisy = np.where(rng.random(ROWS) < 0.1, 1 - y[:ROWS], y[:ROWS])
        included = rng.random((RUNS + JUDGES, ROWS)) < 0.5
        outcome = np.array([loss(fitted(x[:ROWS][t], noisy[t]), *held).mean() for t in included])
        beta = fitted(x[:ROWS], noisy)
        rows = x[:ROWS] * (chance(x[:ROWS], beta) - noisy)[:, None] / ROWS
        query = (held[0] * (chance(held[0], beta) - held[1])[:, None]).mean(0)
        predicted = rows @ np.linalg.solve(hessian(x[:ROWS], beta), query)
        values, grid, network = estimates(included[:RUNS], outcome[:RUNS], predicted)
        judge = inclusion(included[RUNS:], outcome[RUNS:], predicted=predicted)
        errors.append([np.mean((v - judge.difference) ** 2 - judge.se**2) for v in values])
        of_grid, of_network = (
            np.abs(found.laws.widened(judge.se).cdf(judge.difference) - 0.5) for found in (grid, network)
        )
        larger = np.abs(judge.difference) > 2 * grid.se
        inside = [*((of_grid <= level / 2).mean() for level in LEVELS), (of_grid <= 0.45)[larger].mean()]
        held_by_posteriors.append([*inside, (of_network <= 0.45).mean()])
        said += any("unlike" in f for f in network.findings)
        alike += any("near each other" in f for f in grid.findings)
    means = np.mean(errors, 0)
    shares = [f"{h:.2f}" for h in np.mean(held_by_posteriors, 0)]
    return _line("digits, retrained", means / means[0], [*shares, f"{said}", f"{alike}", ""])


def _line(name: str, relative: np.ndarray, held: list[str]) -> str:
    return f"| {name} | " + " | ".join([*(f"{r:.2f}" for r in relative), *held]) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=["digits", *KINDS], default=["digits", *KINDS])
    asked = parser.parse_args()
    print(
        "| effects | "
        + " | ".join(
            [
                *NAMES,
                *(f"{100 * v:.0f} % holds" for v in LEVELS),
                "90 %, larger rows",
                "network, 90 % holds",
                "network, said to be unlike",
                "said to be alike",
                "difference ± 1.64 se holds",
            ]
        )
        + " |"
    )
    print("|---" * (6 + len(NAMES) + len(LEVELS)) + "|")
    for each in asked.kinds:
        print(of_digits(asked.seeds) if each == "digits" else of_kind(each, asked.worlds), flush=True)
