"""What a replay will cost, and how a budget is spent."""

from finfluence.estimators.replay.cost._budget import Settings, remembered, settings_for, settings_from
from finfluence.estimators.replay.cost._forecast import Forecast, plan
from finfluence.estimators.replay.cost._memory import Memory, bytes_per_query, share_memory
from finfluence.estimators.replay.cost._timing import Costs, measure

__all__ = [
    "Costs",
    "Forecast",
    "Memory",
    "Settings",
    "bytes_per_query",
    "measure",
    "plan",
    "remembered",
    "settings_for",
    "settings_from",
    "share_memory",
]
