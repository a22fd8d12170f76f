"""How many columns a text is worth: as many as help to predict rows left out, none where it says nothing."""

import numpy as np

_PENALTIES = np.geomspace(1e-4, 1.0, 7)
_STEP, SURELY = 1.6, 3.0
_MOST_SPREADS = 5.0


def telling_width(dense: np.ndarray, y: np.ndarray) -> int:
    """Return how many leading columns tell about the target.

    For each width the target (of classes: an indicator each) is predicted from the leading columns by ridge regression,
    and each row's error is that without the row, in closed form: e_i / (1 − h_ii). The fewest columns are taken whose
    mean error is within a standard error of the least; none where no width lies three standard errors below the
    constant.

    Parameters
    ----------
    dense : array [n, columns]
        Columns from the most to the least important, as of a singular value decomposition.
    y : array [n]
        Class indices (integers), or numbers.

    Returns
    -------
    int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, noise = rng.integers(0, 2, 300), rng.normal(size=(300, 20))
    >>> telling_width(noise, y), telling_width(np.column_stack([y + 0.1 * noise[:, 0], noise]), y) > 0
    (0, True)
    """
    target = _indicators(y)
    target = target - target.mean(0)
    n = len(dense)
    constant = ((target / (1 - 1 / n)) ** 2).sum(1)
    found = [(0, constant)]
    for width in _widths(dense.shape[1]):
        u, s, _ = np.linalg.svd(dense[:, :width] - dense[:, :width].mean(0), full_matrices=False)
        errors = [_left_out(u, s, target, penalty) for penalty in _PENALTIES * max(s[0], 1e-30) ** 2]
        found.append((width, min(errors, key=lambda e: float(e.mean()))))
    best = min(found, key=lambda one: float(one[1].mean()))[1]
    if (constant - best).mean() <= SURELY * _error(constant - best):
        return 0
    return next(width for width, e in found if (e - best).mean() <= _error(e - best))


def _widths(most: int) -> list[int]:
    """Return 4, 6, 10, … and the full width.

    Returns
    -------
    list[int]

    Examples
    --------
    >>> _widths(30), _widths(3)
    ([4, 6, 10, 16, 26, 30], [3])
    """
    widths, next_one = [], 4.0
    while round(next_one) < most:
        widths.append(round(next_one))
        next_one *= _STEP
    return [*widths, most]


def _left_out(u: np.ndarray, s: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    shrunk = s**2 / (s**2 + penalty)
    fitted = u @ (shrunk[:, None] * (u.T @ target))
    leverage = 1 / len(u) + (u**2) @ shrunk
    error: np.ndarray = (((target - fitted) / np.clip(1 - leverage, 1e-6, None)[:, None]) ** 2).sum(1)
    return error


def _indicators(y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if np.issubdtype(y.dtype, np.integer):
        return np.eye(int(y.max()) + 1)[y]
    middle = float(np.median(y))
    size = np.abs(y - middle)
    reach = _MOST_SPREADS * float(1.4826 * np.median(size) or size.mean() or 1.0)
    return (np.clip(y, middle - reach, middle + reach) / reach)[:, None].astype(np.float64)


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
