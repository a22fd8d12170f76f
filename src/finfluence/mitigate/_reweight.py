"""Weights instead of deletion: how much of a row to keep, by the chance that it is harmful."""

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats import numbers


def reweight(chance_harmful: ArrayLike, *, floor: float = 0.0) -> np.ndarray:
    r"""Return a weight for each row: the chance that it is *not* harmful, :math:`w_i = \max(1 - p_i, \text{floor})`.

    Under weights 1 − p a row counts as often as it would on average over files drawn from the posterior, each cleaned
    of what is wrong in it. Dropping named rows is the same with p rounded to 0 or 1. NaN (nothing known) keeps the
    whole row.

    Parameters
    ----------
    chance_harmful : array [n]
        `p_wrong` of a scan, or `sign_error`'s complement for harmful rows.
    floor : float
        Smallest weight.

    Returns
    -------
    array [n]
        In [floor, 1].

    Raises
    ------
    DataError
        A chance outside [0, 1].
    ConfigError
        A floor outside [0, 1].

    Examples
    --------
    >>> reweight([0.0, 0.25, 1.0, float("nan")]).tolist()
    [1.0, 0.75, 0.0, 1.0]
    """
    if not 0.0 <= floor <= 1.0:
        raise ConfigError(
            explain("floor between 0 and 1", f"{floor!r}", "a weight in percent", "write 0.1 for a tenth")
        )
    p = np.nan_to_num(numbers(chance_harmful, "chances"), nan=0.0, posinf=np.inf, neginf=-np.inf)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise DataError(
            explain(
                "one chance between 0 and 1 for each row",
                f"shape {p.shape}, from {p.min(initial=0):.4g} to {p.max(initial=0):.4g}",
                "scores or effects where chances belong",
                "take p_wrong of influence.parquet",
            )
        )
    return np.maximum(1.0 - p, floor)
