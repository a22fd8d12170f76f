"""Estimators that multiply gradients and follow no step further."""

from finfluence.estimators.first_order._fine import (
    arms,
    check_recording,
    fine_monte_carlo,
    fine_rao_blackwell,
    step_influence,
)

__all__ = ["arms", "check_recording", "fine_monte_carlo", "fine_rao_blackwell", "step_influence"]
