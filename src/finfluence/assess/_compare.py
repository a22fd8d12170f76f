"""Accuracy without labels of several versions of a model, each trained several times, beside the simple estimates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from finfluence._seeds import stream
from finfluence.assess._accuracy import ASSUMES, REPLICATES, Scored, bins, checked, signs_against
from finfluence.assess._scores import wilson
from finfluence.errors import DataError, explain
from finfluence.stats import Interval, check_level, numbers

THRESHOLDED = "average thresholded confidence"
METHODS = (
    THRESHOLDED,
    "average confidence",
    "difference of confidences",
    "importance weights",
    "labelled rows",
)
"""The estimate, and what it is to be compared with; the last corrects nothing."""
_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class AccuracyComparison:
    """Estimated accuracy of versions of a model on the same unlabelled rows.

    Attributes
    ----------
    accuracy
        Version -> method -> share of right predictions, with a bootstrap interval.
    difference
        Version (all but the first) -> method -> accuracy of the version minus that of the first, paired.
    level
        Of the intervals. They cover chance (labelled rows, unlabelled rows, trainings), not a shift that breaks the
        assumption.
    rows, runs
        Labelled and unlabelled rows, and trainings of each version.
    mix
        Share of each class among the labels, the predictions on labelled and those on unlabelled rows (first version).
    assumes
        What the estimate rests on.
    signs
        What on these rows speaks against it (first version).
    """

    accuracy: Mapping[str, Mapping[str, Interval]]
    difference: Mapping[str, Mapping[str, Interval]]
    level: float
    rows: tuple[int, int]
    runs: int
    mix: np.ndarray
    assumes: str
    signs: tuple[str, ...]


def compare_accuracy(
    versions: Mapping[str, tuple[ArrayLike, ArrayLike]],
    labels: ArrayLike,
    *,
    score: str = "max_confidence",
    calibrated: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> AccuracyComparison:
    r"""Estimate the accuracy of several versions of a model on unlabelled rows, and how they differ.

    .. math:: \hat a_v = \frac1R \sum_r \Pr_{\text{target}}[s_{vr}(x) > t_{vr}], \qquad
              \hat\Delta_v = \hat a_v - \hat a_1

    with the threshold of each training as in `accuracy`. Each bootstrap replicate draws trainings, labelled rows and
    unlabelled rows again, the same for every version and every method.

    Parameters
    ----------
    versions
        Name -> (source, target) probabilities, trainings × rows × classes: training r of every version belongs together
        (the same seed), as do the rows. The first version is what the others are compared with.
    labels
        Labels of the source rows as positions of classes.
    score, calibrated, level, seed
        As of `accuracy`.

    Returns
    -------
    AccuracyComparison

    Raises
    ------
    DataError
        No version, other shapes from version to version, or as of `accuracy`.

    References
    ----------
    Garg et al., ICLR 2022, equation 1, for each training; Efron and Tibshirani (1993), chapter 8, for pairs.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p, q = rng.dirichlet([1, 1], (2, 200)), rng.dirichlet([1, 1], (2, 100))
    >>> y = p[0].argmax(1)
    >>> y[:40] = 1 - y[:40]
    >>> found = compare_accuracy({"before": (p, q), "after": (p, q)}, y)
    >>> found.difference["after"]["average thresholded confidence"].estimate
    0.0
    """
    check_level(level)
    parts = {name: tuple(numbers(part, name) for part in pair) for name, pair in versions.items()}
    shapes = {tuple(part.shape for part in pair) for pair in parts.values()}
    first_shapes = next(iter(shapes), ())
    runs_of = {shape[0] for shape in first_shapes if shape}
    if (
        len(shapes) != 1
        or any(len(shape) != 3 for shape in first_shapes)
        or len(runs_of) != 1
        or 0 in runs_of
    ):
        raise DataError(
            explain(
                "versions of one shape, each (source, target) of trainings × rows × classes",
                f"shapes {sorted(shapes)}" if shapes else "no version",
                "versions asked about different rows, or a training missing",
                "predict the same rows by as many trainings of each version; for one training put it in a list",
            )
        )
    scored = {name: _scored(pair, labels, score, calibrated, level) for name, pair in parts.items()}
    first = next(iter(scored.values()))
    runs, n, m = len(first), len(first[0].source), len(first[0].target)
    rng = stream(seed, "accuracy of versions")
    plain = {
        name: np.array([[v[0] for v in _estimates(one, np.ones((1, n)), np.ones((1, m)))] for one in each])
        for name, each in scored.items()
    }
    drawn = {name: np.empty((len(METHODS), REPLICATES)) for name in scored}
    for start in range(0, REPLICATES, _AT_ONCE):
        here = slice(start, min(start + _AT_ONCE, REPLICATES))
        count = here.stop - start
        rows = [_weights(rng, size, count) for size in (n, m)]
        chosen = _weights(rng, runs, count) / runs
        for name, each in scored.items():
            of_runs = np.array([_estimates(one, rows[0], rows[1]) for one in each])
            drawn[name][:, here] = np.einsum("br,rkb->kb", chosen, of_runs)
    names = list(scored)
    values = {name: (plain[name].mean(0), drawn[name]) for name in names}
    base = values[names[0]]
    return AccuracyComparison(
        {name: _intervals(value, draws, level, min(n, m)) for name, (value, draws) in values.items()},
        {name: _intervals(values[name][0] - base[0], values[name][1] - base[1], level) for name in names[1:]},
        level,
        (n, m),
        runs,
        _mix(first, np.asarray(labels)),
        ASSUMES,
        signs_against(_together(first)),
    )


def _scored(
    pair: tuple[np.ndarray, ...], labels: ArrayLike, score: str, calibrated: bool, level: float
) -> list[Scored]:
    each = []
    for source, target in zip(*pair, strict=True):
        p, q, y = checked(source, labels, target, level)
        each.append(Scored.of(p, y, q, score, calibrated=calibrated))
    return each


def _weights(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Return how often each of `size` things is drawn, in `count` bootstrap replicates."""
    drawn = rng.integers(size, size=(count, size))
    return np.stack([np.bincount(row, minlength=size) for row in drawn]).astype(np.float64)


def _estimates(seen: Scored, w: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Return every method's estimate [B] for one training under weights of labelled [B, n] and unlabelled [B, m]."""
    right = seen.right.astype(np.float64)
    known = w @ right / w.sum(1)
    sure, new = seen.source.max(1), seen.target.max(1)
    confidence = v @ new / v.sum(1)
    shifted = np.clip(known + confidence - w @ sure / w.sum(1), 0.0, 1.0)
    return [_thresholded(seen, w, v), confidence, shifted, _reweighted(seen, w, v), known]


def _thresholded(seen: Scored, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return average thresholded confidence under weights; ties share as in `cut`."""
    values, place = np.unique(seen.source_scores, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(values)))
    tied = np.add.reduceat(w[:, order], starts, axis=1)
    upto = tied.cumsum(1)
    wrong = w @ (~seen.right).astype(np.float64)
    at = np.minimum((upto < wrong[:, None]).sum(1), len(values) - 1)
    every = np.arange(len(w))
    share = (upto[every, at] - wrong) / np.where(wrong > 0, tied[every, at], 1.0)
    by_score = np.argsort(seen.target_scores, kind="stable")
    new = seen.target_scores[by_score]
    below = np.concatenate([np.zeros((len(v), 1)), v[:, by_score].cumsum(1)], axis=1)
    left, upper = (np.searchsorted(new, values, side)[at] for side in ("left", "right"))
    total = below[:, -1]
    found = (total - below[every, upper] + share * (below[every, upper] - below[every, left])) / total
    return np.where(wrong > 0, found, 1.0)


def _reweighted(seen: Scored, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the accuracy of the labelled rows in bins of confidence, weighted as the unlabelled rows fall."""
    i, j, count = bins(seen.source, seen.target)
    inside, there = np.eye(count)[i], np.eye(count)[j]
    rows, hits = w @ inside, (w * seen.right) @ inside
    known = (w @ seen.right / w.sum(1))[:, None]
    accuracy = np.where(rows > 0, hits / np.where(rows > 0, rows, 1.0), known)
    return np.asarray((accuracy * (v @ there)).sum(1) / v.sum(1))


def _intervals(
    value: np.ndarray, draws: np.ndarray, level: float, rows: int | None = None
) -> dict[str, Interval]:
    """Return bootstrap intervals; of shares of `rows` no narrower than Wilson's."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    if rows is not None:
        least = wilson(value, rows, level)
        low, high = np.minimum(low, least[0]), np.maximum(high, least[1])
    return {
        name: Interval(float(value[k]), float(low[k]), float(high[k]), level, "bootstrap percentile")
        for k, name in enumerate(METHODS)
    }


def _mix(each: list[Scored], y: np.ndarray) -> np.ndarray:
    classes = each[0].source.shape[1]

    def shares(found: Any) -> np.ndarray:
        return np.bincount(np.ravel(found), minlength=classes) / np.size(found)

    predicted = [[part.argmax(1) for part in (one.source, one.target)] for one in each]
    return np.stack([shares(y), shares([p[0] for p in predicted]), shares([p[1] for p in predicted])], axis=1)


def _together(each: list[Scored]) -> Scored:
    """Return the rows as all trainings together see them: mean probabilities and mean scores."""
    p, q = (np.mean([getattr(one, name) for one in each], axis=0) for name in ("source", "target"))
    s, t = (
        np.mean([getattr(one, name) for one in each], axis=0) for name in ("source_scores", "target_scores")
    )
    return Scored(1.0, p, q, each[0].right, s, t)
