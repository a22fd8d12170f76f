"""Gradients of rows multiplied with those of queries at one set of parameters, and their norms."""

from finfluence.estimators.gradient_products._row_products import (
    RowProducts,
    SourceOfRows,
    gradient_bytes,
    row_norms,
    row_products,
)

__all__ = ["RowProducts", "SourceOfRows", "gradient_bytes", "row_norms", "row_products"]
