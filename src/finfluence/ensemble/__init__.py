"""Many trainings of one recipe: stacked, over processes, kept in a store."""

from finfluence.ensemble._bank import ModelBank
from finfluence.ensemble._cached_runs import OWN_LOSS_RUNS, CachedTrainer
from finfluence.ensemble._coupled_order import paired_order
from finfluence.ensemble._executors import Executor, one_thread
from finfluence.ensemble._query_values import StackedQueries
from finfluence.ensemble._run_plans import Seeds, Vary, covers, leave_out, random_halves, without
from finfluence.ensemble._stacked import RunSpec, StackedRuns, not_stackable
from finfluence.ensemble._store import RunStore, run_key, signature
from finfluence.ensemble._train_many import ManyRuns, Workers, final_models, train_many

__all__ = [
    "OWN_LOSS_RUNS",
    "CachedTrainer",
    "Executor",
    "ManyRuns",
    "ModelBank",
    "RunSpec",
    "RunStore",
    "Seeds",
    "StackedQueries",
    "StackedRuns",
    "Vary",
    "Workers",
    "covers",
    "final_models",
    "leave_out",
    "not_stackable",
    "one_thread",
    "paired_order",
    "random_halves",
    "run_key",
    "signature",
    "train_many",
    "without",
]
