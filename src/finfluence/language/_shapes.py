"""Few padded shapes: each new one costs a trace, and each token of padding costs time."""

from dataclasses import dataclass

import numpy as np

_MULTIPLE = 8
_LENGTHS, _RESPONSES = 3, 2
_OF_ROWS, _SELDOM = (0.25, 0.5, 0.75), 0.1


@dataclass(frozen=True)
class Shapes:
    """The padded shapes of batches: lengths, and for each of them the numbers of response tokens.

    Attributes
    ----------
    lengths : tuple of int
        In ascending order.
    responses : tuple of tuple of int
        Of each length, in ascending order.
    """

    lengths: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    def of(self, length: int, response: int) -> tuple[int, int]:
        """Return the least shape that holds texts of these lengths; what no shape holds is only rounded up."""
        for padded, choices in zip(self.lengths, self.responses, strict=True):
            if length <= padded:
                fits = [r for r in choices if response <= r]
                return (padded, fits[0]) if fits else (padded, _up(response))
        return _up(length), _up(response)


def choose_shapes(lengths: np.ndarray, responses: np.ndarray, batch_size: int) -> Shapes:
    """Choose few shapes, so that batches of this size fall into the lesser ones as often as into the larger.

    A batch is as long as its longest row. With F the distribution of lengths, that of the longest of B is F^B; the
    edges stand at its quantiles 1/3, 2/3 and 1, rounded up to a multiple of 8. Where rows of like size are put
    together, batches are shorter than those of training: for them there are edges at the quartiles of F, too, if fewer
    than a tenth of the training's batches lie below, F^B < 0.1.

    Parameters
    ----------
    lengths, responses : array [n]
        Tokens of each row, and those that its loss is of.
    batch_size : int
        B.

    Returns
    -------
    Shapes

    Examples
    --------
    >>> choose_shapes(np.array([5, 9, 30]), np.array([2, 3, 20]), batch_size=1)
    Shapes(lengths=(16, 32), responses=((8,), (8, 24)))
    >>> choose_shapes(np.arange(1, 101), np.full(100, 8), batch_size=50).lengths
    (32, 56, 80, 104)
    """
    edges = _edges(lengths, batch_size, _LENGTHS)
    inner = tuple(_edges(responses[lengths <= edge], batch_size, _RESPONSES) for edge in edges)
    return Shapes(edges, inner)


def _edges(values: np.ndarray, batch_size: int, count: int) -> tuple[int, ...]:
    inner = [share for share in _OF_ROWS if share**batch_size < _SELDOM]
    shares = [*inner, *(np.arange(1, count + 1) / count) ** (1 / batch_size)]
    found = np.quantile(values, shares, method="higher")
    return tuple(sorted({_up(int(v)) for v in found}))


def _up(value: int) -> int:
    return -(-value // _MULTIPLE) * _MULTIPLE
