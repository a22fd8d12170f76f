"""Operations on curves that are exact on polygons: mixture, minimum, symmetrisation, fixed-size batches, groups."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, explain
from finfluence.tradeoff._base import Bound, TradeOff, as_count, direction, join
from finfluence.tradeoff._extremes import Perfect
from finfluence.tradeoff._families import Laplace
from finfluence.tradeoff._gaussian import Gaussian
from finfluence.tradeoff._masses import lower_hull
from finfluence.tradeoff._piecewise import PiecewiseLinear
from finfluence.tradeoff._subsampled import subsample

_MOST_CORNERS = 200_000


def mixture(curves: Sequence[TradeOff], weights: ArrayLike, bound: Bound | None = None) -> TradeOff:
    r"""Return the curve of seeing one of several pairs, drawn with known probabilities, and which one it was.

    .. math:: f(\alpha) = \min\{\textstyle\sum_i w_i f_i(\alpha_i) : \sum_i w_i \alpha_i = \alpha\}, \qquad
              \delta(\varepsilon) = \textstyle\sum_i w_i \delta_i(\varepsilon)

    A mixture of laws that hides which pair was drawn is at most as easy to tell apart: its curve lies above.

    Parameters
    ----------
    curves : Sequence[TradeOff]
        The pairs, by their curves of best tests.
    weights : ArrayLike
        Probabilities, not negative, that sum to 1.
    bound : {"lower", "estimate", "upper"}, optional
        Direction of the polygons that stand for curves without corners; see `TradeOff`.

    Returns
    -------
    TradeOff
        Exact if all curves have corners, else a polygon of that direction.

    Raises
    ------
    ConfigError
        Not one weight for each curve, a negative one, or a sum that is not 1.

    Examples
    --------
    >>> from finfluence.tradeoff import Blatant, Perfect
    >>> mixture([Perfect(), Blatant()], [0.9, 0.1])(0.5)
    0.4
    """
    share = np.asarray(weights, dtype=np.float64)
    if share.shape != (len(curves),) or np.any(share < 0.0) or not abs(share.sum() - 1.0) < 1e-9:
        raise ConfigError(
            explain(
                f"{len(curves)} weights, not negative, that sum to 1",
                f"{share.tolist()}",
                "counts instead of probabilities, or one weight too few",
                "divide the weights by their sum",
            )
        )
    chosen = [(curve, weight) for curve, weight in zip(curves, share, strict=True) if weight > 0.0]
    if len({curve.optimal for curve, _ in chosen}) == 1:
        return chosen[0][0].optimal
    polygons = _polygons([curve for curve, _ in chosen], bound)
    p, q = (
        np.concatenate([w * f.atoms[law] for f, (_, w) in zip(polygons, chosen, strict=True)])
        for law in (0, 1)
    )
    return PiecewiseLinear.from_masses(p, q, join(f.bound for f in polygons))


def minimum(*curves: TradeOff, bound: Bound | None = None) -> TradeOff:
    r"""Return the largest trade-off curve below all curves, :math:`(\min_i f_i)^{**}`: the worst of several pairs.

    Its profile is :math:`\delta = \max_i \delta_i`.

    Returns
    -------
    TradeOff
        Exact for Gaussian curves, Laplace curves and corners, else a polygon of the direction asked for.

    Examples
    --------
    >>> from finfluence.tradeoff import EpsilonDelta, Gaussian
    >>> minimum(Gaussian(1.0), Gaussian(-2.0))
    Gaussian(mu=2.0)
    >>> round(minimum(EpsilonDelta(0.0, 0.2), EpsilonDelta(1.0))(0.0), 6)
    0.8
    """
    best = list(dict.fromkeys(curve.optimal for curve in curves if curve.optimal != Perfect())) or [Perfect()]
    for family in (Gaussian, Laplace):
        if all(isinstance(curve, family) for curve in best):
            return max(best, key=lambda curve: curve.total_variation)
    if len(best) == 1:
        return best[0]
    polygons = _polygons(best, bound)
    alpha, beta = (np.concatenate([getattr(f, side) for f in polygons]) for side in ("alpha", "beta"))
    return PiecewiseLinear(*lower_hull(alpha, beta), join(f.bound for f in polygons))


def symmetrise(curve: TradeOff, bound: Bound | None = None) -> TradeOff:
    r"""Return :math:`(\min\{f, f^{-1}\})^{**}`, the worst of the two directions; the curve itself if symmetric.

    Returns
    -------
    TradeOff
        Exact or of a direction as `minimum`.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian
    >>> symmetrise(Gaussian(0.5))
    Gaussian(mu=0.5)
    >>> f = symmetrise(subsample(Gaussian(2.0), 0.3), "lower")
    >>> bool(abs(f(f(0.1)) - 0.1) < 1e-6)
    True
    """
    return minimum(curve.optimal, curve.optimal.inverse(), bound=bound)


def subsample_fixed(curve: TradeOff, taken: int, rows: int, bound: Bound | None = None) -> TradeOff:
    r"""Return :math:`C_p(f) = (\min\{f_p, f_p^{-1}\})^{**}`, p = taken/rows: batches of fixed size, no replacement.

    .. math:: f_p(\alpha) = p f(\alpha) + (1-p)(1-\alpha)

    If replacing one row moves a step by no more than the symmetric curve f, a step on `taken` of `rows` rows,
    drawn without replacement, moves by no more than C_p(f): the curve of any such step lies above.

    Returns
    -------
    TradeOff
        Exact or of a direction as `minimum`.

    Raises
    ------
    ConfigError
        More rows taken than there are, or no rows.

    References
    ----------
    Dong, Roth and Su (2022), theorem 4.2.

    Examples
    --------
    >>> from finfluence.tradeoff import Gaussian
    >>> f = subsample_fixed(Gaussian(1.8), 35, 100, "lower")
    >>> bool(f(0.1) <= subsample(Gaussian(1.8), 0.35)(0.1)), f.bound
    (True, 'lower')
    """
    taken, rows = as_count(taken, "taken"), as_count(rows, "rows")
    if taken > rows or rows == 0:
        raise ConfigError(
            explain(
                "taken at most rows, and at least one row",
                f"taken={taken}, rows={rows}",
                "the two numbers in the wrong order",
                "pass the batch size first, then the number of rows it is drawn from",
            )
        )
    return symmetrise(subsample(curve, taken / rows), bound)


def group(curve: TradeOff, count: int, bound: Bound | None = None) -> TradeOff:
    r"""Return :math:`1-(1-f)^{\circ k}`: the furthest that k changes, each of at most f, can take a law.

    For Gaussian and Laplace curves this multiplies mu by k, where `curve ** k` multiplies it by :math:`\sqrt k`.

    Returns
    -------
    TradeOff
        Exact for Gaussian curves, Laplace curves and corners, else a polygon of the direction asked for.

    References
    ----------
    Dong, Roth and Su (2022), theorem 2.14.

    Examples
    --------
    >>> from finfluence.tradeoff import EpsilonDelta, Gaussian
    >>> group(Gaussian(0.5), 3)
    Gaussian(mu=1.5)
    >>> round(group(EpsilonDelta(0.5), 2)(0.01), 6)
    0.972817
    """
    count, curve = as_count(count), curve.optimal
    if count == 0 or curve == Perfect():
        return Perfect()
    if count == 1:
        return curve
    if isinstance(curve, Gaussian | Laplace):
        return type(curve)(count * curve.mu)
    f = _polygons([curve], bound)[0]
    alpha, beta = f.alpha, f.beta
    for _ in range(count - 1):
        # corners of beta -> f(1 - beta): those of the inner curve, and those where it reaches a corner of f
        back = np.interp(1.0 - f.alpha, beta[::-1], alpha[::-1])
        back = back[(back > 0.0) & (back < 1.0)]
        corners = np.union1d(alpha, back)
        if corners.size > _MOST_CORNERS:
            corners = corners[:: corners.size // _MOST_CORNERS + 1] if f.bound != "lower" else corners
        alpha, beta = corners, np.interp(1.0 - np.interp(corners, alpha, beta), f.alpha, f.beta)
    beta[-1] = 0.0
    return PiecewiseLinear(alpha, beta, f.bound)


def _polygons(curves: Sequence[TradeOff], bound: Bound | None) -> list[PiecewiseLinear]:
    """Return the curves as polygons, those without corners in the direction that the whole operation takes."""
    if all(curve.atoms is not None for curve in curves):
        return [PiecewiseLinear.of(curve) for curve in curves]
    wanted = direction(curves, bound)
    return [PiecewiseLinear.of(curve, None if curve.atoms is not None else wanted) for curve in curves]
