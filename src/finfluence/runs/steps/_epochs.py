"""Where epochs begin, and whether rows are drawn with replacement: read off the rows of the steps."""

from collections.abc import Sequence

import numpy as np

from finfluence.errors import ConfigError, DataError, explain

SAMPLINGS = ("detect", "reshuffle", "independent")


def find_epochs(
    order: Sequence[np.ndarray], ids: np.ndarray, sampling: str, steps_per_epoch: int | None
) -> tuple[list[range], bool]:
    """Return (steps of each epoch, whether rows are reshuffled within each).

    Reshuffled: an epoch lasts until a row comes again; by then all rows have been used, but for fewer than a batch
    (dropped at its end). Otherwise batches are drawn independently, and an epoch is as many steps as see n rows.

    Parameters
    ----------
    order : sequence of int arrays
        Row positions of each step.
    ids : array [n]
        The rows' names, for messages.
    sampling : {"detect", "reshuffle", "independent"}
        *detect*: independent if the rows repeat as often as draws with replacement do.
    steps_per_epoch : int, optional
        The length of an epoch, where the loop leaves it early.

    Returns
    -------
    tuple[list[range], bool]

    Raises
    ------
    DataError
        A row comes twice in an epoch, or rows are missing from one.

    Examples
    --------
    >>> steps = [np.array(rows) for rows in ([3, 1], [0, 2], [1, 2], [3, 0], [2, 0])]
    >>> find_epochs(steps, np.arange(4), "detect", None)
    ([range(0, 2), range(2, 4), range(4, 5)], True)
    """  # noqa: DOC501 - made by a function; the assertion is ours
    n = len(ids)
    if sampling == "independent":
        return _by_count(order, n), False
    if steps_per_epoch is not None:
        epochs = [
            range(s, min(s + steps_per_epoch, len(order))) for s in range(0, len(order), steps_per_epoch)
        ]
        for epoch in epochs:
            twice = _first_repeat(order, epoch, n)
            if twice is not None:
                raise _repeated(ids[twice[0]], twice[1], twice[2], len(epoch) * len(order[epoch[0]]), n)
        return epochs, True
    epochs = _until_repeat(order, n)
    largest = max(len(rows) for rows in order)
    short = [e for e in epochs[:-1] if sum(len(order[t]) for t in e) <= n - largest]
    within = next((t for t, rows in enumerate(order) if len(np.unique(rows)) < len(rows)), None)
    if not short and within is None:
        return epochs, True
    used, first = np.unique(np.concatenate(list(order))), epochs[0]
    if within is None and len(used) < n and sum(len(order[t]) for t in first) == len(used):
        missing = np.setdiff1d(np.arange(n), used)
        raise DataError(
            explain(
                f"every epoch to use all {n} rows, but for the rest of a last batch",
                f"epochs of {len(used)} rows; {len(missing)} rows are in none, such as id {ids[missing[0]].item()!r}",
                "the loader reads a part of the data, or ids of some steps are missing",
                "pass as data= the rows that the loader reads, and to tape.step all ids of the step",
            )
        )
    if sampling == "detect" and _with_replacement(order, n):
        return _by_count(order, n), False
    repeated = range(within, within + 1) if within is not None else range(short[0].start, short[0].stop + 1)
    twice = _first_repeat(order, repeated, n)
    if twice is None:
        raise AssertionError("an epoch that ends has a row that comes again")
    raise _repeated(ids[twice[0]], twice[1], twice[2], sum(len(order[t]) for t in (short or [first])[0]), n)


def check_sampling(sampling: object, steps_per_epoch: object) -> None:
    """Raise unless the two arguments of `Tape.record` can be used.

    Raises
    ------
    ConfigError
    """
    whole = isinstance(steps_per_epoch, (int, np.integer)) and not isinstance(steps_per_epoch, bool)
    if sampling in SAMPLINGS and (steps_per_epoch is None or (whole and int(steps_per_epoch) >= 1)):  # type: ignore[call-overload]
        return
    wrong = sampling not in SAMPLINGS
    raise ConfigError(
        explain(
            f"sampling to be one of {', '.join(SAMPLINGS)}"
            if wrong
            else "steps_per_epoch to be None or at least 1",
            repr(sampling if wrong else steps_per_epoch),
            "a mistyped argument",
            "leave it out: both are read off the ids",
        )
    )


def _until_repeat(order: Sequence[np.ndarray], n: int) -> list[range]:
    """Cut where a row comes again."""
    last = np.full(n, -1)
    starts = [0]
    for t, rows in enumerate(order):
        if (last[rows] >= starts[-1]).any():
            starts.append(t)
        last[rows] = t
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(order)], strict=True)]


def _by_count(order: Sequence[np.ndarray], n: int) -> list[range]:
    """Cut after every n rows."""
    seen = np.cumsum([len(rows) for rows in order])
    ends = [int(np.searchsorted(seen, k * n)) + 1 for k in range(1, int(seen[-1] // n) + 1)]
    ends = sorted({*(e for e in ends if e < len(order)), len(order)})
    return [range(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _with_replacement(order: Sequence[np.ndarray], n: int) -> bool:
    """Whether the first n draws hold no more different rows than draws with replacement do, within 6 errors."""
    drawn = np.concatenate(list(order))[:n]
    k = len(drawn)
    never = (1 - 1 / n) ** k
    both = (1 - 2 / n) ** k
    variance = n * never * (1 - never) + n * (n - 1) * (both - never**2)
    return bool(len(np.unique(drawn)) <= n * (1 - never) + 6 * max(variance, 0.0) ** 0.5)


def _first_repeat(order: Sequence[np.ndarray], steps: range, n: int) -> tuple[int, int, int] | None:
    """Return (row, step, later step) of the first row that comes twice in these steps."""
    last = np.full(n, -1)
    for t in steps:
        if t >= len(order):
            break
        for row in order[t].tolist():
            if last[row] >= 0:
                return row, int(last[row]), t
            last[row] = t
    return None


def _repeated(row: object, first: int, again: int, used: int, n: int) -> DataError:
    name = row.item() if isinstance(row, np.generic) else row
    return DataError(
        explain(
            "each row at most once in an epoch",
            f"row {name!r} at step {first} and again at step {again}, after {used} of {n} rows",
            "the loader draws with replacement, leaves epochs early, or ids are not those of the step",
            "pass sampling='independent' or steps_per_epoch=… to Tape.record, or the ids of each step's own rows",
        )
    )
