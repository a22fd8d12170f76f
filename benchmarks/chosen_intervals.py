"""Do intervals hold for groups that were chosen for their estimate: python -m benchmarks.chosen_intervals [--worlds N].

Logistic regression on breast cancer, a tenth of the labels flipped. A group's estimate is its influence on fifteen
held-out rows; its outcome is what retraining without the group gains on all held-out rows. Twenty-four groups drawn
blindly from a pool are retrained; a surrogate fitted to them chooses one of the pool, with chances that rise with the
predicted gain, and that one is retrained, too. Every world has its own rows, flips, fifteen and groups.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.datasets import load_breast_cancer

from finfluence.assess import DesignLaw, FeedbackInterval, feedback_interval, split_interval

PAIRS, POOL, GROUP, ASKED = 24, 200, 12, 15
STRENGTHS = (0.0, 1.0, 2.0, 4.0)
LEVEL, PENALTY = 0.9, 1e-2
GRID = np.arange(-8, 8.01, 0.1)


@dataclass(frozen=True, eq=False)
class World:
    """A pool of groups: estimates of the gain [POOL], their standard errors, and what gives the truth."""

    estimate: np.ndarray
    error: np.ndarray
    groups: list[np.ndarray]
    x: np.ndarray
    y: np.ndarray
    held: tuple[np.ndarray, np.ndarray]
    before: float
    scale: float

    def gain(self, group: int) -> float:
        """Return what retraining without the group takes off the held-out loss, in the unit of the estimates."""
        kept = np.setdiff1d(np.arange(len(self.y)), self.groups[group])
        return (self.before - loss(fitted(self.x[kept], self.y[kept]), *self.held).mean()) / self.scale


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the coefficients of a logistic regression with a small penalty, by Newton steps."""
    beta = np.zeros(x.shape[1])
    for _ in range(25):
        gradient = x.T @ (chance(x, beta) - y) / len(y) + PENALTY * beta
        step = np.linalg.solve(hessian(x, beta), gradient)
        beta = beta - step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def chance(x: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x @ beta)))


def hessian(x: np.ndarray, beta: np.ndarray) -> np.ndarray:
    p = chance(x, beta)
    return np.asarray((x * (p * (1 - p))[:, None]).T @ x / len(x) + PENALTY * np.eye(x.shape[1]))


def loss(beta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0, x @ beta) - y * (x @ beta))


def world(seed: int) -> World:
    """Return a pool of groups of rows whose estimates lie close together."""
    rng = np.random.default_rng(seed)
    x, y = load_breast_cancer(return_X_y=True)
    x = np.column_stack([np.clip((x - x.mean(0)) / x.std(0), -4, 4), np.ones(len(x))])
    order = rng.permutation(len(y))
    train, held = order[:300], order[300:]
    noisy = np.where(rng.random(len(y)) < 0.1, 1 - y, y).astype(np.float64)
    beta = fitted(x[train], noisy[train])
    asked = rng.choice(held, ASKED, replace=False)
    per_row = x[train] * (chance(x[train], beta) - noisy[train])[:, None] / len(train)
    per_asked = x[asked] * (chance(x[asked], beta) - y[asked])[:, None]
    each = -per_row @ np.linalg.solve(hessian(x[train], beta), per_asked.T)  # gain of each row, by asked row
    ranked = np.argsort(each.mean(1))
    groups = []
    for _ in range(POOL):
        start = rng.integers(len(train) - 3 * GROUP + 1)
        groups.append(rng.choice(ranked[start : start + 3 * GROUP], GROUP, replace=False))
    sums = np.array([each[g].sum(0) for g in groups])
    scale = float(sums.mean(1).std())
    before = float(loss(beta, x[held], y[held]).mean())
    return World(
        sums.mean(1) / scale,
        sums.std(1, ddof=1) / np.sqrt(ASKED) / scale,
        groups,
        x[train],
        noisy[train],
        (x[held], y[held].astype(np.float64)),
        before,
        scale,
    )


def chosen(said: np.ndarray, strength: float, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Return a group of the pool, and the chance that each had."""
    chances = np.exp(strength * (said - said.max()))
    chances /= chances.sum()
    return int(rng.choice(len(said), p=chances)), chances


def intervals(made: World, strength: float, seed: int) -> dict[str, tuple[float, float, float]]:
    """Return lower and upper end of each interval, and the truth that it is about."""
    rng = np.random.default_rng([seed, int(10 * strength)])
    domain = made.estimate[:, None]
    drawn = rng.integers(POOL, size=PAIRS)
    x, y = domain[drawn], np.array([made.gain(g) for g in drawn])
    z = stats.norm.ppf((1 + LEVEL) / 2)
    found: dict[str, tuple[float, float, float]] = {}

    def of(interval: FeedbackInterval, truth: float) -> tuple[float, float, float]:
        step = (GRID[1] - GRID[0]) / 2
        return interval.lower - step, interval.upper + step, truth

    laws = {
        "ridge": DesignLaw(domain, strength),
        "Gaussian process": DesignLaw(domain, strength, 0.3, length=1.5),
    }
    for name, law in laws.items():
        said = law.fit(x, domain) @ y
        point, _ = chosen(said, strength, rng)
        truth = made.gain(point)
        if name == "ridge":
            around = z * made.error[point]
            found["estimate ± its error"] = (
                made.estimate[point] - around,
                made.estimate[point] + around,
                truth,
            )
            around = z * (y - law.fit(x, x) @ y).std(ddof=2)
            found["fit ± its residuals"] = said[point] - around, said[point] + around, truth
            for title, other in (
                ("full conformal, equal weights", DesignLaw(domain, 0.0)),
                ("full conformal, fixed weights", DesignLaw(domain, strength, feedback=False)),
            ):
                found[title] = of(feedback_interval(x, y, domain[point], other, GRID, level=LEVEL), truth)
        told = feedback_interval(x, y, domain[point], law, GRID, level=LEVEL)
        found[f"**feedback, {name}**"] = of(told, truth)
    half, law = PAIRS // 2, laws["ridge"]
    said = law.fit(x[:half], domain) @ y[:half]
    point, chances = chosen(said, strength, rng)
    residuals, truth = y[half:] - said[drawn[half:]], made.gain(point)
    for title, w in (("split, equal weights", np.ones(POOL)), ("**feedback, split**", POOL * chances)):
        told = split_interval(residuals, w[drawn[half:]], said[point], w[point], level=LEVEL)
        found[title] = told.lower, told.upper, truth
    return found


def table(worlds: int) -> str:
    """Return coverage, median width of the finite ones and share of infinite ones."""
    held: Mapping[tuple[str, float], list[bool]] = defaultdict(list)
    width: Mapping[tuple[str, float], list[float]] = defaultdict(list)
    for seed in range(worlds):
        made = world(seed)
        for strength in STRENGTHS:
            for name, (low, high, truth) in intervals(made, strength, seed).items():
                held[name, strength].append(low <= truth <= high)
                width[name, strength].append(high - low)
    lines = [
        "| 90 % intervals | " + " | ".join(f"strength {s:.0f}" for s in STRENGTHS) + " |",
        "|---" * (len(STRENGTHS) + 1) + "|",
    ]
    for name in dict.fromkeys(n for n, _ in held):
        cells = [name]
        for s in STRENGTHS:
            widths = np.array(width[name, s])
            finite = widths[np.isfinite(widths)]
            middle = f"{np.median(finite):.1f}" if len(finite) else "none"
            cells.append(f"{np.mean(held[name, s]):.3f} / {middle} / {np.mean(~np.isfinite(widths)):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=300)
    print(table(parser.parse_args().worlds))
