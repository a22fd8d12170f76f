"""Options of an optimiser that move from step to step as no schedule of the step alone does."""

from collections.abc import Sequence

import numpy as np

LEAST_VALUES = 8
ROUGH = 0.1


def irregular_options(names: Sequence[str], numbers: np.ndarray) -> str | None:
    """Return a sentence about the first option whose values are irregular, or None.

    A schedule (constant, stepwise, linear, cosine, a power of the step, with warm-up and restarts) is smooth but for a
    few corners: where it moves, its fourth differences are small beside its first ones. A rate that the loop computes
    from losses, gradients or weights carries their noise. Values that stay are counted once; fewer than eight different
    ones in turn cannot be told.

    Parameters
    ----------
    names
        Of the options.
    numbers : array [T, G, N]
        Of each step, group and option.

    Returns
    -------
    str or None

    Examples
    --------
    >>> steps = np.arange(40.0)[:, None, None]
    >>> irregular_options(["lr"], 0.1 * (1 + np.cos(np.pi * steps / 40)))
    >>> noise = np.random.default_rng(0).random((40, 1, 1))
    >>> print(irregular_options(["lr"], 0.1 + 0.01 * noise)[:62])
    the optimiser's 'lr' moves from step to step as no schedule of
    """
    for group in range(numbers.shape[1]):
        for k, name in enumerate(names):
            values = numbers[:, group, k]
            if _rough(values):
                shown = ", ".join(f"{value:.4g}" for value in values[:4])
                return (
                    f"the optimiser's '{name}' moves from step to step as no schedule of the step alone does ({shown}, "
                    "…): replay takes it as given. If the loop computes it from losses, gradients or weights, a row "
                    "also acts through it, and the effects leave that out"
                )
    return None


def _rough(values: np.ndarray) -> bool:
    moved = values[np.flatnonzero(np.r_[True, np.diff(values) != 0])]
    if len(moved) < LEAST_VALUES:
        return False
    scales = [moved] if (moved <= 0).any() else [moved, np.log(moved)]
    return min(_roughness(scale) for scale in scales) > ROUGH


def _roughness(values: np.ndarray) -> float:
    """Return how large fourth differences are beside first ones, between corners (a quarter is free of them)."""
    first = np.median(np.abs(np.diff(values)))
    return float(np.quantile(np.abs(np.diff(values, 4)), 0.25) / first) if first > 0 else 0.0
