"""Metrics and baselines: how good a detector or an estimate is, beside what is cheap."""

from finfluence.evaluate._consistency import (
    consistent_and_correct,
    jaccard,
    jaccard_by_chance,
    kendalls_w,
    top_ids,
)
from finfluence.evaluate._datamodel import (
    agreement_ceiling,
    correlation,
    datamodel_ceiling,
    datamodel_score,
    resampled_interval,
)
from finfluence.evaluate._metrics import (
    Agreement,
    agreement,
    average_precision,
    coverage,
    false_discovery_proportion,
    recall_at,
    recall_flagged,
    roc_auc,
    spread_ratio,
)

__all__ = [
    "Agreement",
    "agreement",
    "agreement_ceiling",
    "average_precision",
    "consistent_and_correct",
    "correlation",
    "coverage",
    "datamodel_ceiling",
    "datamodel_score",
    "false_discovery_proportion",
    "jaccard",
    "jaccard_by_chance",
    "kendalls_w",
    "recall_at",
    "recall_flagged",
    "resampled_interval",
    "roc_auc",
    "spread_ratio",
    "top_ids",
]
