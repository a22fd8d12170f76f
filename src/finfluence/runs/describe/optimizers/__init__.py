"""Optimisers, one file each: described, found in torch, and their updates as functions."""

from finfluence.runs.describe.optimizers._adam import Adam, AdamW
from finfluence.runs.describe.optimizers._arithmetic import Pull, clip_norm
from finfluence.runs.describe.optimizers._muon import MUON_RULE
from finfluence.runs.describe.optimizers._rule import (
    Group,
    Optimizer,
    Rule,
    options_of,
    register,
    rule_named,
    rule_of,
    steps_done,
)
from finfluence.runs.describe.optimizers._sgd import SGD

__all__ = [
    "MUON_RULE",
    "SGD",
    "Adam",
    "AdamW",
    "Group",
    "Optimizer",
    "Pull",
    "Rule",
    "clip_norm",
    "options_of",
    "register",
    "rule_named",
    "rule_of",
    "steps_done",
]
