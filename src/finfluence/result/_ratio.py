"""The interval of a ratio whose denominator is positive and known up to a factor."""

import numpy as np
from scipy.stats import norm


def ratio_interval(
    effect: np.ndarray, effect_se: np.ndarray, spread: np.ndarray, relative: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (se, lower, upper) of μ = effect/spread.

    The effect's error is additive, the spread's a factor k = exp(z·relative), so that μ keeps the effect's sign
    where the effect is certain. Distances are added in squares (the MOVER principle): a = z·effect_se/spread with
    |μ|(k − 1) on the side away from zero, with |μ|(1 − 1/k) on the side towards it.

    Parameters
    ----------
    relative : array
        Relative standard error of the spread.

    References
    ----------
    Zou and Donner, "Construction of confidence limits about effect measures" (2008), for the principle.

    Examples
    --------
    >>> one = np.ones(1)
    >>> se, lower, upper = ratio_interval(2 * one, 0 * one, one, 0.5 * one)
    >>> [float(v[0].round(3)) for v in (se, lower, upper)]
    [1.0, 0.751, 5.329]
    """
    z = norm.ppf((1 + level) / 2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # no spread: no finite μ
        mu = effect / spread
        additive = z * effect_se / spread
        factor = np.exp(z * relative)
        away = np.hypot(additive, np.abs(mu) * (factor - 1))
        towards = np.hypot(additive, np.abs(mu) * (1 - 1 / factor))
        se = np.hypot(effect_se / spread, mu * relative)
        lower = mu - np.where(mu > 0, towards, away)
        upper = mu + np.where(mu > 0, away, towards)
    return se, lower, upper
