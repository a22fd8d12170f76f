"""Estimators that unroll training: what a row's gradient at a step becomes by the end of the run."""

from finfluence.estimators.unrolling._source import SegmentOptions, Segments, response_to

__all__ = [
    "SegmentOptions",
    "Segments",
    "response_to",
]
