"""Statistics of influence: mu from two samples, intervals, and which rows stand out at what error rate."""

from typing import Any

from finfluence.errors import explain
from finfluence.stats._band import CurveBand, curve_band
from finfluence.stats._bootstrap import BootstrapMethod, bootstrap_interval
from finfluence.stats._certificates import Certificate, certify, certify_counts, clopper_pearson
from finfluence.stats._checks import check_level, numbers
from finfluence.stats._corrected import CorrectedCurve, corrected_curve
from finfluence.stats._crossed import crossed_interval
from finfluence.stats._decision import Named, RowTest, name_rows, towards
from finfluence.stats._departure import Departure, departure
from finfluence.stats._intervals import Interval, mean_interval, paired_difference, welch_difference
from finfluence.stats._local_level import inside, local_error
from finfluence.stats._mu_intervals import delong_interval, pooled_d_interval
from finfluence.stats._multiplicity import Direction, Discoveries, check_fdr, empirical_fdr, one_sided
from finfluence.stats._one_run import certify_one_run, certify_one_run_epsilon
from finfluence.stats._permutation import (
    PermutationTest,
    block_permutation_p,
    mean_difference,
    permutation_p,
    rank_p,
)
from finfluence.stats._precision import pooled_d_se, runs_needed
from finfluence.stats._samples import Binormal, auc, auc_probit, binormal, pooled_d
from finfluence.stats._scan import max_scan
from finfluence.stats._series import (
    block_bootstrap_interval,
    block_length,
    effective_size,
    series_mean_interval,
)
from finfluence.stats._shrink import FEWEST_SHRUNKEN, ScaleMixture, Shrunken, fit_mixture, posterior, shrink

__all__ = [
    "FEWEST_SHRUNKEN",
    "Binormal",
    "BootstrapMethod",
    "Certificate",
    "CorrectedCurve",
    "CurveBand",
    "Departure",
    "Direction",
    "Discoveries",
    "Interval",
    "Named",
    "PermutationTest",
    "RowTest",
    "ScaleMixture",
    "Shrunken",
    "auc",
    "auc_probit",
    "binormal",
    "block_bootstrap_interval",
    "block_length",
    "block_permutation_p",
    "bootstrap_interval",
    "certify",
    "certify_counts",
    "certify_one_run",
    "certify_one_run_epsilon",
    "check_fdr",
    "check_level",
    "clopper_pearson",
    "corrected_curve",
    "crossed_interval",
    "curve_band",
    "delong_interval",
    "departure",
    "effective_size",
    "empirical_fdr",
    "fit_mixture",
    "inside",
    "local_error",
    "max_scan",
    "mean_difference",
    "mean_interval",
    "name_rows",
    "numbers",
    "one_sided",
    "paired_difference",
    "permutation_p",
    "pooled_d",
    "pooled_d_interval",
    "pooled_d_se",
    "posterior",
    "rank_p",
    "runs_needed",
    "series_mean_interval",
    "shrink",
    "towards",
    "welch_difference",
]

_GONE = ("label_errors", "log_odds")


def __getattr__(name: str) -> Any:
    """Say what came in place of names of 0.1."""
    if name in _GONE:
        raise ImportError(
            explain(
                "a name of finfluence.stats",
                f"{name!r}, which is gone since 0.2",
                "code for 0.1, where losses on trained rows judged labels: they took a rare class for wrong",
                "from finfluence.labels import judge_labels, out_of_fold; judge_labels(out_of_fold(x, y), y)",
            )
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
