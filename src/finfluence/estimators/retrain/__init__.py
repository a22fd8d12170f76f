"""The truth: training again, with and without the rows."""

from finfluence.estimators.retrain._estimates import Law, half_subsets, pairs, two_samples
from finfluence.estimators.retrain._retrain import retrain
from finfluence.estimators.retrain._sequential import (
    FIRST_LOOK,
    Looks,
    Precision,
    grow_arms,
    grow_halves,
    grow_pairs,
    pairs_cost,
    se,
)

__all__ = [
    "FIRST_LOOK",
    "Law",
    "Looks",
    "Precision",
    "grow_arms",
    "grow_halves",
    "grow_pairs",
    "half_subsets",
    "pairs",
    "pairs_cost",
    "retrain",
    "se",
    "two_samples",
]
