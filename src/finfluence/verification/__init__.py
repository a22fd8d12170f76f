"""Verification: an estimate of influence held against retraining."""

from finfluence.verification._budget import duration, fit_to_budget, runs_on_all, seconds_of, trainings
from finfluence.verification._choose import Chosen, choose, choose_given, measurable_size
from finfluence.verification._figures import (
    Evidence,
    Figure,
    Pairs,
    ceilings,
    evidence,
    figures,
    pearson,
    spearman,
)
from finfluence.verification._groups import group_estimates, select_queries, shrunken_sums
from finfluence.verification._judge import Judgement, judge
from finfluence.verification._own import OwnEffort, verify_own_losses
from finfluence.verification._plan import Plan, check_counts
from finfluence.verification._verification import Verification
from finfluence.verification._verify import compare, verify

__all__ = [
    "Chosen",
    "Evidence",
    "Figure",
    "Judgement",
    "OwnEffort",
    "Pairs",
    "Plan",
    "Verification",
    "ceilings",
    "check_counts",
    "choose",
    "choose_given",
    "compare",
    "duration",
    "evidence",
    "figures",
    "fit_to_budget",
    "group_estimates",
    "judge",
    "measurable_size",
    "pearson",
    "runs_on_all",
    "seconds_of",
    "select_queries",
    "shrunken_sums",
    "spearman",
    "trainings",
    "verify",
    "verify_own_losses",
]
