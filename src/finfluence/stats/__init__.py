"""Statistics of influence: mu from two samples, intervals, and which rows stand out at what error rate."""

from finfluence.stats._bootstrap import bootstrap_interval
from finfluence.stats._intervals import Interval, mean_interval, paired_difference, welch_difference
from finfluence.stats._mu_intervals import delong_interval, pooled_d_interval
from finfluence.stats._multiplicity import Direction, Discoveries, empirical_fdr, one_sided
from finfluence.stats._own_loss import LossVerdict, label_errors
from finfluence.stats._samples import Binormal, auc, auc_probit, binormal, pooled_d
from finfluence.stats._precision import pooled_d_se, runs_needed
from finfluence.stats._scan import max_scan

__all__ = [
    "Binormal",
    "Direction",
    "Discoveries",
    "Interval",
    "LossVerdict",
    "auc",
    "auc_probit",
    "binormal",
    "bootstrap_interval",
    "delong_interval",
    "empirical_fdr",
    "label_errors",
    "max_scan",
    "mean_interval",
    "one_sided",
    "paired_difference",
    "pooled_d",
    "pooled_d_interval",
    "pooled_d_se",
    "runs_needed",
    "welch_difference",
]
