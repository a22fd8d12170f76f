"""Replay: one tape walked backwards to the influence of every row."""

from finfluence.estimators.replay._accumulate import EpochSums
from finfluence.estimators.replay._backward import Plan, Walk
from finfluence.estimators.replay._recomputed_states import SCRATCH, WalkedStates, passes, state_bytes
from finfluence.estimators.replay._replay import replay
from finfluence.estimators.replay._tail import Late, late_steps
from finfluence.estimators.replay._truncation import GROWTH, RISE, Horizon, horizon_for

__all__ = [
    "GROWTH",
    "RISE",
    "SCRATCH",
    "EpochSums",
    "Horizon",
    "Late",
    "Plan",
    "Walk",
    "WalkedStates",
    "horizon_for",
    "late_steps",
    "passes",
    "replay",
    "state_bytes",
]
