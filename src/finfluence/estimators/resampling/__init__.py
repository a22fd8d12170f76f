"""Estimators that resample: learners on bootstraps of the rows, sub-networks of one run."""

from finfluence.estimators.resampling._data_oob import DataOob, DataOobOptions, bootstraps, outside_mean
from finfluence.estimators.resampling._turn_over import (
    TurnOver,
    TurnOverDropout,
    TurnOverOptions,
    row_numbers,
    sub_networks,
)

__all__ = [
    "DataOob",
    "DataOobOptions",
    "TurnOver",
    "TurnOverDropout",
    "TurnOverOptions",
    "bootstraps",
    "outside_mean",
    "row_numbers",
    "sub_networks",
]
