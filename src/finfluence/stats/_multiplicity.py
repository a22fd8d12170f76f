"""Which of many rows stand out: a false-discovery rate whose null law is learned from the rows."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats._null_tail import NullTail, centre_of, fit_null

Direction = Literal["harmful", "helpful", "both"]

FEWEST_ROWS = 50
_LEANING = 1.6


@dataclass(frozen=True)
class Discoveries:
    """Rows that stand out from the bulk, with the error rate of naming them.

    Attributes
    ----------
    q_values
        Per row, the smallest false-discovery rate at which it would be flagged. One is "cannot be told
        from the bulk".
    flagged
        `q_values <= fdr`. None flagged is a legitimate answer.
    fdr, direction
        What was asked: expected share of false names among the flagged rows, and the side looked at.
    threshold
        Least statistic (in absolute value, measured from zero, on the flagged side) among the flagged
        rows; NaN if none is flagged.
    centre, scale
        Centre of the bulk and its normal-equivalent standard deviation, in the unit of the statistic.
    null_proportion
        Estimated share of rows that belong to the bulk.
    method
        "mirror" (empirical null), "benjamini-yekutieli" (given p-values) or "none".
    findings
        Sentences that qualify the answer; empty if there is nothing to say.
    """

    q_values: np.ndarray
    flagged: np.ndarray
    fdr: float
    direction: Direction
    threshold: float
    centre: float
    scale: float
    null_proportion: float
    method: str
    findings: tuple[str, ...]


def empirical_fdr(
    statistic: ArrayLike,
    *,
    fdr: float = 0.1,
    direction: Direction = "harmful",
    p_values: ArrayLike | None = None,
) -> Discoveries:
    r"""Return q-values of rows against an empirical null: the mirror image of the opposite tail.

    .. math:: \widehat{\mathrm{FDP}}(t) =
              \frac{\#\{i : z_i - c \le -t\}^{*}}{\#\{i : z_i - c \ge t\}}, \quad
              q_i = \min_{t \le z_i - c} \widehat{\mathrm{FDP}}(t)

    The starred count is plus one inside the bulk, and continued beyond it by a generalised Pareto tail.

    Parameters
    ----------
    statistic
        One signed value per row, oriented so that **positive is harmful**: mu or z times the query's sign.
    fdr
        Accepted share of false names among the flagged rows.
    direction
        "harmful": large positive values; "helpful": large negative ones; "both": either, each side
        judged against the other.
    p_values
        Two-sided p-values per row. Used only where the null cannot be fitted (fewer than 50 rows, or a
        bulk without spread), by Benjamini-Yekutieli, which allows any dependence between rows.

    Returns
    -------
    Discoveries

    Raises
    ------
    ConfigError
        The level or the direction is unknown.
    DataError
        The p-values are not one per row, or outside [0, 1].

    Notes
    -----
    Assumes that rows which change nothing scatter symmetrically about the bulk's centre, with any shape:
    heavy tails, a sharp peak, a wrong scale and correlation that widens the bulk are all learned from the
    other side. Helpful rows make the answer careful, never bold: as many of them in the other tail hide
    the harmful ones, for that is what a heavy-tailed null looks like. A bulk that leans towards the asked
    side breaks the assumption; a finding says so if it leans strongly, a mild lean is invisible. A single
    row cannot be flagged alone at fdr = 0.1: the null's own tail is known no better than to a fifth of a
    row.

    O(n log n).

    References
    ----------
    Efron, "Large-scale simultaneous hypothesis testing" (2004); Barber and Candes, "Controlling the false
    discovery rate via knockoffs" (2015), for the mirrored count; Pickands (1975) for the tail.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = 3.0 * rng.laplace(size=1000)        # a bulk three times wider than theory says
    >>> int(empirical_fdr(z).flagged.sum())
    0
    >>> z[:50] += 40.0
    >>> found = empirical_fdr(z)
    >>> int(found.flagged[:50].sum()), int(found.flagged[50:].sum())
    (50, 2)
    """
    z = np.asarray(statistic, dtype=np.float64).ravel()
    check_fdr(fdr)
    _check_direction(direction)
    usable = np.isfinite(z)
    findings = []
    if not usable.all():
        findings.append(
            f"{int((~usable).sum())} of {z.size} rows have no finite statistic; they are never flagged."
        )
    q = np.ones(z.size)
    if direction == "both":
        sides: tuple[int, ...] = (1, -1)
    else:
        sides = (1,) if direction == "harmful" else (-1,)
    nulls = [fit_null(side * z[usable]) if usable.sum() >= FEWEST_ROWS else None for side in sides]
    null = next((n for n in nulls if n is not None), None)
    if null is None:
        method, reason = _fallback(z, usable, sides, p_values, q)
        findings.append(reason)
        centre, scale, share = (float(np.median(z[usable])) if usable.any() else np.nan), np.nan, np.nan
    else:
        method = "mirror"
        for side, one in zip(sides, nulls, strict=True):
            if one is not None:
                q[usable] = np.minimum(q[usable], _mirror_q(side * z[usable], one))
        centre, scale, share = sides[nulls.index(null)] * null.centre, null.scale, null.share
        findings += [_leaning(side * z[usable], q[usable] <= fdr) for side in sides]
    flagged = q <= fdr
    return Discoveries(
        q_values=q,
        flagged=flagged,
        fdr=fdr,
        direction=direction,
        threshold=float(np.abs(z[flagged]).min()) if flagged.any() else np.nan,
        centre=centre,
        scale=scale,
        null_proportion=share,
        method=method,
        findings=tuple(f for f in findings if f),
    )


def one_sided(p_values: ArrayLike, statistic: ArrayLike, side: int = 1) -> np.ndarray:
    """Return p-values for "the statistic has the sign of `side`" from two-sided ones.

    Returns
    -------
    array

    Examples
    --------
    >>> one_sided([0.04, 0.04], [2.0, -2.0]).tolist()
    [0.02, 0.98]
    """
    p, z = np.asarray(p_values, dtype=np.float64), np.asarray(statistic, dtype=np.float64)
    return np.where(side * z > 0, p / 2.0, 1.0 - p / 2.0)


def _mirror_q(z: np.ndarray, null: NullTail) -> np.ndarray:
    above = z - null.centre
    order = np.argsort(-above, kind="stable")
    ordered = above[order]
    at_least = np.searchsorted(-ordered, -ordered, side="right")  # ties enter together
    rate = np.where(ordered > 0, null.expected(ordered) / at_least, 1.0)
    q = np.empty(z.size)
    q[order] = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
    return q


def _fallback(
    z: np.ndarray, usable: np.ndarray, sides: tuple[int, ...], p_values: ArrayLike | None, q: np.ndarray
) -> tuple[str, str]:
    """Fill q from given p-values where there are any; return the method and the sentence that says so."""
    if not usable.any():
        return "none", "No row has a finite statistic: none can be named."
    why = (
        f"Only {int(usable.sum())} rows: an empirical null needs {FEWEST_ROWS}."
        if usable.sum() < FEWEST_ROWS
        else "More than half of the rows share one value: the bulk has no spread to learn a null from."
    )
    if p_values is None:
        return "none", f"{why} Nothing can be named without p-values."
    p = np.asarray(p_values, dtype=np.float64).ravel()
    if p.size != z.size or not np.all((p[usable] >= 0) & (p[usable] <= 1)):
        raise DataError(
            explain(
                "one p-value between 0 and 1 per row",
                f"{p.size} values for {z.size} rows, {p.min(initial=1)} to {p.max(initial=0)}",
                "p-values of another query, or missing ones",
                "pass the p_value column of the same frame and query",
            )
        )
    if len(sides) == 1:
        p = one_sided(p, z, sides[0])
    if usable.any():
        from statsmodels.stats.multitest import fdrcorrection  # slow to import, and seldom needed

        q[usable] = fdrcorrection(p[usable], method="negcorr")[1]
    return "benjamini-yekutieli", f"{why} Benjamini-Yekutieli on the theoretical p-values was used instead."


def _leaning(z: np.ndarray, flagged: np.ndarray) -> str:
    """Say whether the bulk itself, flagged rows left out, leans to the side that was asked."""
    bulk = z[~flagged]
    above = bulk - centre_of(bulk)
    right, left = above[above > 0], -above[above < 0]
    if min(right.size, left.size) < FEWEST_ROWS // 2 or np.median(right) < _LEANING * np.median(left):
        return ""
    return (
        f"The bulk leans to the flagged side (median deviation {np.median(right) / np.median(left):.1f} "
        "times the other side's): more of the flagged rows may be false than the level says."
    )


def check_fdr(fdr: float) -> None:
    """Refuse a false-discovery rate outside (0, 1)."""
    if not 0.0 < fdr < 1.0:
        raise ConfigError(
            explain("fdr between 0 and 1", f"{fdr!r}", "a rate given in percent", "write 0.1 for 10 %")
        )


def _check_direction(direction: str) -> None:
    if direction not in get_args(Direction):
        raise ConfigError(
            explain(
                f"direction to be one of {', '.join(get_args(Direction))}",
                f"{direction!r}",
                "a misspelt option",
                'use direction="harmful" to find rows that make the query worse',
            )
        )
