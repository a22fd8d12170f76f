"""Columns that alone tell the label, as copies of it do, and hold-out rows that stand in the training part."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from finfluence.ingest._messages import require

ALONE = 0.95
"""Share of a constant's errors that one column takes away when it as good as holds the label."""
_LEAST_ROWS = 40
_MOST_ROWS = 4_000
_LEAVES = 4
"""Leaves of a tree for each class: enough to read a label off, too few to learn rows by heart."""
_ROUGH = 32
_FEW_COPIES = 3
_ALIKE = 0.99
_KAPPA = 0.6
_FEW = 5


def gives_away(
    x: np.ndarray, y: np.ndarray, owners: Sequence[str], classes: int | None, seed: int = 0
) -> Mapping[str, float]:
    r"""Return the columns from which alone the label can be read, as from a copy, a code or a noisy twin of it.

    One small tree a column is grown on half of the rows (at most 4,000 in all) and asked about the other half, and
    the other way round. With classes its share of explained errors is \(1 - e/e_0\), with \(e_0\) the errors of the
    most frequent class; for numbers it is \(1 - \sum(y-\hat y)^2/\sum(y-\bar y)^2\), or the rank correlation of
    a single feature.

    Parameters
    ----------
    x
        Features `[n, d]` of the training part.
    y
        Class indices or numbers.
    owners
        For each feature, the column that it was made from.
    classes
        Number of classes; None for numbers.
    seed
        Of the halves.

    Returns
    -------
    Mapping[str, float]
        Column -> explained share, for those of at least 0.95 (for numbers 0.99).

    Examples
    --------
    >>> y = np.arange(200) % 2
    >>> x = np.column_stack([y, np.arange(200) % 7])
    >>> gives_away(x, y, ["copy", "other"], classes=2)
    {'copy': 1.0}
    """
    if len(y) < _LEAST_ROWS:
        return {}
    order = np.random.default_rng(seed).permutation(len(y))[:_MOST_ROWS]
    found = {}
    for name in dict.fromkeys(owners):
        block = x[:, [at for at, owner in enumerate(owners) if owner == name]][order]
        share = _alone(block, y[order], classes)
        if share >= (ALONE if classes is not None else _ALIKE):
            found[name] = share
    return found


def same_words(cells: np.ndarray, labels: np.ndarray) -> int:
    r"""Return in how many rows a column of words holds the label itself; 0 where that may be chance.

    Agreement beyond chance is Cohen's \(\kappa\), at least 0.6. A column of labels before they were corrected (or
    spoilt) agrees with them in most rows.

    Returns
    -------
    int

    Examples
    --------
    >>> same_words(np.array(["cat", "dog"] * 30 + ["dog"] * 4), np.array(["Cat", "Dog"] * 30 + ["Cat"] * 4))
    60
    """
    first, second = (
        pd.Series(values, dtype=object).astype(str).str.strip().str.casefold() for values in (cells, labels)
    )
    agree = first.to_numpy() == second.to_numpy()
    shares, others = first.value_counts(normalize=True), second.value_counts(normalize=True)
    chance = float(shares.mul(others, fill_value=0.0).sum())
    if len(agree) < _LEAST_ROWS or chance >= 1 or (agree.mean() - chance) / (1 - chance) < _KAPPA:
        return 0
    return int(agree.sum())


def marks_a_class(x: np.ndarray, y: np.ndarray, owners: Sequence[str], classes: int) -> Mapping[str, int]:
    """Return columns of two values that tell one of several classes from the others, as a one-hot copy does.

    Returns
    -------
    Mapping[str, int]
        Column -> index of the class.

    Examples
    --------
    >>> y = np.arange(90) % 3
    >>> marks_a_class(np.column_stack([y == 2, y > 5]), y, ["is 2", "no"], 3)
    {'is 2': 2}
    """
    if classes < 3 or len(y) < _LEAST_ROWS:
        return {}
    found: dict[str, int] = {}
    for at, name in enumerate(owners):
        column = x[:, at]
        low, high = column.min(), column.max()
        if low == high or not ((column == low) | (column == high)).all():
            continue
        with_high = np.bincount(y[column == high].astype(np.int64), minlength=classes)
        sizes = np.bincount(y.astype(np.int64), minlength=classes)
        for counts in (with_high, sizes - with_high):
            best = int(counts.argmax())
            wrong = sizes[best] - counts[best] + counts.sum() - counts[best]
            if sizes[best] >= _FEW and wrong <= (1 - ALONE) * sizes[best]:
                found.setdefault(name, best)
    return found


def leak_note(share: float) -> str:
    """Return what a reader must know of a column that gives the label away."""
    return (
        f"it alone tells the label ({100 * share:.0f} % of a constant's error is gone): leave it out if it was made "
        "from the label, or is known only with it"
    )


def repeated_rows(x: np.ndarray, held: np.ndarray, drawn: bool) -> tuple[str, ...]:
    """Return a note on hold-out rows whose features are those of a training row.

    Parameters
    ----------
    x, held
        Features of both parts, `[n, ...]`.
    drawn
        Whether the hold-out rows come from the training file: then one in ten is noted, else one in a hundred.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> repeated_rows(np.eye(40), np.eye(40)[:8], drawn=True)
    ('8 of 8 hold-out rows have the very features of a training row: a model may know their labels by heart',)
    """
    if x[:1].size < 2:
        return ()
    known = {row.tobytes() for row in x}
    again = sum(row.tobytes() in known for row in held)
    if again <= max(_FEW_COPIES, (0.1 if drawn else 0.01) * len(held)):
        return ()
    return (
        f"{again} of {len(held)} hold-out rows have the very features of a training row: a model may know their labels "
        "by heart",
    )


def copies_with_other_labels(x: np.ndarray, y: np.ndarray) -> tuple[str, ...]:
    """Return a note on training rows with the very features of another one, but another class.

    Nothing is said where most rows share their features with others, as in a table of few levels: there no features
    name a row.

    Parameters
    ----------
    x, y
        Features `[n, ...]` and classes of the training rows.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> x = np.r_[np.eye(40), np.eye(40)[:5]]
    >>> copies_with_other_labels(x, np.r_[np.zeros(40), np.ones(5)])
    ('10 of 45 training rows have the very features of another one, but another label: look for copies',)
    """
    if x[:1].size < 2:
        return ()
    rows = [row.tobytes() for row in x]
    seen: dict[bytes, set[int]] = {}
    for row, label in zip(rows, y.tolist(), strict=True):
        seen.setdefault(row, set()).add(label)
    apart = sum(len(seen[row]) > 1 for row in rows)
    if apart <= _FEW_COPIES or 2 * len(seen) < len(rows):
        return ()
    return (
        f"{apart} of {len(rows)} training rows have the very features of another one, but another label: look for "
        "copies",
    )


def _alone(block: np.ndarray, y: np.ndarray, classes: int | None) -> float:
    """Return the share of a constant's errors that a small tree explains, each half asked by the other's tree."""
    if classes is None and block.shape[1] == 1:
        correlation = require("scipy.stats", "finds columns that give the label away").spearmanr(
            block[:, 0], y
        )
        if abs(correlation.statistic) >= _ALIKE:
            return abs(float(correlation.statistic))
    trees = require("sklearn.tree", "finds columns that give the label away")
    halves = np.arange(len(y)) % 2
    told = np.empty(len(y))
    for half in (0, 1):
        grown = (
            trees.DecisionTreeRegressor(max_leaf_nodes=_ROUGH, min_samples_leaf=2, random_state=0)
            if classes is None
            else trees.DecisionTreeClassifier(
                max_leaf_nodes=max(_LEAVES * classes, block.shape[1] + 1), min_samples_leaf=2, random_state=0
            )
        )
        told[halves == half] = grown.fit(block[halves != half], y[halves != half]).predict(
            block[halves == half]
        )
    if classes is None:
        rest, whole = float(((y - told) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    else:
        rest, whole = float((told != y).sum()), float((y != np.bincount(y.astype(np.int64)).argmax()).sum())
        if whole < _FEW:
            return 0.0
    return 1 - rest / whole if whole else 0.0
