"""The level at which pointwise Clopper-Pearson bounds of an empirical law hold at all values at once."""

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, gammaln


@lru_cache(maxsize=256)
def local_error(n: int, error: float) -> float:
    r"""Return the pointwise error under which all order statistics stay in their beta bounds but for `error`.

    .. math:: P\big(B_i^{-1}(\gamma/2) \le U_{(i)} \le B_i^{-1}(1-\gamma/2)\ \forall i\big) = 1 - \text{error},
              \quad B_i = \mathrm{Beta}(i, n+1-i)

    Exact, by the Markov chain of counts between the bounds: O(n^2) per trial value, about ten of them.

    Returns
    -------
    float

    References
    ----------
    Owen, "Nonparametric likelihood confidence bands for a distribution function" (1995); Khmaladze and
    Shinjikashvili (2001) for the recursion.

    Examples
    --------
    >>> round(local_error(1, 0.05), 4), round(local_error(50, 0.05), 4)
    (0.05, 0.003)
    """
    if n == 1:
        return error
    log_error = brentq(
        lambda log: inside(n, math.exp(log)) - (1.0 - error),
        math.log(error / (4.0 * n)),
        math.log(error),
        xtol=1e-4,
    )
    return math.exp(log_error - 1e-4)  # rounded towards more coverage


def inside(n: int, gamma: float) -> float:
    """Return the chance that n sorted uniforms all lie within their beta bounds at pointwise error gamma."""
    rank = np.arange(1, n + 1)
    lower, upper = betaincinv(rank, n + 1 - rank, gamma / 2), betaincinv(rank, n + 1 - rank, 1 - gamma / 2)
    # at `upper_i` at least i have come, at `lower_i` at most i - 1; between them counts move as a Poisson process
    times = np.concatenate([lower, upper])
    order = np.argsort(times, kind="stable")
    log_factorial = gammaln(np.arange(n + 2.0) + 1.0)
    first, chance, now = 0, np.ones(1), 0.0
    for index in order:
        mean = n * (times[index] - now)
        now = times[index]
        room = n - first if index >= n else min(n, int(index)) - first
        if room < 0:
            return 0.0
        # a jump larger than the mean by twelve standard deviations has no chance that a float64 could tell
        span = min(room, int(mean + 12.0 * math.sqrt(mean)) + 20)
        k = np.arange(span + 1)
        step = np.exp(k * math.log(mean) - mean - log_factorial[: span + 1]) if mean > 0 else (k == 0) * 1.0
        chance = np.convolve(chance, step)[: room + 1]
        if index >= n:  # an upper bound of rank i = index - n + 1 passed: fewer than i is a breach
            drop = max(int(index) - n + 1 - first, 0)
            chance, first = chance[drop:], first + drop
        if chance.size == 0:
            return 0.0
    left = n - first - np.arange(chance.size)
    rest = n * (1.0 - now)
    tail = np.exp(left * math.log(rest) - rest - log_factorial[left]) if rest > 0 else (left == 0) * 1.0
    return float((chance * tail).sum() / math.exp(n * math.log(n) - n - log_factorial[n]))
