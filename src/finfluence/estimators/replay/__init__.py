"""Replay: a backward pass over one tape, to the influence of every row and of rows that were never trained on."""

from finfluence.estimators.replay._accumulate import EpochSums
from finfluence.estimators.replay._backward import BackwardPass, PassRules
from finfluence.estimators.replay._chunks import SavedProgress
from finfluence.estimators.replay._finite_change import FiniteChanges, Place, looked_at
from finfluence.estimators.replay._options import ReplayOptions
from finfluence.estimators.replay._recomputed_states import (
    SCRATCH,
    RecomputedStates,
    recomputations,
    state_bytes,
)
from finfluence.estimators.replay._replay import Replay, replay
from finfluence.estimators.replay._schedule import CANDIDATE_STEPS, RowSchedule, RunShape
from finfluence.estimators.replay._step_shares import StepShares, StepVariance, step_findings
from finfluence.estimators.replay._tail import TailAverage, curved_part, tail_steps
from finfluence.estimators.replay._truncation import GROWTH, RISE, TruncationRule, truncation_for

__all__ = [
    "CANDIDATE_STEPS",
    "GROWTH",
    "RISE",
    "SCRATCH",
    "BackwardPass",
    "EpochSums",
    "FiniteChanges",
    "PassRules",
    "Place",
    "RecomputedStates",
    "Replay",
    "ReplayOptions",
    "RowSchedule",
    "RunShape",
    "SavedProgress",
    "StepShares",
    "StepVariance",
    "TailAverage",
    "TruncationRule",
    "curved_part",
    "looked_at",
    "recomputations",
    "replay",
    "state_bytes",
    "step_findings",
    "tail_steps",
    "truncation_for",
]
