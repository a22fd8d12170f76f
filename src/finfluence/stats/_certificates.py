"""Certificates: lower bounds on |mu| that hold at a stated level for any two laws and any n."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtr, ndtri

from finfluence._seeds import stream
from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats._checks import check_count, check_level, one_pair
from finfluence.stats._samples import auc_probit

Side = Literal["both", "larger", "smaller"]

# Ranks of the scan; 3 to 11 were tried at n = 20 to 500 and mu = 0.5 to 3 (docs/explanation/statistics.md).
_SCANNED = 5


@dataclass(frozen=True)
class Certificate:
    """A lower bound that holds at its level, beside the estimate from the same data.

    Attributes
    ----------
    bound
        Certified lower bound on |mu| (or epsilon), never negative; 0 certifies nothing.
    estimate
        The plain estimate from the same data. Certificates are much weaker: always show both.
    level
        Chance that the bound is true, whatever the laws.
    direction
        1: the certified test rejects large values (the statistic is larger without the rows); -1: small
        ones; 0: nothing certified, or the audit has no direction.
    quantity
        "|mu|" or "epsilon".
    kind
        How it was made.
    """

    bound: float
    estimate: float
    level: float
    direction: int
    quantity: str
    kind: str

    def __str__(self) -> str:
        return (
            f"{self.quantity} >= {self.bound:.3g} certified at {self.level:.0%} ({self.kind}); "
            f"estimate {self.estimate:.3g}"
        )


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, tail: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return exact lower and upper bounds of a probability, each wrong with at most the chance `tail`.

    .. math:: \left[B^{-1}(t;\, k,\, n-k+1),\ B^{-1}(1-t;\, k+1,\, n-k)\right]

    Parameters
    ----------
    successes, trials
        Counts k of n, elementwise.
    tail
        Chance of each bound to fail; 0.025 gives a 95 % interval.

    Returns
    -------
    tuple of ndarray
        0 at k = 0, and 1 at k = n.

    References
    ----------
    Clopper and Pearson (1934).

    Examples
    --------
    >>> low, high = clopper_pearson(10, 1000, 0.025)
    >>> round(float(high), 6)
    0.018313
    """
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(trials, dtype=float))
    lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1.0 - tail), 1.0)
    return lower, upper


def certify_counts(
    false_alarms: int, with_runs: int, misses: int, without_runs: int, *, level: float = 0.95, tests: int = 1
) -> Certificate:
    r"""Certify |mu| from the two error counts of one test, by Clopper-Pearson.

    .. math:: |\mu| \ge \Phi^{-1}(1-\bar\alpha) - \Phi^{-1}(\bar\beta)

    with upper bounds of both rates at (1 - level)/2 each.

    Parameters
    ----------
    false_alarms, with_runs
        Runs with the rows in which the test said "removed", of how many.
    misses, without_runs
        Runs without the rows in which it did not, of how many.
    level
        Chance that the bound is true.
    tests
        Number of tests of which this is the best: their number divides the allowed error (Bonferroni).

    Returns
    -------
    Certificate
        Its estimate is the plug-in of the two rates (one half added to each count where one is 0 or 1).

    Raises
    ------
    DataError
        A count is negative, or larger than its runs.

    References
    ----------
    Nasr et al., "Tight auditing of differentially private machine learning" (2023).

    Examples
    --------
    >>> print(certify_counts(10, 1000, 700, 1000))
    |mu| >= 1.48 certified at 95% (Clopper-Pearson); estimate 1.8
    """
    check_level(level)
    check_count("tests", tests, 1)
    for name, count, whole in (("false_alarms", false_alarms, with_runs), ("misses", misses, without_runs)):
        check_count("the number of runs", whole, 1)
        if count != int(count) or not 0 <= count <= whole:
            raise DataError(
                explain(
                    f"{name} between 0 and the {whole} runs",
                    f"{count!r}",
                    "a rate where a count belongs, or counts of the other sample",
                    "pass how many runs, not which share of them",
                )
            )
    half = 0.5 if {false_alarms, misses} & {0} or false_alarms == with_runs or misses == without_runs else 0.0
    rates = (false_alarms + half) / (with_runs + 2 * half), (misses + half) / (without_runs + 2 * half)
    bound = float(_implied([false_alarms], with_runs, [misses], without_runs, (1.0 - level) / tests)[0])
    kind = "Clopper-Pearson" if tests == 1 else f"Clopper-Pearson, best of {tests} tests"
    estimate = float(ndtri(1.0 - rates[0]) - ndtri(rates[1]))
    return Certificate(max(bound, 0.0), estimate, level, int(bound > 0.0), "|mu|", kind)


def certify(
    with_rows: ArrayLike,
    without_rows: ArrayLike,
    *,
    thresholds: Literal["scan", "split"] | float | Sequence[float] = "scan",
    side: Side = "both",
    level: float = 0.95,
    seed: int = 0,
) -> Certificate:
    r"""Certify |mu| from two samples: the best Clopper-Pearson bound over honestly chosen thresholds.

    .. math:: |\mu| \ge \max_\tau\ \Phi^{-1}(1-\bar\alpha_\tau) - \Phi^{-1}(\bar\beta_\tau)

    Parameters
    ----------
    with_rows, without_rows
        One-dimensional samples of at least two (to split: four) values.
    thresholds
        "scan": five fixed ranks of the sample with the rows, the allowed error divided among them;
        "split": a random half chooses the threshold and the side, the other half certifies; or thresholds
        known **before** these data were seen, the allowed error divided among them.
    side
        "larger": only tests that reject large values (mu > 0); "smaller": only small ones; "both" (default)
        pays for looking both ways.
    level
        Chance that the bound is true.
    seed
        Names the stream that splits; used by "split" alone.

    Returns
    -------
    Certificate
        With `auc_probit` as its estimate.

    Notes
    -----
    Valid for any two laws, ties included: the bound says that no curve G_m with |m| < bound lies below the
    true one everywhere. The rank of a threshold is fixed in advance, so the false-alarm rate there has a
    known beta law, and given the first sample the miss count is binomial: no peeking. "scan" was the stronger
    of the two at every size tried (docs/explanation/statistics.md).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> print(certify(rng.normal(size=200), rng.normal(size=200) + 2))
    |mu| >= 1.39 certified at 95% (Clopper-Pearson, 5 thresholds scanned); estimate 1.96
    """
    check_level(level)
    _check_side(side)
    x, y = one_pair(with_rows, without_rows, least=4 if thresholds == "split" else 2)
    estimate = float(auc_probit(x, y))
    sides = {"both": (1, -1), "larger": (1,), "smaller": (-1,)}[side]
    error = 1.0 - level
    if thresholds == "scan":
        kind = f"Clopper-Pearson, {_SCANNED} thresholds scanned"
        found = [(_scan(s * x, s * y, error / (_SCANNED * len(sides))), s) for s in sides]
    elif thresholds == "split":
        kind = "Clopper-Pearson, threshold chosen on half of the runs"
        found = [_split(x, y, sides, error, stream(seed, "certificate"))]
    else:
        given = _finite_thresholds(thresholds)
        kind = f"Clopper-Pearson, {given.size} given threshold{'s' * (given.size > 1)}"
        found = [(_at(s * x, s * y, s * given, error / (given.size * len(sides))), s) for s in sides]
    bound, direction = max(found)
    return Certificate(max(bound, 0.0), estimate, level, direction if bound > 0 else 0, "|mu|", kind)


def _implied(alarms: ArrayLike, n: int, misses: ArrayLike, m: int, error: float) -> np.ndarray:
    """Return the mu implied by upper bounds of both rates; minus infinity where one says nothing."""
    alpha, beta = clopper_pearson(alarms, n, error / 2)[1], clopper_pearson(misses, m, error / 2)[1]
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(-ndtri(alpha) - ndtri(beta), nan=-np.inf)


def _scan(x: np.ndarray, y: np.ndarray, error: float) -> float:
    """Return the best bound over thresholds at fixed ranks of x; a rank counts as if there were no ties."""
    n = x.size
    shares = ndtr(np.linspace(-1.5, 1.5, _SCANNED))
    ranks = np.unique(np.clip(np.round(shares * (n + 1)), 1, n).astype(int))
    taus = np.sort(x)[ranks - 1]
    misses = np.searchsorted(np.sort(y), taus, side="right")
    return float(_implied(n - ranks, n, misses, y.size, error).max())


def _at(x: np.ndarray, y: np.ndarray, taus: np.ndarray, error: float) -> float:
    alarms = x.size - np.searchsorted(np.sort(x), taus, side="right")
    misses = np.searchsorted(np.sort(y), taus, side="right")
    return float(_implied(alarms, x.size, misses, y.size, error).max())


def _split(
    x: np.ndarray, y: np.ndarray, sides: tuple[int, ...], error: float, rng: np.random.Generator
) -> tuple[float, int]:
    x, y = rng.permutation(x), rng.permutation(y)
    (x0, x1), (y0, y1) = np.array_split(x, 2), np.array_split(y, 2)
    taus = np.unique(np.concatenate([x0, y0]))
    scores = [(_at(s * x0, s * y0, np.array([s * tau]), error), s, tau) for s in sides for tau in taus]
    _, side, tau = max(scores)
    return _at(side * x1, side * y1, np.array([side * tau]), error), side


def _finite_thresholds(thresholds: object) -> np.ndarray:
    try:
        given = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    except (TypeError, ValueError):
        given = np.array([])
    if given.size == 0 or not np.isfinite(given).all():
        raise ConfigError(
            explain(
                'thresholds to be "scan", "split", or finite numbers',
                f"{thresholds!r}",
                "a misspelt option, or a threshold of NaN",
                'leave thresholds="scan" unless you fixed some before seeing the data',
            )
        )
    return given


def _check_side(side: str) -> None:
    if side not in get_args(Side):
        raise ConfigError(
            explain(
                f"side to be one of {', '.join(get_args(Side))}",
                f"{side!r}",
                "a misspelt option",
                'leave side="both" unless the direction was known before the runs',
            )
        )
