"""The published threshold scan, offered for comparison: biased away from zero."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from finfluence.stats._checks import pair
from finfluence.stats._samples import counts_below


def max_scan(
    with_rows: ArrayLike, without_rows: ArrayLike, *, trim: float = 0.0, smoothing: float = 0.0
) -> np.ndarray:
    r"""Estimate mu by the published threshold scan: the implied mu of largest magnitude. Biased away from 0.

    .. math:: \mu_\tau = \Phi^{-1}(1 - \alpha_\tau) - \Phi^{-1}(\beta_\tau), \quad
              \alpha_\tau = P(X > \tau),\ \beta_\tau = P(Y \le \tau)

    Parameters
    ----------
    with_rows, without_rows
        Samples along the last axis; leading axes broadcast, one pair of samples each.
    trim
        Use only thresholds whose alpha and beta both lie in [trim, 1 - trim].
    smoothing
        Counts added to each of the two outcomes of each rate (one half is usual). With 0, thresholds with
        a rate of exactly 0 or 1 are left out, for their mu is infinite.

    Returns
    -------
    ndarray
        One signed mu per pair. Where no threshold is left, the pair is scanned again without trimming and
        with one half added to each count.

    Notes
    -----
    **Biased**: the largest of many noisy values. Mean absolute answer without any influence:

    ==========  ==========  =================  ============
    n per arm   max_scan    trim=0.05          auc_probit
    ==========  ==========  =================  ============
    20          0.87        0.87               0.26
    100         0.62        0.43               0.12
    500         0.51        0.21               0.05
    2,000       0.44        0.11               0.03
    ==========  ==========  =================  ============

    With a true mu of 0.5 and n = 100 it returns 0.95 (0.79 trimmed), `auc_probit` 0.50. Where the rows change
    the spread more than the mean, its sign is arbitrary (`departure`). Offered to compare with the publication.

    References
    ----------
    f-influence, arXiv 2510.10510, stage 2 of the single-run algorithm.

    Examples
    --------
    >>> round(float(max_scan([0.0, 1.0, 2.0, 3.0], [1.5, 2.5, 3.5, 4.5])), 4)
    1.349
    """
    x, y = pair(with_rows, without_rows)
    n, m = x.shape[-1], y.shape[-1]
    below_x, below_y, distinct = counts_below(x, y)
    answer, found = _scan(below_x, below_y, distinct, n, m, trim, smoothing)
    if not np.all(found):
        wide, any_left = _scan(below_x, below_y, distinct, n, m, 0.0, smoothing or 0.5)
        answer = np.where(found, answer, np.where(any_left, wide, 0.0))
    return answer


def _scan(
    below_x: np.ndarray,
    below_y: np.ndarray,
    distinct: np.ndarray,
    n: int,
    m: int,
    trim: float,
    smoothing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mu of largest magnitude over admissible thresholds, and whether there was any."""
    specificity = (np.arange(n + 1) + smoothing) / (n + 2 * smoothing)  # 1 - alpha by count
    miss = (np.arange(m + 1) + smoothing) / (m + 2 * smoothing)
    usable_x = (specificity > 0) & (specificity < 1) & (specificity >= trim) & (specificity <= 1 - trim)
    usable_y = (miss > 0) & (miss < 1) & (miss >= trim) & (miss <= 1 - trim)
    probit_x = np.where(usable_x, ndtri(np.where(usable_x, specificity, 0.5)), 0.0)
    probit_y = np.where(usable_y, ndtri(np.where(usable_y, miss, 0.5)), 0.0)
    usable = distinct & usable_x[below_x] & usable_y[below_y]
    mu = np.where(usable, probit_x[below_x] - probit_y[below_y], 0.0)
    best = np.argmax(np.abs(mu), axis=-1)[..., None]
    return np.take_along_axis(mu, best, axis=-1)[..., 0], usable.any(axis=-1)
