"""What each row does, from logged trainings in which chance decided which rows took part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from finfluence._indices import same_rows
from finfluence.assess._effect_laws import EffectLaws, effect_laws
from finfluence.assess._network import network_laws
from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats import check_level, numbers

FEWEST_RUNS = 8
_FEWEST_IN_AN_ARM = 3
_ALIKE_BEYOND = 6.0
POSTERIORS = {"grid": effect_laws, "network": network_laws}
_FEWEST_IN_A_HALF, _UNLIKE = 40, 0.001
_NEIGHBOURS, _FEWEST_ROWS = 8, 32
_OPPOSED = (
    "the predicted effects do not go with the outcomes, or go against them (another sign, another query): they were "
    "left out"
)


@dataclass(frozen=True, eq=False)
class InclusionEffects:
    """The effect of *removing* each row, from runs with and without it.

    Attributes
    ----------
    effect, sd : array [n]
        Posterior mean and standard deviation. Positive: removing the row raises the outcome.
    lower, upper, level : array [n], array [n], float
        Posterior interval.
    difference, se : array [n]
        Difference of the two arms' means (without minus with), after what `predicted` explains is taken out of every
        run and with the row's own part put back, and its standard error. Unbiased, not shrunken.
    sign_error : array [n]
        Chance that the effect has not the sign of `effect`.
    slope : float
        Of true on predicted effects, posterior mean; NaN without predictions, and by the network.
    findings : tuple of str
        What speaks against reading the numbers as effects.
    laws : EffectLaws
        The whole posterior.
    """

    effect: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    level: float
    difference: np.ndarray
    se: np.ndarray
    sign_error: np.ndarray
    slope: float
    findings: tuple[str, ...]
    laws: EffectLaws

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends of the posterior intervals at another level."""
        check_level(level)
        return self.laws.quantile((1 - level) / 2), self.laws.quantile((1 + level) / 2)

    def cdf(self, values: ArrayLike) -> np.ndarray:
        """Return the posterior chance that the effect of each row is at most its value [n]."""
        return self.laws.cdf(np.asarray(values, dtype=np.float64))

    def __str__(self) -> str:
        sure = int(((self.lower > 0) | (self.upper < 0)).sum())
        predicted = "" if np.isnan(self.slope) else f"; the prediction's slope is {self.slope:.2f}"
        first = (
            f"effects of removing {len(self.effect)} rows from logged runs: the {self.level:.0%} interval of {sure} "
            f"leaves out zero; standard error {np.nanmedian(self.se):.3g} before shrinkage, "
            f"{np.nanmedian(self.sd):.3g} after{predicted}"
        )
        return "\n".join([first, *(f"  {f}" for f in self.findings)])


def inclusion(
    included: ArrayLike,
    outcome: ArrayLike,
    *,
    predicted: ArrayLike | None = None,
    posterior: str = "grid",
    names: Sequence[str] | None = None,
    level: float = 0.9,
) -> InclusionEffects:
    r"""Return the posterior effect of removing each row, from R runs with recorded, randomised subsets.

    With inclusion :math:`T_{ri}`, outcome :math:`Y_r` and predicted effects a (control variates, slope b by least
    squares over the runs):

    .. math:: Z_r = Y_r + b \sum_j T_{rj} a_j, \qquad
              \hat\tau_i = \overline{Z}_{T_i=0} - \overline{Z}_{T_i=1} + b\,a_i, \qquad
              s_i^2 = \frac{v_0}{n_0} + \frac{v_1}{n_1}

    The posterior takes :math:`\hat\tau_i` and :math:`a_i` as two measurements of the same effect, which is zero or
    small for a share of the rows and normal, heavy-tailed (t with 3 or 1 degrees of freedom) or in two clusters on both
    sides of zero for the others; shares, scales, shape, the prediction's noise and its slope are integrated out over
    all rows ("grid"), or what a network makes of them that was fitted to such worlds ("network"). From eighty runs on,
    the posteriors by one half of the runs are held against the differences in the other half: effects unlike all of
    these laws are found so. Rows near each other, which may come from one source, are tested for like effects: pass
    them in the order of the file. Because inclusion is drawn by chance, both arms are alike but for the row; the
    prediction takes away the noise of the other rows, too, and a wrong one does no harm: b goes to 0, its noise to the
    top of the grid; one that goes against the outcomes (b < 0) is left out, and said.

    Parameters
    ----------
    included : array of bool [R, n]
        Whether run r had row i.
    outcome : array [R]
        The query's value after run r.
    predicted : array [n], optional
        Effects of removal by another method in the outcome's unit, `influence.effect` of replay.
    posterior : {"grid", "network"}
        "network" takes what a small network says in place of the sum over a grid; it is less exact, most of all on
        worlds that it was not fitted to (`network_prior()`).
    names : sequence of str, optional
        Names of rows, for the findings.
    level : float
        Of the posterior interval.

    Returns
    -------
    InclusionEffects

    Raises
    ------
    DataError
        Shapes disagree, values not finite or not boolean, fewer than 8 runs, or a row without three runs in each arm.
    ConfigError
        An unknown posterior, or a level that is none.

    Notes
    -----
    Assumes that inclusion was randomised, row by row or as random subsets of one size. Rows that always went together
    cannot be told apart: that is tested, and found where two columns agree more than chance allows. Subsets chosen by
    quality or source: `policy_effect`.

    References
    ----------
    Difference of arms with a control variate: Lin, "Agnostic notes on regression adjustments" (2013). Spike and slab:
    Mitchell and Beauchamp, "Bayesian variable selection in linear regression" (1988). Half subsets: Wang and Jia, "Data
    Banzhaf" (2023).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> effects = np.where(rng.random(40) < 0.2, rng.normal(size=40), 0.0)
    >>> included = rng.random((400, 40)) < 0.5
    >>> outcome = -(included @ effects) + rng.normal(size=400)
    >>> found = inclusion(included, outcome)
    >>> bool(np.corrcoef(found.effect, effects)[0, 1] > 0.9)
    True
    >>> bool(np.mean((found.effect - effects) ** 2) < np.mean((found.difference - effects) ** 2))
    True
    """
    check_level(level)
    if posterior not in POSTERIORS:
        raise ConfigError(
            explain(
                f"posterior as one of {', '.join(POSTERIORS)}",
                f"{posterior!r}",
                "a mistyped option",
                'write posterior="grid"',
            )
        )
    same_rows(included=included, outcome=outcome)
    same_rows(**{"included.T": getattr(included, "T", None), "predicted": predicted})
    t, y, a = _checked(included, outcome, predicted)
    labels = list(names) if names is not None else [str(i) for i in range(t.shape[1])]
    if len(labels) != t.shape[1]:
        raise DataError(
            explain(
                f"one name for each of {t.shape[1]} rows",
                f"{len(labels)} names",
                "names of another table, or of the runs",
                "pass the names in the order of the columns of `included`, or leave them out",
            )
        )
    slope = _slope(t, y, a) if a is not None else 0.0
    known = np.zeros(t.shape[1]) if a is None else slope * a
    opposed = a is not None and slope == 0.0
    if opposed:
        a = None
    z = y + t @ known
    difference, se = _known_arms(t, z, known)
    laws = POSTERIORS[posterior](difference, se, a)
    unlike = [*_unlike(t, z, known, a, posterior), *_together(difference, se, a)]
    return InclusionEffects(
        laws.effect,
        laws.effect_sd,
        laws.quantile((1 - level) / 2),
        laws.quantile((1 + level) / 2),
        level,
        difference,
        se,
        laws.sign_error,
        laws.slope,
        (*_findings(t, y, labels, laws.slope_at_edge), *([_OPPOSED] if opposed else []), *unlike),
        laws,
    )


def _slope(t: np.ndarray, y: np.ndarray, a: np.ndarray) -> float:
    """Return the slope of the outcome on the predicted sum: of true on predicted effects, never negative."""
    x = -(t @ a)
    x = x - x.mean()
    return max(0.0, float(x @ (y - y.mean()) / (x @ x))) if x @ x > 0 else 0.0


def _arms(t: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean without minus the mean with each row, and its standard error."""
    n1 = t.sum(0)
    n0 = len(t) - n1
    z = z - z.mean()
    sum1, square1 = z @ t, z**2 @ t
    mean1, mean0 = sum1 / n1, (z.sum() - sum1) / n0
    v1 = (square1 - n1 * mean1**2) / (n1 - 1)
    v0 = ((z**2).sum() - square1 - n0 * mean0**2) / (n0 - 1)
    return mean0 - mean1, np.sqrt(np.maximum(v0, 0) / n0 + np.maximum(v1, 0) / n1)


def _unlike(
    t: np.ndarray, z: np.ndarray, known: np.ndarray, predicted: np.ndarray | None, posterior: str
) -> list[str]:
    """Say so if posteriors by every other run do not predict the differences of arms in the runs between."""
    first, second = slice(0, None, 2), slice(1, None, 2)
    if len(t[second]) < _FEWEST_IN_A_HALF:
        return []
    arms = [min(t[half].sum(0).min(), (1 - t[half]).sum(0).min()) for half in (first, second)]
    if min(arms) < _FEWEST_IN_AN_ARM:
        return []
    earlier, (seen, se) = (_known_arms(t[half], z[half], known) for half in (first, second))
    if not (se > 0).all():
        return []
    laws = POSTERIORS[posterior](*earlier, predicted)
    p = float(stats.kstest(laws.widened(se).cdf(seen), "uniform").pvalue)
    if p >= _UNLIKE:
        return []
    return [
        "the effects are unlike the laws that the posterior knows: from one half of the runs it predicts the "
        f"differences in the other half badly (p = {p:.1g}); read difference ± 1.64 se, which assumes no law"
    ]


def _together(difference: np.ndarray, se: np.ndarray, predicted: np.ndarray | None) -> list[str]:
    """Say so if rows that stand near each other have like effects, or like predictions."""
    if not (se > 0).all():
        return []
    asked = [difference / se, *([] if predicted is None else [predicted])]
    p = len(asked) * min(_alike_near_by(values) for values in asked)
    if p >= _UNLIKE:
        return []
    return [
        f"rows that stand near each other have like effects or predictions (p = {p:.1g}), as those of one source have: "
        "the log holds fewer independent effects than rows, and the intervals hold less often than they say, most of "
        "all where the predictions of a source err alike; read difference ± 1.64 se, which assumes no law"
    ]


def _alike_near_by(values: np.ndarray) -> float:
    """Return the chance of so large a sum of the first eight autocorrelations of the values' normal scores."""
    n = len(values)
    scores = stats.norm.ppf((stats.rankdata(values) - 0.5) / n)
    if n < _FEWEST_ROWS or not scores.std() > 0:
        return 1.0
    scores = (scores - scores.mean()) / scores.std()
    near = sum(float(scores[k:] @ scores[:-k]) / n for k in range(1, _NEIGHBOURS + 1))
    return float(stats.norm.sf(near / np.sqrt(_NEIGHBOURS / n)))


def _known_arms(t: np.ndarray, z: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    difference, se = _arms(t, z)
    return difference + known, se


def _findings(t: np.ndarray, y: np.ndarray, names: list[str], slope_at_edge: bool) -> list[str]:
    found = []
    if (y == y[0]).all():
        found.append(
            "every run had the same outcome: nothing varies that a row could explain, and intervals of no width say "
            "no more than that"
        )
    centred = t - t.mean(0)
    scaled = centred / np.sqrt((centred**2).sum(0))
    together = np.abs(scaled.T @ scaled)
    np.fill_diagonal(together, 0.0)
    i, j = np.unravel_index(together.argmax(), together.shape)
    bound = _ALIKE_BEYOND / np.sqrt(len(t))
    if together[i, j] > min(bound, 0.999):
        pairs = int((together > min(bound, 0.999)).sum()) // 2
        found.append(
            f"inclusion was not independent between rows: {pairs} pairs go together or exclude each other beyond "
            f"chance, most of all {names[i]} and {names[j]} (correlation {together[i, j]:.2f}); their effects cannot "
            "be told apart"
        )
    half = len(t) // 2
    drift = np.abs(t[:half].mean(0) - t[half:].mean(0)) / np.sqrt(t.var(0) * (1 / half + 1 / (len(t) - half)))
    if drift.max() > _ALIKE_BEYOND:
        k = int(drift.argmax())
        found.append(
            f"the share of runs with {names[k]} changed between the first and the second half of the log: if anything "
            "else changed as well, it is mixed into the effect"
        )
    if slope_at_edge:
        found.append(
            "the true effects are more than three times larger or smaller than the predicted ones: another unit, or "
            "another query"
        )
    return found


def _checked(
    included: ArrayLike, outcome: ArrayLike, predicted: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    t, y = numbers(included, "included"), numbers(outcome, "outcome")
    if t.ndim != 2 or y.shape != (len(t),) or not t.size or not np.isin(t, (0, 1)).all():
        raise DataError(
            explain(
                "included as runs × rows of True and False, and one outcome a run",
                f"included of shape {t.shape}, outcome of shape {y.shape}",
                "row positions instead of a table of True and False, or a transposed table",
                "make included[r, i] True where run r had row i",
            )
        )
    if not np.isfinite(y).all():
        raise DataError(
            explain(
                "a finite outcome of every run",
                f"{int((~np.isfinite(y)).sum())} of {len(y)} that are not, the first is run "
                f"{int(np.flatnonzero(~np.isfinite(y))[0])}",
                "runs that diverged",
                "leave these runs out only if what made them diverge has nothing to do with the rows",
            )
        )
    arms = np.minimum(t.sum(0), len(t) - t.sum(0))
    if len(t) < FEWEST_RUNS or arms.min() < _FEWEST_IN_AN_ARM:
        k = int(arms.argmin())
        raise DataError(
            explain(
                f"at least {FEWEST_RUNS} runs, for every row {_FEWEST_IN_AN_ARM} with and {_FEWEST_IN_AN_ARM} without",
                f"{len(t)} runs; row {k} was in {int(t[:, k].sum())} of them",
                "rows that every run had (or none), or too short a log",
                "leave such rows out of the table, or log more runs with random halves",
            )
        )
    if predicted is None:
        return t, y, None
    a = numbers(predicted, "predicted effects")
    if a.shape != (t.shape[1],) or not np.isfinite(a).all():
        raise DataError(
            explain(
                f"one finite predicted effect for each of {t.shape[1]} rows",
                f"shape {a.shape}, {int((~np.isfinite(a)).sum())} not finite",
                "effects of other rows or of several queries, or rows that were never drawn",
                "select one query; predict 0 where nothing is known",
            )
        )
    return t, y, a
