"""Metrics and baselines: how good a detector or an estimate is, beside what is cheap."""

from finfluence.evaluate._consistency import consistent_and_correct, jaccard, jaccard_by_chance, top_ids
from finfluence.evaluate._metrics import (
    Agreement,
    agreement,
    average_precision,
    coverage,
    false_discovery_proportion,
    recall_at,
    recall_flagged,
    spread_ratio,
)

__all__ = [
    "Agreement",
    "agreement",
    "average_precision",
    "consistent_and_correct",
    "coverage",
    "false_discovery_proportion",
    "jaccard",
    "jaccard_by_chance",
    "recall_at",
    "recall_flagged",
    "spread_ratio",
    "top_ids",
]
