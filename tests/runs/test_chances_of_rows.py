"""Whether rows had one chance to be in a batch at every time: samplers that loops have, and chance alone."""

import numpy as np
import pytest

from finfluence.runs.steps import equal_chances, same_places

ROWS, BATCH, EPOCHS = 60, 6, 6
STEPS = ROWS // BATCH
PARTS = [range(k * STEPS, (k + 1) * STEPS) for k in range(EPOCHS)]


def phases(rng: np.random.Generator) -> list[np.ndarray]:
    """One half of the rows, then the other: all equally often."""
    return [rng.choice(30, BATCH, False) + 30 * (t >= STEPS * EPOCHS / 2) for t in range(STEPS * EPOCHS)]


def growing(rng: np.random.Generator) -> list[np.ndarray]:
    """Easy rows first, then more and more."""
    return [rng.choice(12 + t * 48 // (STEPS * EPOCHS), BATCH, False) for t in range(STEPS * EPOCHS)]


def weighted(rng: np.random.Generator) -> list[np.ndarray]:
    chance = np.r_[np.full(15, 3.0), np.ones(45)]
    return [rng.choice(ROWS, BATCH, False, chance / chance.sum()) for _ in range(STEPS * EPOCHS)]


def twice_in_the_list(rng: np.random.Generator) -> list[np.ndarray]:
    """A few rows stand twice in a list that is shuffled for every epoch; what is left at its end is dropped."""
    listed = np.r_[np.arange(ROWS), np.arange(5)]
    return [b for _ in range(EPOCHS) for b in rng.permutation(listed)[:ROWS].reshape(-1, BATCH)]


@pytest.mark.parametrize("sampler", [phases, growing, weighted, twice_in_the_list])
def test_unequal_chances_are_recognised(sampler):
    missed = sum(equal_chances(sampler(np.random.default_rng(seed)), PARTS, ROWS) for seed in range(20))
    assert missed <= 1


def test_equal_chances_are_seldom_taken_for_unequal():
    """200 runs at four tests of level 10⁻⁴ or less: an alarm has a chance below .08, two of .003."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows, batch = int(rng.integers(8, 100)), int(rng.integers(2, 8))
        steps = max(1, rows // batch)
        order = [rng.choice(rows, batch, replace=bool(seed % 2)) for _ in range(4 * steps)]
        alarms += not equal_chances(order, [range(k * steps, (k + 1) * steps) for k in range(4)], rows)
    assert alarms <= 1


def test_rows_listed_once_are_not_taken_for_rows_listed_oftener():
    """Shuffled epochs that are recorded as independent draws, with and without what is left at their end."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows, batch = int(rng.integers(8, 100)), int(rng.integers(2, 8))
        used = rows if seed % 2 else rows - rows % batch
        order = [
            b
            for _ in range(6)
            for b in np.split(rng.permutation(rows)[:used], range(batch, used, batch))
            if len(b)
        ]
        assert equal_chances(order, [range(k, k + 1) for k in range(len(order))], rows)


@pytest.mark.parametrize("noise", [0.0, 10.0])
def test_sorted_rows_come_at_the_same_places(noise):
    rng = np.random.default_rng(0)
    order = [
        b
        for _ in range(EPOCHS)
        for b in np.argsort(np.arange(ROWS) + noise * rng.normal(size=ROWS)).reshape(-1, BATCH)
    ]
    assert same_places(order, PARTS, ROWS)


def test_shuffled_rows_do_not():
    """200 runs at level 10⁻⁶; rows left out at the end of an epoch, and last epochs that are a part."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows, batch = int(rng.integers(8, 100)), int(rng.integers(2, 8))
        steps = max(1, rows // batch)
        order = [b for _ in range(5) for b in np.split(rng.permutation(rows)[: steps * batch], steps)]
        epochs = [range(k * steps, min((k + 1) * steps, 5 * steps - steps // 2)) for k in range(5)]
        alarms += same_places(order, epochs, rows)
    assert alarms == 0
