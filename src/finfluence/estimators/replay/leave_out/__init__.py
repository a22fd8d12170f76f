"""Groups to all orders: the run repeated without them."""

from finfluence.estimators.replay.leave_out._coupled_runs import (
    Groups,
    Pairs,
    pair,
    paired_effects,
    paired_seconds,
    to_pair,
)
from finfluence.estimators.replay.leave_out._replicas import PLACEBOS, Lanes, Placebo, Removed, Whole

__all__ = [
    "PLACEBOS",
    "Groups",
    "Lanes",
    "Pairs",
    "Placebo",
    "Removed",
    "Whole",
    "pair",
    "paired_effects",
    "paired_seconds",
    "to_pair",
]
