"""Labels judged by models that have not seen them: out-of-fold predictions, and which labels are wrong."""

from finfluence.labels._out_of_fold import OutOfFold, Score, out_of_fold, partition
from finfluence.labels._planted import Planted, plant_and_find
from finfluence.labels._targets import TargetVerdict, judge_targets
from finfluence.labels._verdict import LabelVerdict, by_doubt, judge_labels

__all__ = [
    "LabelVerdict", "OutOfFold", "Planted", "Score", "TargetVerdict", "by_doubt", "judge_labels", "judge_targets",
    "out_of_fold", "partition", "plant_and_find",
]  # fmt: skip
