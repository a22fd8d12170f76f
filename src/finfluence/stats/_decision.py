"""Which rows are named: one rule for any number of tests, called by everything that names rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats._multiplicity import Direction, check_fdr, empirical_fdr


@dataclass(frozen=True, eq=False)
class RowTest:
    """One question about every row: values held against their own bulk, or q-values that are known.

    Parameters
    ----------
    name : str
        Opens the test's findings where there are several tests.
    harm : array [n], optional
        Values oriented so that **positive is harmful**: μ times the query's sign, for rows that are removed.
    p_values : array [n], optional
        Two-sided p-values of `harm`, where it is too few for an empirical null; NaN counts as 1.
    q_values : array [n], optional
        Known q-values, in place of those by `harm`.
    direction : {"harmful", "helpful", "both"}
        The side that is named.
    findings : tuple of str
        What qualifies known q-values.
    own_level : bool
        Whether what the test names is a list of its own, which keeps the rate by itself and pays for no other test.
    """

    name: str
    harm: ArrayLike | None = None
    p_values: ArrayLike | None = None
    q_values: ArrayLike | None = None
    direction: Direction = "harmful"
    findings: tuple[str, ...] = ()
    own_level: bool = False


@dataclass(frozen=True, eq=False)
class Named:
    """Which rows are named, by which test, at which rate of false names.

    Attributes
    ----------
    q_each : array [V, n]
        q-values of each test alone.
    tests : int
        V, the number of tests that are paid for.
    fdr : float
        Expected share of false names among the named rows.
    thresholds : tuple of float [V]
        Least value on the named side among the rows that the test names; NaN where it names none or has no values.
    findings : tuple of str
        Sentences that qualify the answer.
    factors : tuple of int [V]
        What each test's q-values are multiplied by: V, or 1 where the test has a level of its own.
    """

    q_each: np.ndarray
    tests: int
    fdr: float
    thresholds: tuple[float, ...]
    findings: tuple[str, ...]
    factors: tuple[int, ...]

    @property
    def q_values(self) -> np.ndarray:
        """Least rate at which any test names the row: q = min(1, min_v F_v q_v) [n], F the factors."""
        least: np.ndarray = self._paid.min(axis=0)
        return least

    @property
    def flagged(self) -> np.ndarray:
        """Whether each row is named [n]."""
        return self.q_values <= self.fdr

    @property
    def flagged_by(self) -> np.ndarray:
        """Whether each test names each row [V, n]."""
        return self._paid <= self.fdr

    @property
    def _paid(self) -> np.ndarray:
        paid: np.ndarray = np.minimum(np.asarray(self.factors)[:, None] * self.q_each, 1.0)
        return paid


def name_rows(tests: Sequence[RowTest], fdr: float = 0.1, *, paid: int | None = None) -> Named:
    r"""Name the rows that any of V tests can tell from training noise, at one rate of false names for all.

    .. math:: q_i = \min(1,\ V \min_v q_{i,v}), \quad \text{named} = \{i : q_i \le \mathrm{fdr}\}

    so that the union of what the tests name keeps the level, whatever the dependence between them (Bonferroni over
    tests, each at fdr / V). A test with a level of its own (`RowTest.own_level`) is not multiplied by V: what it names
    keeps the level by itself, and so do the others together; all of them together then keep twice the level.

    Parameters
    ----------
    tests : sequence of RowTest
        Over the same rows in the same order.
    fdr : float
        Accepted share of false names among the named rows.
    paid : int, optional
        V where tests that are not given here count as well, such as those of further queries; else their number.

    Returns
    -------
    Named

    Raises
    ------
    ConfigError
        `fdr` is not between 0 and 1, or there is no test.
    DataError
        The tests are about different numbers of rows.

    Notes
    -----
    The q-values of values are those of `empirical_fdr`. An unknown p-value says nothing: it counts as 1.

    Examples
    --------
    >>> harm, p = np.r_[np.zeros(29), 9.0], np.r_[np.full(29, 0.9), 1e-9]
    >>> np.flatnonzero(name_rows([RowTest("held-out", harm, p)]).flagged).tolist()
    [29]
    >>> two = name_rows([RowTest("a", q_values=[0.04, 0.2]), RowTest("b", q_values=[0.06, 0.01])])
    >>> two.q_values.tolist(), two.flagged_by.tolist()
    ([0.08, 0.02], [[True, False], [False, True]])
    >>> apart = [RowTest("a", q_values=[0.04, 0.2]), RowTest("b", q_values=[0.06, 0.01], own_level=True)]
    >>> name_rows(apart).q_values.tolist()
    [0.06, 0.01]
    """
    check_fdr(fdr)
    if not tests:
        raise ConfigError(
            explain(
                "at least one test of the rows",
                "none",
                "no query was asked",
                "name a query, or pass the own losses",
            )
        )
    judged = [_judge(test, fdr) for test in tests]
    sizes = {test.name: q.size for test, (q, _) in zip(tests, judged, strict=True)}
    if len(set(sizes.values())) > 1:
        raise DataError(
            explain(
                "tests over the same rows",
                ", ".join(f"{size} in '{name}'" for name, size in sizes.items()),
                "values of different data, or of some rows only",
                "pass one value for each row, in the same order",
            )
        )
    findings = [
        text if len(tests) == 1 else f"{test.name}: {text}"
        for test, (_, texts) in zip(tests, judged, strict=True)
        for text in texts
    ]
    count = len(tests) if paid is None else paid
    factors = tuple(1 if test.own_level else count for test in tests)
    q_each = np.stack([q for q, _ in judged])
    named = Named(q_each, count, fdr, (), tuple(dict.fromkeys(findings)), factors)
    return replace(named, thresholds=tuple(map(_threshold, tests, named.flagged_by)))


def towards(harm: ArrayLike, direction: Direction) -> np.ndarray:
    """Return values so that larger is further on the named side: as they are, turned round, or without a sign."""
    value = np.asarray(harm, dtype=np.float64)
    return np.abs(value) if direction == "both" else value if direction == "harmful" else -value


def _judge(test: RowTest, fdr: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the q-values of one test [n], and what qualifies them."""
    if test.q_values is not None:
        return np.asarray(test.q_values, dtype=np.float64).ravel(), test.findings
    harm = np.zeros(0) if test.harm is None else np.asarray(test.harm, dtype=np.float64).ravel()
    p_values = None if test.p_values is None else np.nan_to_num(np.asarray(test.p_values, float), nan=1.0)
    found = empirical_fdr(harm, fdr=fdr, direction=test.direction, p_values=p_values)
    return found.q_values, (*found.findings, *test.findings)


def _threshold(test: RowTest, named: np.ndarray) -> float:
    if test.harm is None or not named.any():
        return float("nan")
    return float(towards(test.harm, test.direction).ravel()[named].min())
