"""Experiments of the benchmark, a file each."""

from finfluence.jobs.bench.experiments._addition import Addition
from finfluence.jobs.bench.experiments._consistency import Consistency
from finfluence.jobs.bench.experiments._cost import Costs
from finfluence.jobs.bench.experiments._leave_one_out import LeaveOneOut
from finfluence.jobs.bench.experiments._look_alikes import LookAlikes
from finfluence.jobs.bench.experiments._mislabels import Mislabels
from finfluence.jobs.bench.experiments._removal import Removal
from finfluence.jobs.bench.experiments._truth import AgainstRetraining

__all__ = [
    "Addition",
    "AgainstRetraining",
    "Consistency",
    "Costs",
    "LeaveOneOut",
    "LookAlikes",
    "Mislabels",
    "Removal",
]
