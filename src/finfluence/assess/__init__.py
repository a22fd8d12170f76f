"""After the verdict: accuracy where there are no labels, and intervals for what was chosen."""

from finfluence.assess._accuracy import AccuracyEstimate, accuracy
from finfluence.assess._feedback import DesignLaw, feedback_interval
from finfluence.assess._paired_accuracy import AccuracyChange, accuracy_change

__all__ = [
    "AccuracyChange", "AccuracyEstimate", "DesignLaw", "accuracy", "accuracy_change", "feedback_interval",
]  # fmt: skip
