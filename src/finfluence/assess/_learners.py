"""scikit-learn's models behind the assessments that adjust for covariates, and the folds they are fitted in."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from finfluence._extras import require
from finfluence._seeds import stream


def sklearn(module: str) -> Any:
    """Return a module of scikit-learn.

    Returns
    -------
    module

    Raises
    ------
    ConfigError
        It is not installed.
    """
    return require(f"sklearn.{module}", "adjusts for covariates", "data")


def folds(strata: np.ndarray, k: int, seed: int, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (others, fold) positions of k folds that hold each stratum in equal parts."""
    rng = stream(seed, name)
    member = np.empty(len(strata), dtype=np.int64)
    for value in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == value))
        member[rows] = (np.arange(len(rows)) + rng.integers(k)) % k
    for fold in range(k):
        yield np.flatnonzero(member != fold), np.flatnonzero(member == fold)
