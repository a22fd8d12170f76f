"""Tables whose labels are all right and hardly predictable: nothing may be named in them."""

from collections.abc import Iterator

import numpy as np

from finfluence.labels import judge_labels, out_of_fold

ROWS, FEATURES = 600, 6
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
CLASSES = (3, 5, 10)
STRENGTHS = (0.0, 0.3, 0.8, 1.5)


def nulls(seeds: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, features and labels: two classes of every share, or several, from no signal to a clear one."""
    for seed in range(seeds):
        for strength in STRENGTHS:
            for share in SHARES:
                yield (
                    f"2 classes, {share:.0%}, signal {strength}",
                    *_drawn(np.log([1 - share, share]), strength, seed),
                )
            for classes in CLASSES:
                even = np.zeros(classes)
                yield f"{classes} classes, signal {strength}", *_drawn(even, strength, seed)


def named_in(x: np.ndarray, y: np.ndarray, seed: int) -> int:
    """Return how many labels are named at a level of 10 %."""
    return int(judge_labels(out_of_fold(x, y, seed=seed), y).named(0.1).sum())


def _drawn(log_share: np.ndarray, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from a softmax of one linear score a class, so that every contradiction is an unlikely outcome."""
    rng = np.random.default_rng(
        [seed, len(log_share), round(1000 * strength), round(1e4 * np.exp(log_share[-1]))]
    )
    x = rng.normal(size=(ROWS, FEATURES))
    odds = log_share + strength * x @ rng.normal(size=(FEATURES, len(log_share)))
    gumbel = rng.gumbel(size=odds.shape)
    y = np.unique((odds + gumbel).argmax(1), return_inverse=True)[1]
    return x.astype(np.float32), y
