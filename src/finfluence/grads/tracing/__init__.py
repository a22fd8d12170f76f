"""Derivatives traced into flat graphs, and the rewrites that make them fast."""

from finfluence.grads.tracing._short_rows import split_short_rows
from finfluence.grads.tracing._softmax import split_log_softmax
from finfluence.grads.tracing._trace import Traced, trace
from finfluence.grads.tracing._trace_gradient import trace_gradient, trace_values
from finfluence.grads.tracing._traces import Graphs, Traces

__all__ = [
    "Graphs",
    "Traced",
    "Traces",
    "split_log_softmax",
    "split_short_rows",
    "trace",
    "trace_gradient",
    "trace_values",
]
