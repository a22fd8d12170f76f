"""What a replay will cost, and how a budget is spent."""

from finfluence.estimators.replay.cost._budget import Allocation, allocate, allocation_from, remembered
from finfluence.estimators.replay.cost._evaluations import RunCosts, trainings
from finfluence.estimators.replay.cost._forecast import Forecast, backward_bytes, plan
from finfluence.estimators.replay.cost._memory import (
    MemorySplit,
    StateSizes,
    activation_bytes,
    bytes_per_query,
    candidates_at_once,
    fitted_memory,
    row_bytes,
    split_memory,
    step_bytes,
)
from finfluence.estimators.replay.cost._peak import PeakMemory
from finfluence.estimators.replay.cost._timing import StepTimer, Timings, Workload, measure

__all__ = [
    "Allocation",
    "Forecast",
    "MemorySplit",
    "PeakMemory",
    "RunCosts",
    "StateSizes",
    "StepTimer",
    "Timings",
    "Workload",
    "activation_bytes",
    "allocate",
    "allocation_from",
    "backward_bytes",
    "bytes_per_query",
    "candidates_at_once",
    "fitted_memory",
    "measure",
    "plan",
    "remembered",
    "row_bytes",
    "split_memory",
    "step_bytes",
    "trainings",
]
