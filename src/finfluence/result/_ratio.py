"""The interval of a ratio whose denominator is positive and known up to a factor."""

import numpy as np
from scipy.stats import norm, t

LINEAR_ERROR = 0.25
PAIRED_ERROR = 0.05
HORIZON_ERROR = 0.3
SPREAD_ERROR = 0.1


def ratio_interval(
    effect: np.ndarray,
    effect_se: np.ndarray,
    spread: np.ndarray,
    relative: np.ndarray,
    level: float = 0.95,
    *,
    df: np.ndarray | float = np.inf,
    model: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (se, lower, upper) of μ = effect/spread.

    The effect's error is additive, the spread's a factor k = exp(z·relative), so that μ keeps the effect's sign
    where the effect is certain. Distances are added in squares (the MOVER principle): t·effect_se/spread and
    z·model·|μ|, with |μ|(k − 1) on the side away from zero, with |μ|(1 − 1/k) on the side towards it.

    Parameters
    ----------
    relative : array
        Relative standard error of the spread.
    df : array
        Degrees of freedom of `effect_se`, for the quantile t.
    model : array
        Relative error of the effect that no sampling shows, such as that of linearisation.

    Returns
    -------
    tuple[array, array, array]

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
    tail = (1 + level) / 2
    z = norm.ppf(tail)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # no spread: no finite μ
        mu = effect / spread
        additive = np.hypot(_quantile(tail, df) * effect_se / spread, z * model * np.abs(mu))
        factor = np.exp(z * relative)
        away = np.hypot(additive, np.abs(mu) * (factor - 1))
        towards = np.hypot(additive, np.abs(mu) * (1 - 1 / factor))
        se = np.hypot(np.hypot(effect_se / spread, mu * relative), mu * model)
        lower = mu - np.where(mu > 0, towards, away)
        upper = mu + np.where(mu > 0, away, towards)
    return se, lower, upper


def _quantile(tail: float, df: np.ndarray | float) -> np.ndarray:
    """Return the t quantile for each degree of freedom; few of them differ."""
    different, where = np.unique(df, return_inverse=True)
    result: np.ndarray = t.ppf(tail, different)[where].reshape(np.shape(df))
    return result


def two_sided(effect: np.ndarray, effect_se: np.ndarray, df: np.ndarray | float = np.inf) -> np.ndarray:
    """Return the p-value of effect = 0 from a t of `df` degrees of freedom."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: np.ndarray = 2 * t.sf(np.abs(effect) / effect_se, df)
    return result


def without_spread(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return estimates with NaN for what is in units of the spread, and for p, where the spread is zero.

    A training without randomness gives two laws of one point each: no test between them says how sure one can be.

    Returns
    -------
    dict

    Examples
    --------
    >>> half = np.array([0.5, 0.5])
    >>> found = without_spread({"effect": half, "spread": np.array([0.0, 0.25]), "mu": np.array([np.inf, 2.0])})
    >>> found["effect"].tolist(), found["mu"].tolist()
    ([0.5, 0.5], [nan, 2.0])
    """
    none = values["spread"] == 0
    in_units = ("mu", "se", "lower", "upper", "p_value")
    return {name: np.where(none, np.nan, v) if name in in_units else v for name, v in values.items()}


def model_error(paired: np.ndarray, horizon: np.ndarray, epochs: int, measured: float = 0.0) -> np.ndarray:
    """Return the relative error [S, Q] of effects that comes from the estimate itself and not from sampling.

    Paired runs see every order of the removal: 0.05. A linear effect errs by 0.25, or by what pairs of the same result
    measure if that is more; a walk over h of E epochs leaves out part of it: 0.3·(E/h − 1) more, in squares.
    The figures are those of docs/explanation/intervals.md.

    Parameters
    ----------
    paired : array of bool [S]
    horizon : array [Q]
        h, the epochs walked for each query.

    Returns
    -------
    array
    """
    short = HORIZON_ERROR * (epochs / np.maximum(horizon, 1) - 1)
    linear = np.hypot(max(LINEAR_ERROR, measured), short)
    return np.where(paired[:, None], PAIRED_ERROR, linear[None, :])
