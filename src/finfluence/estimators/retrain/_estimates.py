"""Effect, spread, μ and its uncertainty from outcomes of trained runs: two samples each, pairs, or random halves."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import norm, t, ttest_ind_from_stats

from finfluence.stats import delong_interval


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates [S, Q] of what removal does, in the result's terms."""

    effect: np.ndarray
    spread: np.ndarray
    mu: np.ndarray
    se: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p_value: np.ndarray
    effect_se: np.ndarray

    @classmethod
    def none(cls, queries: int) -> "Estimates":
        """Return the estimates [0, Q] of no subset."""
        return cls(**{f.name: np.zeros((0, queries)) for f in fields(cls)})

    def with_empty(self, sizes: np.ndarray, spread: np.ndarray) -> "Estimates":
        """Return these rows where subsets have any, and removing nothing where they have none.

        Parameters
        ----------
        sizes : array [S]
            Rows of each subset; as many are above zero as there are estimates.
        spread : array [Q]
            That of runs on all rows.

        Returns
        -------
        Estimates
            Exactly zero, with p = 1, for an empty subset.
        """
        if sizes.all():
            return self

        def filled(found: np.ndarray, nothing: float | np.ndarray) -> np.ndarray:
            whole = np.empty((len(sizes), found.shape[1]))
            whole[sizes > 0], whole[sizes == 0] = found, nothing
            return whole

        zero = {f.name: filled(getattr(self, f.name), 0.0) for f in fields(self)}
        return Estimates(
            **{**zero, "spread": filled(self.spread, spread), "p_value": filled(self.p_value, 1.0)}
        )


def two_samples(with_rows: np.ndarray, without: list[np.ndarray], mu: str, level: float) -> Estimates:
    """Compare runs with all rows [K, Q] to runs without each subset, S × [K_s, Q].

    effect = mean(without) − mean(with); spread² = (var(with) + var(without)) / 2; μ = effect / spread, or the
    AUC-probit of the two samples. p by Welch's test.

    Returns
    -------
    Estimates

    Notes
    -----
    The standard error of μ is the larger of two: under normal distributions (Hedges), and by the delta method with the
    samples' own third and fourth moments. The first alone covers 89 % instead of 95 % for exponential distributions at
    μ = 2, the second alone 92 % for normal distributions at μ = 5 and 20 runs.
    """
    mean_p, var_p, n_p = with_rows.mean(0), with_rows.var(0, ddof=1), len(with_rows)
    mean_q = np.stack([v.mean(0) for v in without])
    var_q = np.stack([v.var(0, ddof=1) for v in without])
    n_q = np.array([len(v) for v in without])[:, None]
    effect, spread = mean_q - mean_p, np.sqrt((var_p + var_q) / 2)
    effect_var = var_p / n_p + var_q / n_q
    with np.errstate(divide="ignore", invalid="ignore"):
        _, p = ttest_ind_from_stats(mean_q, np.sqrt(var_q), n_q, mean_p, np.sqrt(var_p), n_p, equal_var=False)
        spread_var = (var_p**2 / (n_p - 1) + var_q**2 / (n_q - 1)) / 2
        d = effect / spread
        normal = effect_var / spread**2 + d**2 * spread_var / (4 * spread**4)
        own = _moved(_moments(with_rows), -1, d, spread) / n_p
        moments = [np.stack(m) for m in zip(*(_moments(v) for v in without), strict=True)]
        own += _moved(moments, 1, d, spread) / n_q
    se = np.sqrt(np.fmax(normal, own))
    lower, upper = _around(d, se, level)
    if mu == "auc_probit":
        parts = [delong_interval(with_rows.T, v.T, level=level) for v in without]
        d, lower, upper = (np.stack([getattr(i, k) for i in parts]) for k in ("estimate", "lower", "upper"))
        # at an AUC of 1 the outer bound is infinite: then the inner half-width gives the standard error
        z = norm.ppf((1 + level) / 2)
        se = np.where(
            np.isfinite(lower) & np.isfinite(upper), upper - lower, 2 * np.fmin(d - lower, upper - d)
        ) / (2 * z)
    return Estimates(effect, spread, d, se, lower, upper, _settled(p, effect), np.sqrt(effect_var))


def pairs(parts: list[tuple[np.ndarray, np.ndarray]], level: float) -> Estimates:
    """Compare runs in pairs, S × ([K_s, Q] with all rows, [K_s, Q] without): the k-th of both share their seeds.

    effect = mean(without − with), its error that of a mean of differences; spread and μ as for two samples. p by
    Student's test on the differences. The standard error of μ is the larger of two, as for two samples.

    Returns
    -------
    Estimates
    """
    columns: list[tuple[np.ndarray, ...]] = []
    for x, y in parts:
        count = len(x)
        difference, var_x, var_y = y - x, x.var(0, ddof=1), y.var(0, ddof=1)
        effect, effect_var = difference.mean(0), difference.var(0, ddof=1) / count
        spread = np.sqrt((var_x + var_y) / 2)
        both = ((x - x.mean(0)) * (y - y.mean(0))).sum(0) / (count - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            d = effect / spread
            spread_var = (var_x**2 + var_y**2 + 2 * both**2) / (2 * (count - 1))
            normal = effect_var / spread**2 + d**2 * spread_var / (4 * spread**4)
            own = (_influence_functions(x, -1, d, spread) + _influence_functions(y, 1, d, spread)).var(
                0, ddof=1
            ) / count
            p = 2 * t.sf(np.abs(effect) / np.sqrt(effect_var), count - 1)
        columns.append((effect, spread, d, np.sqrt(np.fmax(normal, own)), p, np.sqrt(effect_var)))
    effect, spread, d, se, p, effect_se = (np.stack(part) for part in zip(*columns, strict=True))
    return Estimates(effect, spread, d, se, *_around(d, se, level), _settled(p, effect), effect_se)


def _influence_functions(values: np.ndarray, sign: int, d: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return d's influence function at each run: ± x/spread − d x²/(4 spread²), x about its mean."""
    centred = values - values.mean(0)
    return sign * centred / spread - d / (4 * spread**2) * centred**2


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return var(x), cov(x, x²) and var(x²) [Q] of runs [K, Q] about their mean."""
    centred = values - values.mean(0)
    square = centred**2
    degrees = len(values) - 1
    return square.sum(0) / degrees, (centred * square).sum(0) / degrees, square.var(0, ddof=1)


def _moved(moments: Sequence[np.ndarray], sign: int, d: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return the variance of `_influence_functions` from the moments of the runs."""
    c = d / (4 * spread**2)
    return moments[0] / spread**2 - 2 * sign * c / spread * moments[1] + c**2 * moments[2]


def half_subsets(first: np.ndarray, second: np.ndarray, kept: np.ndarray, level: float) -> Estimates:
    """Read every subset's effect off runs on random halves, each half trained twice.

    effect_s = mean(q | s out) − mean(q | s in) over halves; spread² = mean (first − second)² / 2, the
    variance between the two trainings of the same half: training randomness alone.

    Parameters
    ----------
    first, second : array [H, Q]
        The two trainings of each half.
    kept : array of bool [H, S]
        Which subsets each half kept.
    level : float
        Of the intervals.

    Returns
    -------
    Estimates
    """
    halves = (first + second) / 2
    n_in, n_out = kept.sum(0)[:, None], (~kept).sum(0)[:, None]
    # centred first: the sums of squares below would otherwise lose digits to a large common mean
    centred = halves - halves.mean(0)
    inside, outside = kept.T.astype(float), (~kept).T.astype(float)
    mean_in, mean_out = inside @ centred / n_in, outside @ centred / n_out
    var_in = (inside @ centred**2 / n_in - mean_in**2).clip(0) * n_in / (n_in - 1)
    var_out = (outside @ centred**2 / n_out - mean_out**2).clip(0) * n_out / (n_out - 1)
    effect = mean_out - mean_in
    effect_var = var_in / n_in + var_out / n_out
    spread = np.broadcast_to(np.sqrt(((first - second) ** 2).mean(0) / 2), effect.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        _, p = ttest_ind_from_stats(
            mean_out, np.sqrt(var_out), n_out, mean_in, np.sqrt(var_in), n_in, equal_var=False
        )
        mu = effect / spread
        se = np.sqrt(effect_var / spread**2 + mu**2 / (2 * len(first)))
    lower, upper = _around(mu, se, level)
    return Estimates(effect, spread, mu, se, lower, upper, _settled(p, effect), np.sqrt(effect_var))


def _around(mu: np.ndarray, se: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    half = norm.ppf((1 + level) / 2) * se
    return mu - half, mu + half


def _settled(p: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Two constant samples have no test: p is 1 if they are equal, 0 if not."""
    return np.where(np.isnan(p), np.where(effect == 0, 1.0, 0.0), p)
