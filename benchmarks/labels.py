"""Labels judged by models that have not seen them: what is named, how much of it falsely, and how the rows rank.

    python -m benchmarks.labels [--seeds 3] [--data digits breast-cancer null]

Labels are replaced by others at random, at several rates; a null table has labels that no feature predicts.
Rows are ranked by the verdict, by the out-of-fold log loss alone, and by chance. Minutes a data set on one thread.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits

from finfluence.evaluate import average_precision
from finfluence.labels import judge_labels, out_of_fold

RATES = (0.0, 0.05, 0.1, 0.2)
LEVELS = (0.05, 0.1, 0.2)


def standardised(x: np.ndarray) -> np.ndarray:
    return np.clip((x - x.mean(0)) / (x.std(0) + 1e-9), -3, 3)


def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return standardised(x), y


def breast_cancer(seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    return standardised(x), y


def null(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 3])
    share = rng.uniform(0.02, 0.5)
    return rng.normal(size=(800, 6)), (rng.random(800) < share).astype(np.int64)


DATA: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "digits": digits,
    "breast-cancer": breast_cancer,
    "null": null,
}


def flipped(y: np.ndarray, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which a share is replaced by others, and which ones are."""
    rng, classes = np.random.default_rng(seed), int(y.max()) + 1
    rows = rng.choice(len(y), round(rate * len(y)), replace=False)
    changed, wrong = y.copy(), np.zeros(len(y), dtype=bool)
    changed[rows] = (y[rows] + rng.integers(1, classes, len(rows))) % classes
    wrong[rows] = True
    return changed, wrong


def lines(name: str, seeds: int) -> Iterator[str]:
    for rate in RATES if name != "null" else (0.0,):
        for seed in range(seeds):
            x, clean = DATA[name](seed)
            y, wrong = flipped(clean, rate, seed)
            found = out_of_fold(x, y, seed=seed)
            verdict = judge_labels(found, y)
            parts = []
            for level in LEVELS:
                named = verdict.named(level)
                false = (named & ~wrong).sum() / max(1, named.sum())
                recall = named[wrong].mean() if wrong.any() else np.nan
                parts.append(f"{int(named.sum()):4d} {false:5.2f} {recall:5.2f}")
            rank = np.empty(len(y))
            rank[verdict.order] = -np.arange(len(y))
            chance = np.random.default_rng(seed).random(len(y))
            precision = [
                average_precision(scores, wrong) if wrong.any() else np.nan
                for scores in (rank, verdict.oof_loss, chance)
            ]
            yield (
                f"{name:14s} {rate:5.2f} {seed:4d} | "
                + " | ".join(parts)
                + " | "
                + " ".join(f"{p:6.3f}" for p in precision)
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "data            rate seed | named, false, recall at 5 % | at 10 % | at 20 % | "
        "AP: verdict, out-of-fold loss, random"
    )
    for name in options.data:
        for line in lines(name, options.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
