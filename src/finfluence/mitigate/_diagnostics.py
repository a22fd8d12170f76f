"""What the singular values of features tell of the encoder that made them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import DataError, explain
from finfluence.stats import numbers


@dataclass(frozen=True)
class Spectrum:
    r"""Singular values of a feature matrix, and two summaries.

    Attributes
    ----------
    values : array
        Singular values, largest first.
    entropy : float
        Singular value entropy, :math:`-\sum_k p_k \log p_k` with :math:`p = \sigma/\sum\sigma`, in nats. Small
        pre-training noise raises it.
    dominance : float
        Largest singular value ratio, :math:`-\log(\sigma_1/\sum\sigma)`, in nats. It grows with pre-training
        noise, and with it the loss of accuracy out of domain.
    """

    values: np.ndarray
    entropy: float
    dominance: float


def spectrum(features: ArrayLike) -> Spectrum:
    """Return the spectrum of features (rows × dimensions), not centred.

    Returns
    -------
    Spectrum

    Raises
    ------
    DataError
        Not a matrix, not finite, or all zero.

    References
    ----------
    Chen et al., "Understanding and mitigating the label noise in pre-training on downstream tasks" (ICLR 2024,
    arXiv 2309.17002), section 2.3.

    Examples
    --------
    >>> found = spectrum([[1, 0.5, 0], [0, 2, 0.5], [0.5, 0, 2], [1, 1, 2]])
    >>> round(found.entropy, 6), round(found.dominance, 6)
    (0.986005, 0.612591)
    """
    values = np.linalg.svd(feature_matrix(features), compute_uv=False)
    total = values.sum()
    if total == 0:
        raise DataError(
            explain(
                "features that are not all zero",
                f"{len(values)} singular values of zero",
                "an encoder that is dead, or the wrong layer's output",
                "look at the features; take another layer",
            )
        )
    share = values[values > 0] / total
    return Spectrum(values, float(-(share * np.log(share)).sum()), float(-np.log(values[0] / total)))


def feature_matrix(features: ArrayLike, name: str = "features") -> np.ndarray:
    """Return features as float64 [rows, dimensions] after checking them.

    Returns
    -------
    array

    Raises
    ------
    DataError
        Not a matrix, or not finite.
    """
    matrix = numbers(features, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(
            explain(
                f"{name} as rows × dimensions",
                f"an array of shape {matrix.shape}",
                "one row alone, or feature maps that were not pooled",
                "flatten or average to one vector a row",
            )
        )
    bad = np.flatnonzero(~np.isfinite(matrix).all(1))
    if len(bad):
        raise DataError(
            explain(
                f"finite {name}",
                f"{len(bad)} of {len(matrix)} rows with NaN or infinity, the first is row {bad[0]}",
                "an encoder that overflowed, or missing cells",
                "leave the rows out, or encode them in float32",
            )
        )
    return matrix
