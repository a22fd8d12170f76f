"""Bootstrap intervals for any statistic of independent samples."""

import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import DegenerateDataWarning, bootstrap

from finfluence._seeds import stream
from finfluence.errors import ConfigError, explain
from finfluence.stats._checks import check_count, check_level, sample, varying
from finfluence.stats._intervals import Interval

BootstrapMethod = Literal["percentile", "basic", "bca"]
_SCIPY = {"percentile": "percentile", "basic": "basic", "bca": "BCa"}


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: ArrayLike,
    level: float = 0.95,
    method: BootstrapMethod = "bca",
    resamples: int = 2000,
    seed: int = 0,
    vectorized: bool = False,
) -> Interval:
    """Return a statistic of one or more independent samples with its bootstrap interval.

    Parameters
    ----------
    statistic
        Function of the samples that returns one number, for instance `auc_probit`.
    *samples
        One-dimensional samples of independent values, each resampled by itself.
    level
        Wanted coverage; too low in truth for samples of fewer than about 20 values.
    method
        "bca" (bias-corrected and accelerated, default), "percentile" or "basic".
    resamples
        Number of resamples.
    seed
        Names the stream of random numbers: the same seed gives the same interval.
    vectorized
        Whether the statistic works along the last axis of batched samples, as every estimate of mu here
        does: many times faster.

    Returns
    -------
    Interval
        Where BCa's acceleration is undefined (the statistic is at the edge of its range: samples that do not
        overlap), the percentile interval; `kind` says which it is.

    Raises
    ------
    DataError
        A sample has fewer than two values or holds NaN, or all samples are constant.
    ConfigError
        Unknown method, or a level outside (0, 1).

    References
    ----------
    Efron (1987), for BCa; `scipy.stats.bootstrap` does the work.

    Examples
    --------
    >>> interval = bootstrap_interval(np.mean, np.arange(100.0))
    >>> bool(interval.lower < interval.estimate == 49.5 < interval.upper), interval.kind
    (True, 'bootstrap BCa')
    """
    check_level(level)
    check_count("resamples", resamples, 2)
    if method not in get_args(BootstrapMethod):
        raise ConfigError(
            explain(
                f"method to be one of {', '.join(get_args(BootstrapMethod))}",
                f"{method!r}",
                "a misspelt option",
                'use method="bca", or "percentile" for the plain quantiles',
            )
        )
    arrays = tuple(sample(s) for s in samples)
    varying(*arrays)
    estimate = float(statistic(*arrays))
    options = dict(vectorized=vectorized, n_resamples=resamples, confidence_level=level, axis=-1)
    batched = (lambda *parts, axis: statistic(*parts)) if vectorized else _as_float(statistic)
    for scheme in dict.fromkeys((method, "percentile")):
        rng = stream(seed, "bootstrap")
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", DegenerateDataWarning)
            found = bootstrap(arrays, batched, method=_SCIPY[scheme], random_state=rng, **options)
        low, high = found.confidence_interval
        if np.isfinite([low, high]).all():
            break
    return Interval(estimate, float(low), float(high), level, f"bootstrap {_SCIPY[scheme]}")


def _as_float(statistic: Callable[..., Any]) -> Callable[..., float]:
    return lambda *parts: float(statistic(*parts))
