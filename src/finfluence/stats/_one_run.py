"""Audits from a single training run with many canaries, each included by a fair coin."""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import bdtr, bdtrc, expit, ndtr, ndtri

from finfluence.errors import DataError, explain
from finfluence.stats._certificates import Certificate
from finfluence.stats._checks import check_count, check_level

_MOST_MU, _MOST_EPSILON = 40.0, 60.0


def certify_one_run(canaries: int, guesses: int, correct: int, *, level: float = 0.95) -> Certificate:
    r"""Certify mu from one run: the largest Gaussian curve that the number of right guesses rejects.

    .. math:: b(x) = \Phi(\Phi^{-1}(x) - \mu), \quad
              \text{reject } G_\mu \text{ if } r + h > \text{guesses}/\text{canaries}

    r and h are the chances of a right and a wrong guess that the recursion of the reference allows.

    Parameters
    ----------
    canaries
        Rows that a fair coin put in or left out.
    guesses
        For how many of them a guess was made; the others were passed over.
    correct
        How many guesses were right.
    level
        Chance that the bound is true.

    Returns
    -------
    Certificate
        The bound is on the *worst* canary's mu: it averages over canaries, and says nothing of one given
        row. The estimate beside it is the naive 2 * probit(correct / guesses).

    Notes
    -----
    Choosing how many to guess after seeing the answers needs a split or a Bonferroni correction.

    References
    ----------
    Mahloujifar, Melis and Chaudhuri, "Auditing f-differential privacy in one run" (2024).

    Examples
    --------
    >>> print(certify_one_run(1000, 1000, 700))
    |mu| >= 0.357 certified at 95% (one-run f-DP audit, 1000 canaries); estimate 1.05
    """
    _check_counts(canaries, guesses, correct, level)
    bound = _largest(lambda mu: _rejects(mu, canaries, guesses, correct, 1.0 - level), _MOST_MU)
    naive = 2.0 * float(ndtri(_share(guesses, correct)))
    return Certificate(bound, naive, level, 0, "|mu|", f"one-run f-DP audit, {canaries} canaries")


def certify_one_run_epsilon(
    canaries: int, guesses: int, correct: int, *, delta: float = 0.0, level: float = 0.95
) -> Certificate:
    r"""Certify epsilon from one run: the largest (epsilon, delta) that the number of right guesses rejects.

    .. math:: p(\varepsilon) = P[B \ge v] + 2 m \delta \max_{1 \le i \le v} \frac{P[v > B \ge v - i]}{i},
              \quad B \sim \mathrm{Bin}\big(r, \tfrac{e^\varepsilon}{1 + e^\varepsilon}\big)

    for v of r guesses right among m canaries.

    Parameters
    ----------
    canaries, guesses, correct
        As in `certify_one_run`.
    delta
        The delta of (epsilon, delta), at least 0 and below 1.
    level
        Chance that the bound is true.

    Returns
    -------
    Certificate
        Beside the naive estimate log(correct / wrong).

    Raises
    ------
    DataError
        A count is impossible, or delta is outside [0, 1).

    References
    ----------
    Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run" (2023).

    Examples
    --------
    >>> print(certify_one_run_epsilon(1000, 100, 95, delta=1e-5))
    epsilon >= 2.17 certified at 95% (one-run audit, delta=1e-05, 1000 canaries); estimate 2.94
    """
    _check_counts(canaries, guesses, correct, level)
    if not 0.0 <= delta < 1.0:
        raise DataError(
            explain(
                "delta of at least 0 and below 1",
                f"{delta!r}",
                "delta and epsilon exchanged",
                "pass delta=1e-5, or leave it at 0",
            )
        )
    bound = _largest(lambda e: _chance(e, canaries, guesses, correct, delta) <= 1.0 - level, _MOST_EPSILON)
    share = _share(guesses, correct)
    naive = math.log(share / (1.0 - share))
    return Certificate(
        bound, naive, level, 0, "epsilon", f"one-run audit, delta={delta:g}, {canaries} canaries"
    )


def _rejects(mu: float, m: int, n: int, c: int, error: float) -> bool:
    right, wrong = error * c / m, error * (n - c) / m
    for i in range(c - 1, -1, -1):
        raised = max(wrong, float(ndtr(ndtri(right) - mu)))
        if raised == wrong:
            break
        right = min(1.0, right + i / (n - i) * (raised - wrong))
        wrong = raised
    return right + wrong > n / m


def _chance(epsilon: float, m: int, r: int, v: int, delta: float) -> float:
    """Largest chance of v or more right guesses under (epsilon, delta)."""
    p = float(expit(epsilon))
    at_least = float(bdtrc(v - 1, r, p)) if v > 0 else 1.0
    if delta > 0.0 and v > 0:
        lost = np.arange(1, v + 1)
        below = bdtr(v - 1, r, p) - np.where(v - lost > 0, bdtr(np.maximum(v - lost - 1, 0), r, p), 0.0)
        at_least += 2.0 * m * delta * float((below / lost).max())
    return min(at_least, 1.0)


def _largest(rejected: Callable[[float], bool], most: float) -> float:
    """Return the largest rejected value by bisection, rounded down; 0 if nothing is rejected."""
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and rejected(high):
        low, high = high, 2.0 * high
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def _share(guesses: int, correct: int) -> float:
    """Share of right guesses; one half added to both outcomes where one never happened."""
    half = 0.5 if correct in (0, guesses) else 0.0
    return (correct + half) / (guesses + 2 * half)


def _check_counts(canaries: int, guesses: int, correct: int, level: float) -> None:
    check_level(level)
    for name, count in (("canaries", canaries), ("guesses", guesses)):
        check_count(name, count, 1)
    if not (guesses <= canaries and 0 <= correct <= guesses and correct == int(correct)):
        raise DataError(
            explain(
                "correct <= guesses <= canaries",
                f"{correct!r} correct of {guesses!r} guesses for {canaries!r} canaries",
                "the counts are in another order, or a rate was passed",
                "pass three counts: canaries, guesses, correct",
            )
        )
