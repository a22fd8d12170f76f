"""What could be found: errors planted into the user's own labels, and how many of them come to the top."""

from dataclasses import dataclass

import numpy as np

from finfluence._indices import same_rows
from finfluence._progress import Progress, silent
from finfluence._seeds import stream
from finfluence.labels._out_of_fold import out_of_fold
from finfluence.labels._verdict import judge_labels

LEVEL = 0.1


@dataclass(frozen=True)
class Planted:
    """How many planted errors were found.

    Attributes
    ----------
    share
        Share of the labels that were replaced by another one, drawn at random.
    planted
        Their number. first : rows looked at, the most doubtful ones. found : planted errors among them.
    named
        Planted errors among the rows named at `level`, and `not_planted` the others among these: own errors of the
        table, or false names.
    """

    share: float
    planted: int
    first: int
    found: int
    level: float
    named: int
    not_planted: int

    def sentence(self) -> str:
        """Say it."""
        return (
            f"if {100 * self.share:.0f} % of these labels were wrong at random ({self.planted:,}), the first "
            f"{self.first:,} rows of the list would hold about {self.found:,} of them"
        )


def plant_and_find(
    x: np.ndarray,
    y: np.ndarray,
    *,
    share: float = 0.05,
    first: int = 100,
    groups: np.ndarray | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Planted:
    """Replace a share of the labels by others at random, judge all labels anew, and count.

    Parameters
    ----------
    x, y, groups
        As for `out_of_fold`, of a classification.
    share
        How many labels to replace.
    first
        How many of the most doubtful rows to look at.
    seed
        Of the errors planted, and of the folds.

    Returns
    -------
    Planted

    Raises
    ------
    DataError
        As for `out_of_fold`.

    Notes
    -----
    Costs one repeat of the out-of-fold predictions. Errors that are there already stay and are not counted as found.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 400)
    >>> found = plant_and_find(rng.normal(size=(400, 2)) + 4 * y[:, None], y, first=20)
    >>> found.planted, bool(found.found >= 18)
    (20, True)
    """
    same_rows(x=x, y=y, groups=groups)
    x, y = np.asarray(x), np.asarray(y)
    groups = None if groups is None else np.asarray(groups)
    rng = stream(seed, "planted label errors")
    count = max(1, round(share * len(y)))
    rows = np.sort(rng.choice(len(y), count, replace=False))
    classes = int(y.max()) + 1
    changed = y.copy()
    changed[rows] = (y[rows] + rng.integers(1, classes, count)) % classes
    verdict = judge_labels(
        out_of_fold(x, changed, groups=groups, seed=seed, repeats=1, progress=progress), changed
    )
    top, named = verdict.order[:first], np.flatnonzero(verdict.named(LEVEL))
    hit = int(np.isin(named, rows).sum())
    return Planted(
        share, count, min(first, len(y)), int(np.isin(top, rows).sum()), LEVEL, hit, len(named) - hit
    )
