"""The truth: training again, with and without the rows."""

from finfluence.estimators.retrain._estimates import Estimates, half_subsets, pairs, two_samples
from finfluence.estimators.retrain._options import RetrainOptions
from finfluence.estimators.retrain._retrain import BANK, Retrain, retrain
from finfluence.estimators.retrain._sequential import (
    FIRST_ANALYSIS,
    Precision,
    SequentialStopping,
    grow_arms,
    grow_halves,
    grow_pairs,
    pairs_cost,
    se,
)

__all__ = [
    "BANK",
    "FIRST_ANALYSIS",
    "Estimates",
    "Precision",
    "Retrain",
    "RetrainOptions",
    "SequentialStopping",
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
