"""What a training is: rows, recipe, queries, subsets, optimisers."""

from finfluence.runs.describe._queries import (
    AnyQuery,
    Query,
    check_queries,
    each_loss,
    gradients,
    mean_loss,
    own_loss,
)
from finfluence.runs.describe._recipe import SCHEDULES, Recipe, description_digest
from finfluence.runs.describe._rows import DatasetRows, Rows, RowSource, as_rows
from finfluence.runs.describe._subsets import (
    Given,
    Subsets,
    check_left,
    check_removable,
    class_labels,
    find_subsets,
    sum_over,
)
from finfluence.runs.describe._task import Task

__all__ = [
    "SCHEDULES",
    "AnyQuery",
    "DatasetRows",
    "Given",
    "Query",
    "Recipe",
    "RowSource",
    "Rows",
    "Subsets",
    "Task",
    "as_rows",
    "check_left",
    "check_queries",
    "check_removable",
    "class_labels",
    "description_digest",
    "each_loss",
    "find_subsets",
    "gradients",
    "mean_loss",
    "own_loss",
    "sum_over",
]
