"""Checks that the statistics share; each message says expected, got, likely cause, next step."""

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, DataError, explain


def pair(with_rows: ArrayLike, without_rows: ArrayLike, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return both samples as float64 with equal leading axes, after checking size and finiteness."""
    x, y = (np.atleast_1d(np.asarray(s, dtype=np.float64)) for s in (with_rows, without_rows))
    if min(x.shape[-1], y.shape[-1]) < least:
        raise DataError(
            explain(
                f"at least {least} value(s) with and without the rows",
                f"{x.shape[-1]} with, {y.shape[-1]} without",
                "too few runs finished",
                "train more runs",
            )
        )
    bad = int(np.isnan(x).sum()), int(np.isnan(y).sum())
    if any(bad):
        raise DataError(
            explain(
                "samples without NaN",
                f"{bad[0]} NaN with the rows, {bad[1]} without",
                "runs that diverged",
                "leave out those runs by name, or lower the learning rate and train them again",
            )
        )
    lead = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return np.broadcast_to(x, lead + x.shape[-1:]), np.broadcast_to(y, lead + y.shape[-1:])


def one_pair(with_rows: ArrayLike, without_rows: ArrayLike, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one pair of samples, flat, at least `least` values each."""
    x, y = pair(with_rows, without_rows, least)
    if x.ndim > 1 and x[..., 0].size > 1:
        raise DataError(
            explain(
                "one pair of one-dimensional samples",
                f"arrays of shapes {x.shape} and {y.shape}",
                "several subsets or queries at once",
                "call the function for each subset and query",
            )
        )
    return x.reshape(-1), y.reshape(-1)


def sample(values: ArrayLike, least: int = 2) -> np.ndarray:
    """Return one flat sample as float64, after checking size and finiteness."""
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size < least or not np.isfinite(x).all():
        raise DataError(
            explain(
                f"at least {_COUNT.get(least, least)} finite values",
                f"{x.size} value(s), {int((~np.isfinite(x)).sum())} of them not finite",
                "a single run, or runs that diverged",
                "train with more seeds, and leave out the diverged runs by name",
            )
        )
    return x


def varying(*samples: np.ndarray) -> None:
    """Refuse samples that are all constant: nothing can be said about how they scatter."""
    if all(np.ptp(s) == 0.0 for s in samples):
        raise DataError(
            explain(
                "values that differ between runs",
                f"{sum(s.size for s in samples)} values, every sample constant",
                "the seed did not reach the training, or the query saturates (an accuracy of exactly 1)",
                "check that two seeds give two models, or use a finer query such as the loss",
            )
        )


def check_level(level: float) -> None:
    """Refuse a level outside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ConfigError(
            explain("level between 0 and 1", f"{level!r}", "a level given in percent", "write 0.95 for 95 %")
        )


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Return values as float64, or say that they are no table of numbers.

    Returns
    -------
    array

    Raises
    ------
    DataError
        Text among them, or lists of several lengths.

    Examples
    --------
    >>> numbers([[1, 2]], "covariates")
    array([[1., 2.]])
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            explain(
                f"{name} as an array of numbers",
                str(error),
                "a column of text, or lists of several lengths",
                "encode text as numbers first, and make all lists equally long",
            )
        ) from error


def check_count(name: str, value: int, least: int) -> None:
    """Refuse a count that is no whole number, or below `least`."""
    if value != int(value) or value < least:
        raise ConfigError(
            explain(
                f"{name} to be a whole number of at least {least}",
                f"{value!r}",
                "a rate where a count belongs, or an empty request",
                f"pass {name}={least} or more",
            )
        )


_COUNT = {2: "two"}
