"""Differentiation of per-row losses: flat parameters, pure losses, traced graphs."""

from finfluence.grads._checkpointing import no_checkpointing
from finfluence.grads._directions import Directions
from finfluence.grads._double import InDouble, in_double
from finfluence.grads._elementary import Elementary
from finfluence.grads._factors import Factorised, Layer, RowTerms, layers_of
from finfluence.grads._flat import Layout
from finfluence.grads._frozen import Frozen, Pieces
from finfluence.grads._gradients_on import gradients_on
from finfluence.grads._graph import kinks, operations
from finfluence.grads._losses import (
    Batch,
    RowLoss,
    RowLosses,
    check_forward_writes_nothing,
    check_row_losses,
    check_row_separable,
    check_rows_have_gradients,
    never_moved,
    places,
    without_graph,
)
from finfluence.grads._projection import Projection
from finfluence.grads._row_gradients import WrittenRows
from finfluence.grads._saved import saved_tensors
from finfluence.grads._seed import generator_states, seed_generators
from finfluence.grads.tracing import Graphs, Traced, Traces, trace, trace_gradient, trace_values

__all__ = [
    "Batch",
    "Directions",
    "Elementary",
    "Factorised",
    "Frozen",
    "Graphs",
    "InDouble",
    "Layer",
    "Layout",
    "Pieces",
    "Projection",
    "RowLoss",
    "RowLosses",
    "RowTerms",
    "Traced",
    "Traces",
    "WrittenRows",
    "check_forward_writes_nothing",
    "check_row_losses",
    "check_row_separable",
    "check_rows_have_gradients",
    "generator_states",
    "gradients_on",
    "in_double",
    "kinks",
    "layers_of",
    "never_moved",
    "no_checkpointing",
    "operations",
    "places",
    "saved_tensors",
    "seed_generators",
    "trace",
    "trace_gradient",
    "trace_values",
    "without_graph",
]
