"""The Gaussian curve that many small pairs tend to, with its error."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import TradeOff, as_count, as_level
from finfluence.tradeoff._gaussian import Gaussian

_BERRY_ESSEEN = 0.56  # Shevtsova (2010), sums of different terms


class CentralLimit(NamedTuple):
    r"""Gaussian limit of a composition: its `mu`, and the `error` gamma of the curve.

    .. math:: G_\mu(\alpha+\gamma)-\gamma \le f(\alpha) \le G_\mu(\alpha-\gamma)+\gamma
    """

    mu: float
    error: float

    @property
    def curve(self) -> Gaussian:
        """The limit as a curve."""
        return Gaussian(self.mu)

    def band(self, alpha: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return lower bound, estimate and upper bound of the composed curve at `alpha`."""
        level = as_level(alpha)
        inside = np.clip([level + self.error, level, level - self.error], 0.0, 1.0)
        low, middle, high = np.asarray(self.curve(inside))
        low = np.where(level + self.error < 1.0, np.maximum(low - self.error, 0.0), 0.0)
        high = np.where(level > self.error, np.minimum(high + self.error, 1.0 - level), 1.0 - level)
        return low, middle, high


def central_limit(curves: Sequence[TradeOff], counts: Sequence[int] | None = None) -> CentralLimit:
    r"""Return the Gaussian limit of a composition and how far the composed curve can be from it.

    .. math:: \mu = \frac{2\sum kl}{\sqrt{\sum(\kappa_2 - kl^2)}}, \qquad
              \gamma = 0.56\,\frac{\sum\bar\kappa_3}{(\sum(\kappa_2 - kl^2))^{3/2}}

    for symmetric curves. In general it has mean :math:`m_P, m_Q` and deviation :math:`s_P, s_Q` under the two
    laws: :math:`\mu = 2(m_Q-m_P)/(s_P+s_Q)`, and the error is the larger Berry-Esseen bound plus the largest difference
    between :math:`\Phi((m_P-m_Q+s_P\Phi^{-1}(1-\alpha))/s_Q)` and the Gaussian curve.

    Parameters
    ----------
    curves : Sequence[TradeOff]
        The pairs, by their curves of best tests.
    counts : Sequence[int], optional
        Copies of each, one each if left out.

    Returns
    -------
    CentralLimit
        `error` of 1/2 or more says nothing.

    Raises
    ------
    ConfigError
        If a log ratio has no finite third moment or none of them varies.

    References
    ----------
    Dong, Roth and Su (2022), theorem 3.4; the error for unequal laws is our extension of its proof.

    Examples
    --------
    >>> limit = central_limit([Gaussian(0.1)], [100])
    >>> round(limit.mu, 12), round(limit.error, 4)
    (1.0, 0.0894)
    """
    numbers = [as_count(count) for count in (counts if counts is not None else [1] * len(curves))]
    totals = np.zeros((2, 3))
    for curve, count in zip(curves, numbers, strict=True):
        if count:
            for law, pair in enumerate((curve.optimal, curve.optimal.inverse())):
                m = pair.loss_moments()
                if not math.isfinite(m.kappa_3):
                    raise ConfigError(
                        explain(
                            "log-likelihood ratios with a finite third moment",
                            f"{curve!r}, infinite under {'PQ'[law]}",
                            "mass that only one of the two laws has, such as a delta above 0",
                            "compose numerically instead: `compose(curves, counts)`",
                        )
                    )
                totals[law] += count * np.array([m.kl, m.kappa_2 - m.kl**2, m.centred_3])
    if not np.all(totals[:, 1] > 0.0):
        raise ConfigError(
            explain(
                "log-likelihood ratios that vary",
                f"{len(curves)} curves whose log ratios are constant",
                "only perfect curves, or counts of zero",
                "use Perfect(): there is nothing to tell apart",
            )
        )
    spread = np.sqrt(totals[:, 1])
    mu = 2.0 * totals[:, 0].sum() / spread.sum()
    error = _BERRY_ESSEEN * float(np.max(totals[:, 2] / spread**3))
    if totals[0].tolist() != totals[1].tolist():
        z = np.linspace(-9.0, 9.0, 20_001)
        binormal = ndtr((spread[0] * z - totals[:, 0].sum()) / spread[1])
        error += float(np.max(np.abs(binormal - ndtr(z - mu))))
    return CentralLimit(float(mu), error)


def subsampled_limit(rate: float, count: int, mu: float) -> float:
    r"""Return :math:`p\sqrt{T}\sqrt{e^{\mu^2}-1}`: the limit of `count` subsampled Gaussian steps.

    Parameters
    ----------
    rate : float
        Probability p that a row takes part in a step.
    count : int
        Steps T.
    mu : float
        Effect over noise of one step, :math:`1/\sigma` for noise multiplier :math:`\sigma`.

    Returns
    -------
    float
        μ of the limiting Gaussian curve.

    References
    ----------
    Dong, Roth and Su (2022), corollary 5.4; the limit :math:`p\sqrt T` fixed, without an error bound.

    Examples
    --------
    >>> round(subsampled_limit(0.01, 10_000, 1.0), 6)
    1.310832
    """
    return float(as_level(rate, "rate")) * math.sqrt(as_count(count) * math.expm1(Gaussian(mu).mu ** 2))
