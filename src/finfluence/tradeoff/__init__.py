"""Trade-off functions: frozen values that map a false-alarm rate to a miss rate, with algebra."""

from finfluence.tradeoff._algebra import group, minimum, mixture, subsample_fixed, symmetrise
from finfluence.tradeoff._base import Bound, LossMoments, TradeOff
from finfluence.tradeoff._batched import Compositions, compose_counts, counts_on_grid
from finfluence.tradeoff._central_limit import CentralLimit, central_limit, subsampled_limit
from finfluence.tradeoff._extremes import Blatant, Perfect
from finfluence.tradeoff._families import EpsilonDelta, Laplace
from finfluence.tradeoff._gaussian import Gaussian
from finfluence.tradeoff._laws import from_discrete, from_distributions, from_profile, from_samples
from finfluence.tradeoff._piecewise import PiecewiseLinear, compose, hull
from finfluence.tradeoff._subsampled import Subsampled, subsample

__all__ = [
    "Blatant",
    "Bound",
    "CentralLimit",
    "Compositions",
    "EpsilonDelta",
    "Gaussian",
    "Laplace",
    "LossMoments",
    "Perfect",
    "PiecewiseLinear",
    "Subsampled",
    "TradeOff",
    "central_limit",
    "compose",
    "compose_counts",
    "counts_on_grid",
    "from_discrete",
    "from_distributions",
    "from_profile",
    "from_samples",
    "group",
    "hull",
    "minimum",
    "mixture",
    "subsample",
    "subsample_fixed",
    "subsampled_limit",
    "symmetrise",
]
