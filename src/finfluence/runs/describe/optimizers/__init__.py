"""Optimisers as functions: described, found in torch, and their updates."""

from finfluence.runs.describe.optimizers._described import SGD, Adam, AdamW, Optimizer
from finfluence.runs.describe.optimizers._torch import (
    KNOWN,
    flags_of,
    kind_of,
    numbers_at,
    numbers_of,
    options_of,
    remake,
    set_numbers,
    steps_taken,
)
from finfluence.runs.describe.optimizers._updates import adam_step, clip_norm, muon_step, sgd_step

__all__ = [
    "KNOWN",
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "adam_step",
    "clip_norm",
    "flags_of",
    "kind_of",
    "muon_step",
    "numbers_at",
    "numbers_of",
    "options_of",
    "remake",
    "set_numbers",
    "sgd_step",
    "steps_taken",
]
