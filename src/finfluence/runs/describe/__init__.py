"""What a training is: rows, recipe, queries, subsets, optimisers."""

from finfluence.runs.describe._checksum import (
    Checksums,
    changed_data,
    changed_model,
    checksum,
    checksums,
    first_change,
    rows_checksums,
)
from finfluence.runs.describe._loss import check_loss, loss_options, try_loss
from finfluence.runs.describe._model import (
    check_model,
    check_parameters,
    check_unhooked,
    copy_model,
    hooked_parameter,
    sparse_gradient,
)
from finfluence.runs.describe._queries import (
    AnyQuery,
    Query,
    check_queries,
    chosen,
    each_loss,
    evaluated,
    gradients,
    mean_loss,
    own_loss,
    query_values,
)
from finfluence.runs.describe._read_values import values_read
from finfluence.runs.describe._recipe import SCHEDULES, Recipe, description_digest
from finfluence.runs.describe._rows import DatasetRows, Rows, RowSource, as_rows, like_sizes, varies
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
    "Checksums",
    "DatasetRows",
    "Given",
    "Query",
    "Recipe",
    "RowSource",
    "Rows",
    "Subsets",
    "Task",
    "as_rows",
    "changed_data",
    "changed_model",
    "check_left",
    "check_loss",
    "check_model",
    "check_parameters",
    "check_queries",
    "check_removable",
    "check_unhooked",
    "checksum",
    "checksums",
    "chosen",
    "class_labels",
    "copy_model",
    "description_digest",
    "each_loss",
    "evaluated",
    "find_subsets",
    "first_change",
    "gradients",
    "hooked_parameter",
    "like_sizes",
    "loss_options",
    "mean_loss",
    "own_loss",
    "query_values",
    "rows_checksums",
    "sparse_gradient",
    "sum_over",
    "try_loss",
    "values_read",
    "varies",
]
