"""Estimators that unroll training: what a row's gradient at a step becomes by the end of the run."""

from finfluence.estimators.unrolling._adamw_influence import AdamWInfluence, AdamWInfluenceOptions
from finfluence.estimators.unrolling._distributional import (
    Distributional,
    DistributionalOptions,
    ekfac_shifts,
    unrolled_shifts,
    wasserstein,
)
from finfluence.estimators.unrolling._segment import response_to
from finfluence.estimators.unrolling._source import SegmentOptions, Segments

__all__ = [
    "AdamWInfluence",
    "AdamWInfluenceOptions",
    "Distributional",
    "DistributionalOptions",
    "SegmentOptions",
    "Segments",
    "ekfac_shifts",
    "response_to",
    "unrolled_shifts",
    "wasserstein",
]
