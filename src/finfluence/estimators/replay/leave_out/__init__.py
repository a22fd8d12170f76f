"""Groups to all orders: the run repeated without them."""

from finfluence.estimators.replay.leave_out._coupled_runs import (
    LARGE_SHARE,
    CoupledEffects,
    Coupling,
    Groups,
    choose_coupled,
    coupled_effects,
    coupled_seconds,
    leave_out_effects,
)
from finfluence.estimators.replay.leave_out._replicas import (
    NEGATIVE_CONTROLS,
    Baseline,
    LeaveOut,
    NegativeControl,
    Replicas,
)

__all__ = [
    "LARGE_SHARE",
    "NEGATIVE_CONTROLS",
    "Baseline",
    "CoupledEffects",
    "Coupling",
    "Groups",
    "LeaveOut",
    "NegativeControl",
    "Replicas",
    "choose_coupled",
    "coupled_effects",
    "coupled_seconds",
    "leave_out_effects",
]
