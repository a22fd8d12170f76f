"""Which subsets are retrained: the top, the bottom and the middle of an estimate, and random groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finfluence._seeds import stream
from finfluence.errors import ConfigError, explain

KINDS = ("top", "bottom", "middle", "random")
SIZES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
CLEAR = 6.0
LARGEST_SHARE = 20


@dataclass(frozen=True, eq=False)
class Chosen:
    """A subset to retrain without: its name, where in the estimate it comes from, and its rows' positions."""

    name: str
    kind: str
    rows: np.ndarray


def choose(
    mu: np.ndarray, count: int, size: int, seed: int, labels: np.ndarray | None = None
) -> list[Chosen]:
    """Return `count` groups of `size` rows, a quarter of them of each kind; the first kinds get the rest.

    *Top*: the `size` rows of largest μ, the next ones, and so on; *bottom* likewise from the smallest. Where there are
    several queries they take turns. *Middle*: drawn from the rows nearest the median. These share no row. *Random*:
    drawn from all rows. No group holds all rows of a class.

    Parameters
    ----------
    mu : array [n, Q]
        Estimated μ of every row; rows with a NaN are never chosen.
    labels : array [n], optional
        Classes that no group may empty.

    Returns
    -------
    list[Chosen]

    Raises
    ------
    ConfigError
        There are not enough rows.

    Examples
    --------
    >>> groups = choose(np.arange(40.0)[:, None], count=4, size=2, seed=0)
    >>> [(g.name, g.rows.tolist()) for g in groups[:2]]
    [('top 1', [38, 39]), ('bottom 1', [0, 1])]
    """
    known = np.flatnonzero(np.isfinite(mu).all(1))
    counts = [count // 4 + (k < count % 4) for k in range(4)]
    _check_enough(len(known), sum(counts[:3]), size)
    rng = stream(seed, "verification subsets")
    orders = [known[np.argsort(-mu[known, q], kind="stable")] for q in range(mu.shape[1])]
    distance = np.abs(mu[known] - np.median(mu[known], axis=0)).max(1)
    nearest = known[np.argsort(distance, kind="stable")]
    near = nearest[: max(2 * counts[2] * size, len(nearest) // 5)]
    used: set[int] = set()
    found = []
    for kind, wanted in zip(KINDS, counts, strict=True):
        for k in range(wanted):
            if kind == "top":
                order = orders[k % len(orders)]
            elif kind == "bottom":
                order = orders[k % len(orders)][::-1]
            elif kind == "middle":
                order = np.concatenate([rng.permutation(near), nearest])
            else:
                order = rng.permutation(known)
            free = kind == "random" and size > 1
            rows = _fill(order, size, set() if free else used, labels)
            if len(rows) < size:
                raise ConfigError(_too_few(len(known), count, size))
            used.update(rows.tolist())
            found.append(Chosen(f"{kind} {k + 1}", kind, np.sort(rows)))
    return found


def measurable_size(
    mu: np.ndarray, count: int, seed: int, noise: float, labels: np.ndarray | None = None
) -> int:
    """Return the least group size at which predicted effects differ by six times the noise of the truth.

    Sizes run through 1, 2, 3, 5, 7, 10, … and end at a twentieth of the rows, where linear response ends, or where the
    groups would no longer fit.

    Parameters
    ----------
    noise
        Standard error of a retrained μ.

    Returns
    -------
    int
    """
    n = int(np.isfinite(mu).all(1).sum())
    most = max(1, min(n // LARGEST_SHARE, n // max(1, count)))
    best = 1
    for size in (s for s in SIZES if s <= most):
        groups = choose(mu, count, size, seed, labels)
        predicted = np.stack([mu[g.rows].sum(0) for g in groups])
        best = size
        if predicted.std() >= CLEAR * noise:
            break
    return best


def choose_given(
    mu: np.ndarray, names: Sequence[Any], members: Mapping[Any, np.ndarray], count: int, seed: int
) -> list[Chosen]:
    """Return some of the groups that the influence is about: by the same rule, each group one unit; all if few."""
    if len(names) <= count:
        return [Chosen(str(name), "given", members[name]) for name in names]
    picked = choose(mu, count, 1, seed)
    return [Chosen(f"{names[p.rows[0]]} ({p.name})", p.kind, members[names[p.rows[0]]]) for p in picked]


def _fill(order: np.ndarray, size: int, used: set[int], labels: np.ndarray | None) -> np.ndarray:
    """Return the first rows of `order` that are unused and leave every class a row."""
    rows: list[int] = []
    totals: dict[Any, int] = {}
    if labels is not None:
        values, amounts = np.unique(labels, return_counts=True)
        totals = dict(zip(values.tolist(), amounts.tolist(), strict=True))
    taken: dict[Any, int] = {}
    seen = set(used)
    for row in order.tolist():
        if len(rows) == size:
            break
        if row in seen:
            continue
        if labels is not None:
            label = labels[row].item()
            if taken.get(label, 0) + 1 >= totals[label]:
                continue
            taken[label] = taken.get(label, 0) + 1
        seen.add(row)
        rows.append(row)
    return np.array(rows, dtype=np.int64)


def _check_enough(n: int, apart: int, size: int) -> None:
    if apart * size > n:
        raise ConfigError(_too_few(n, apart, size))


def _too_few(n: int, count: int, size: int) -> str:
    return explain(
        f"enough rows with an estimate for {count} subsets of {size} that share none and empty no class",
        f"{n} rows",
        "the data set is small, or one class is nearly everything",
        f"ask for fewer subsets, for instance {max(4, min(count // 2, n // 2))}",
    )
