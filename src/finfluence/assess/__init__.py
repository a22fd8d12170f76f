"""After the verdict: accuracy where there are no labels, intervals for what was chosen, effects from logged runs."""

from finfluence.assess._accuracy import AccuracyEstimate, accuracy
from finfluence.assess._compare import METHODS, THRESHOLDED, AccuracyComparison, compare_accuracy
from finfluence.assess._effect_laws import EffectLaws
from finfluence.assess._event_log import EventLog, Forgotten, LoggedRun
from finfluence.assess._exposure import (
    ExposureTest,
    exposure,
    local_covariance,
    sup_of_brownian_motion,
)
from finfluence.assess._feedback import (
    DesignLaw,
    FeedbackInterval,
    feedback_interval,
    scores_and_weights,
    split_interval,
)
from finfluence.assess._inclusion import InclusionEffects, inclusion
from finfluence.assess._network import NETWORK_PARTS, network_file, network_laws, network_prior
from finfluence.assess._paired_accuracy import AccuracyChange, accuracy_change
from finfluence.assess._policy import PolicyEffect, policy_effect

__all__ = [
    "METHODS", "NETWORK_PARTS", "THRESHOLDED", "AccuracyChange", "AccuracyComparison", "AccuracyEstimate",
    "DesignLaw", "EffectLaws", "EventLog", "ExposureTest", "FeedbackInterval", "Forgotten", "InclusionEffects",
    "LoggedRun", "PolicyEffect", "accuracy", "accuracy_change", "compare_accuracy", "exposure", "feedback_interval",
    "inclusion", "local_covariance", "network_file", "network_laws", "network_prior", "policy_effect",
    "scores_and_weights", "split_interval", "sup_of_brownian_motion",
]  # fmt: skip
