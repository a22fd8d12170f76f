"""After the verdict: accuracy where there are no labels, intervals for what was chosen, effects from logged runs."""

from finfluence.assess._accuracy import AccuracyEstimate, accuracy
from finfluence.assess._feedback import DesignLaw, feedback_interval
from finfluence.assess._inclusion import InclusionEffects, inclusion
from finfluence.assess._paired_accuracy import AccuracyChange, accuracy_change
from finfluence.assess._policy import PolicyEffect, policy_effect

__all__ = [
    "AccuracyChange", "AccuracyEstimate", "DesignLaw", "InclusionEffects", "PolicyEffect", "accuracy",
    "accuracy_change", "feedback_interval", "inclusion", "policy_effect",
]  # fmt: skip
