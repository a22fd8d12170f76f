"""How precise mu is after so many runs, and how many runs an asked precision needs."""

import math

from scipy.special import gammaln

from finfluence.errors import ConfigError, explain
from finfluence.stats._checks import check_count

_MOST = 10**9


def pooled_d_se(runs: int, mu: float = 0.0) -> float:
    r"""Return the exact standard error of the pooled d' for two normals of equal variance.

    .. math:: \mathrm{Var}(d') = \frac{2}{n}\left[\frac{\nu}{\nu-2}\,(1 + \lambda^2)
              - \frac{\nu}{2}\,\lambda^2\,\frac{\Gamma((\nu-1)/2)^2}{\Gamma(\nu/2)^2}\right],
              \quad \nu = 2n-2,\ \lambda = \mu\sqrt{n/2}

    Parameters
    ----------
    runs
        Values per sample (runs with the rows, and as many without), at least 3.
    mu
        True signed mu.

    Returns
    -------
    float
        In the unit of mu. Tends to sqrt(2/n + mu^2/(4n)).

    References
    ----------
    Hedges (1981), equations 6 to 8.

    Examples
    --------
    >>> round(pooled_d_se(20), 4), round((2 / 20) ** 0.5, 4)
    (0.3249, 0.3162)
    """
    check_count("runs", runs, 3)
    freedom = 2.0 * runs - 2.0
    shift = mu * math.sqrt(runs / 2.0)
    ratio = math.exp(2.0 * (gammaln((freedom - 1.0) / 2.0) - gammaln(freedom / 2.0))) * freedom / 2.0
    # var(t) = v/(v-2) + shift² (v/(v-2) - ratio); the second bracket is small and would cancel
    return math.sqrt(2.0 / runs * (freedom / (freedom - 2.0) + shift**2 * _excess(freedom, ratio)))


def runs_needed(se: float, mu: float = 0.0) -> int:
    r"""Return the least number of runs per sample for which the standard error of d' is at most `se`.

    .. math:: n \approx \frac{2 + \mu^2/4}{\mathrm{se}^2}, \text{ corrected for small } n

    Parameters
    ----------
    se
        Wanted standard error of mu.
    mu
        Expected size of mu; a larger one needs more runs.

    Returns
    -------
    int
        Runs with the rows, and as many without; at least 3.

    Raises
    ------
    ConfigError
        `se` is not a positive number, or `mu` not a finite one.

    Examples
    --------
    >>> runs_needed(0.2), runs_needed(0.1), runs_needed(0.1, mu=3.0)
    (52, 202, 427)
    """
    if not (math.isfinite(se) and se > 0.0 and math.isfinite(mu)):
        raise ConfigError(
            explain(
                "a positive standard error and a finite mu",
                f"se={se!r}, mu={mu!r}",
                "a precision of zero would need infinitely many runs",
                "ask for se=0.1 (about 200 runs each way), or se=0.2 (about 50)",
            )
        )
    low, high = 2, max(4, math.ceil((2.0 + mu**2 / 4.0) / se**2))
    while pooled_d_se(high, mu) > se:
        low, high = high, 2 * high
        if high > _MOST:
            raise ConfigError(
                explain(
                    f"a precision that {_MOST:,} runs reach",
                    f"se={se!r}",
                    "a standard error far below what retraining can give",
                    "ask for se=0.1 (about 200 runs each way), or se=0.2 (about 50)",
                )
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if pooled_d_se(middle, mu) <= se else (middle, high)
    return high


def _excess(freedom: float, ratio: float) -> float:
    """Return v/(v-2) - ratio, which tends to 1/(2v) and is taken from its series where digits would be lost."""
    if freedom < 1e4:
        return freedom / (freedom - 2.0) - ratio
    return 1.0 / (2.0 * freedom) + 15.0 / (8.0 * freedom**2)
