"""The three terms by which a head keeps, spreads and decorrelates the features of a frozen encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from finfluence.errors import DataError, explain

DOMINANT = 5
WEIGHTS = (1.0, 0.04, 0.001)


@dataclass(frozen=True)
class Terms:
    """Values of the three terms, and their weighted sum (1, 0.04 and 0.001)."""

    consistency: Tensor
    covariance: Tensor
    dominant: Tensor

    @property
    def total(self) -> Tensor:
        """Weighted sum."""
        return WEIGHTS[0] * self.consistency + WEIGHTS[1] * self.covariance + WEIGHTS[2] * self.dominant


def terms(features: Tensor, transformed: Tensor) -> Terms:
    """Return the three terms of NMTune for a batch.

    Parameters
    ----------
    features, transformed : Tensor [B, M]
        The encoder's output F (no gradient flows into it) and what the head made of it, Z.

    Returns
    -------
    Terms

    Raises
    ------
    DataError
        Two batches of different shapes, or fewer than two rows.

    References
    ----------
    Chen et al., arXiv 2309.17002, equations 3 to 6, and the authors' code.

    Examples
    --------
    >>> F = torch.tensor([[1, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 1.0]])
    >>> Z = torch.tensor([[1, 0.5, 0], [0, 2, 0.5], [0.5, 0, 2], [1, 1, 2.0]])
    >>> found = terms(F, Z)
    >>> [round(float(v), 5) for v in (found.consistency, found.covariance, found.dominant, found.total)]
    [0.03708, 0.10272, -0.33333, 0.04086]
    """
    if features.shape != transformed.shape or transformed.ndim != 2 or len(transformed) < 2:
        raise DataError(
            explain(
                "features and what a head made of them, both rows × dimensions, at least two rows",
                f"shapes {tuple(features.shape)} and {tuple(transformed.shape)}",
                "a batch of one row, or a head that changes the number of dimensions",
                "drop a last batch of one row; transform into as many dimensions",
            )
        )
    return Terms(consistency(features, transformed), covariance(transformed), dominant(transformed))


def consistency(features: Tensor, transformed: Tensor) -> Tensor:
    r"""Return the mean over all entries of :math:`(\hat z - \hat f)^2`, rows at unit length, F detached."""
    return functional.mse_loss(
        functional.normalize(transformed, dim=1), functional.normalize(features.detach(), dim=1)
    )


def covariance(transformed: Tensor) -> Tensor:
    r"""Return :math:`\frac1M \sum_{i\ne j} C_{ij}^2`, C the covariance of the batch with B − 1."""
    centred = transformed - transformed.mean(0)
    c = centred.T @ centred / (len(transformed) - 1)
    return (c.square().sum() - c.diagonal().square().sum()) / transformed.shape[1]


def dominant(transformed: Tensor) -> Tensor:
    """Return minus the mean of the five largest singular values of Z over the sum of all, Z not centred."""
    values = torch.linalg.svdvals(transformed)
    return -values[:DOMINANT].mean() / values.sum()
