"""Whether every row had the same chance to be in a batch, at every time: tested on the rows of the steps."""

from collections.abc import Sequence

import numpy as np
from scipy.special import chdtr, chdtrc

LEVEL, LASTING_LEVEL = 1e-4, 1e-6


def equal_draws(counts: np.ndarray) -> bool:
    """Whether rows may have been drawn equally often but for chance: Pearson's test of their counts, at level 10⁻⁴.

    Under equal chances Σ(c_i − c̄)²/c̄ has the distribution χ²(n − 1), and less where a batch holds no row twice.

    Returns
    -------
    bool

    Examples
    --------
    >>> equal_draws(np.array([9, 12, 10, 11])), equal_draws(np.array([2, 25, 3, 30]))
    (True, False)
    """
    mean = counts.mean()
    return bool(mean == 0 or chdtrc(len(counts) - 1, ((counts - mean) ** 2).sum() / mean) > LEVEL)


def lasting(parts: np.ndarray) -> bool:
    """Whether what rows differ in is the same in several parts of a run, more than chance would have it.

    With z_ki standardised within each of K parts, Σ_i (Σ_k z_ki)²/K has the distribution χ²(n − 1) if the parts are
    independent; level 10⁻⁶.

    Parameters
    ----------
    parts : array [K, n]
        One number for each row in each part; NaN where a row is not in it.

    Returns
    -------
    bool

    Examples
    --------
    >>> order, rng = np.arange(50.0), np.random.default_rng(0)
    >>> lasting(np.stack([order] * 3)), lasting(np.stack([rng.permutation(order) for _ in range(3)]))
    (True, False)
    """
    there = np.isfinite(parts)
    counts = there.sum(1, keepdims=True)
    filled = np.where(there, parts, 0.0)
    apart = np.where(there, filled - filled.sum(1, keepdims=True) / np.maximum(counts, 1), 0.0)
    size = np.sqrt((apart**2).sum(1, keepdims=True) / np.maximum(counts, 1))
    z = (apart / np.where(size > 0, size, 1.0))[size[:, 0] > 0]
    if len(z) < 2:
        return False
    return bool(chdtrc(parts.shape[1] - 1, (z.sum(0) ** 2).sum() / len(z)) < LASTING_LEVEL)


def same_places(order: Sequence[np.ndarray], epochs: Sequence[range], n: int) -> bool:
    """Whether rows come at the same places of every epoch, as of a loader that does not shuffle.

    Returns
    -------
    bool

    Examples
    --------
    >>> steps = [np.arange(k, k + 4) for _ in range(3) for k in range(0, 40, 4)]
    >>> same_places(steps, [range(0, 10), range(10, 20), range(20, 30)], 40)
    True
    """
    places = np.full((len(epochs), n), np.nan)
    for k, epoch in enumerate(epochs):
        for t in epoch:
            if t < len(order):
                places[k, order[t]] = t - epoch.start
    return lasting(places)


def equal_chances(order: Sequence[np.ndarray], epochs: Sequence[range], n: int) -> bool:
    """Whether rows drawn independently may have had one chance, in the whole run, in its halves and in every epoch.

    Weights show in the counts, and in counts that differ in the same way in every epoch, a curriculum in a half, and
    a list that holds some rows twice in counts that are too even for chance (`listed_oftener`).

    Returns
    -------
    bool

    Examples
    --------
    >>> halves = [np.arange(20) + 20 * (t > 5) for t in range(12)]
    >>> equal_chances(halves, [range(k, k + 2) for k in range(0, 12, 2)], 40)
    False
    """
    counts = np.stack(
        [
            np.bincount(np.concatenate([order[t] for t in epoch if t < len(order)]), minlength=n)
            for epoch in epochs
            if epoch.start < len(order)
        ]
    )  # fmt: skip
    middle = (len(counts) + 1) // 2
    parts = (counts, counts[:middle], counts[middle:]) if len(counts) > 1 else (counts,)
    return (
        all(equal_draws(part.sum(0)) for part in parts)
        and not lasting(counts.astype(float))
        and not listed_oftener(order, n)
    )


def listed_oftener(order: Sequence[np.ndarray], n: int) -> bool:
    """Whether a loader went through a list, again and again, that holds some rows oftener than others.

    Counts c_i of rows that are drawn by chance vary by c̄(1 − b/n) at least, with b the rows of a batch; a list gone
    through in shuffled order leaves them more even (a lower tail of 10⁻⁴ of χ²). In one of n different rows that loses
    less than a batch at its end, no row comes oftener than ⌈Σc/(n − b + 1)⌉ times.

    Returns
    -------
    bool

    Examples
    --------
    >>> rng, once, twice = np.random.default_rng(0), np.arange(60), np.r_[np.arange(60), 0, 1, 2]
    >>> runs = [[b for _ in range(9) for b in rng.permutation(rows).reshape(-1, 3)] for rows in (once, twice)]
    >>> [listed_oftener(run, 60) for run in runs]
    [False, True]
    """
    drawn = np.concatenate(order)
    counts, batch = np.bincount(drawn, minlength=n), max(len(rows) for rows in order)
    least = counts.mean() * (1 - batch / n)
    if least <= 0 or chdtr(n - 1, ((counts - counts.mean()) ** 2).sum() / least) > LEVEL:
        return False
    return bool(counts.max() > np.ceil(len(drawn) / (n - batch + 1)))
