"""Training part and hold-out part, with all that is estimated taken from the training part alone."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from finfluence._seeds import stream
from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest._encoding import Encoded, encode
from finfluence.ingest._held_target import held_numbers, in_training_words, target_doubts
from finfluence.ingest._leaks import copies_with_other_labels, repeated_rows
from finfluence.ingest._messages import listed, nearest
from finfluence.ingest._raw import RawTable
from finfluence.ingest._read import read_like
from finfluence.ingest._same_layout import check_same_layout
from finfluence.ingest._scaling import to_pictures
from finfluence.ingest._table import Table, Target
from finfluence.ingest._target import class_doubts, class_keys, fit_target, spellings_of_one, to_numbers

DEFAULT_FRACTION = 0.2


def split(
    raw: RawTable,
    holdout: str | os.PathLike[str] | RawTable | None = None,
    holdout_fraction: float | None = None,
    seed: int = 0,
) -> tuple[Table, Table]:
    """Return the training part and the hold-out part, ready for a model.

    Parameters
    ----------
    raw
        What `read` returned.
    holdout
        A file or folder of the same layout (or a `RawTable`) to hold out; then all of `raw` is for training.
    holdout_fraction
        Share of rows to hold out, drawn by `seed`, in each class alike. None takes the official hold-out part
        of a built-in set that has one, else 0.2. A class with a single row stays in training.
    seed
        Seed of the draw and of the projection of texts.

    Returns
    -------
    tuple of Table
        Training and hold-out rows, each in the order of the file, with the same features.

    Raises
    ------
    DataError
        Too few rows, or a hold-out part with other columns or with classes that training does not know.
    ConfigError
        `holdout_fraction` is not between 0 and 1, or does not go with a hold-out file.
    """
    return prepare(parts(raw, holdout, holdout_fraction, seed), seed)[:2]


@dataclass(frozen=True, eq=False)
class Parts:
    """Training rows and hold-out rows as read, what was decided, and the file that the training rows are of."""

    train: RawTable
    held: RawTable
    whole: RawTable
    notes: tuple[str, ...] = ()


def _alone(labels: np.ndarray) -> tuple[str, ...]:
    """Return a note on classes of one row, which may be errors of spelling or a line that belongs to no row."""
    keys = class_keys(labels)
    counts = np.bincount(keys)
    names = [str(labels[np.flatnonzero(keys == key)[0]]) for key in np.flatnonzero(counts == 1)]
    if not names:
        return ()
    several = "classes" if len(names) > 1 else "class"
    return (
        f"{several} of a single row in the target: {listed(names)}; it stays in training, and nothing can test it",
    )


def parts(
    raw: RawTable,
    holdout: str | os.PathLike[str] | RawTable | None,
    holdout_fraction: float | None,
    seed: int,
) -> Parts:
    """Return the two parts before anything is estimated; arguments as of `split`."""
    if holdout is not None and holdout_fraction is not None:
        raise ConfigError(
            explain(
                "either a hold-out file or a hold-out fraction",
                f"both ({holdout_fraction} and a file)",
                "options copied from two commands",
                "leave one of them out",
            )
        )
    if holdout is not None:
        other = holdout if isinstance(holdout, RawTable) else read_like(raw, holdout)
        _check_same_layout(raw, other)
        return Parts(raw, other, raw)
    if raw.official is not None and holdout_fraction is None:
        return Parts(raw, raw.official, raw)
    fraction = DEFAULT_FRACTION if holdout_fraction is None else holdout_fraction
    train, held, notes = _draw(raw, fraction, seed)
    return Parts(raw.take(train), raw.take(held), raw, notes)


def _draw(raw: RawTable, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    if not 0 < fraction < 1:
        raise ConfigError(
            explain(
                "a hold-out fraction between 0 and 1",
                str(fraction),
                "a percentage instead of a fraction" if fraction >= 1 else "no rows to hold out",
                "use 0.2 for one row in five",
            )
        )
    if len(raw) < 4:
        raise DataError(
            explain(
                "at least 4 rows to split into training and hold-out",
                f"{len(raw)} rows",
                "a sample file instead of the data",
                "give more rows, or a hold-out file by --holdout",
            )
        )
    keys = class_keys(raw.labels) if raw.task == "classification" else np.zeros(len(raw), dtype=np.int64)
    held = []
    for key in range(int(keys.max()) + 1):
        members = np.flatnonzero(keys == key)
        count = int(np.clip(round(fraction * len(members)), 1, len(members) - 1)) if len(members) > 1 else 0
        held.append(stream(seed, "hold-out", key).permutation(members)[:count])
    mask = np.zeros(len(raw), dtype=bool)
    mask[np.concatenate(held)] = True
    notes = [f"hold-out: {int(mask.sum())} of {len(raw)} rows, drawn by seed {seed}"]
    if raw.task == "classification":
        notes[0] += ", in each class alike"
    return np.flatnonzero(~mask), np.flatnonzero(mask), tuple(notes)


def _check_same_layout(raw: RawTable, other: RawTable) -> None:
    another = "name another file, or leave --holdout out to draw hold-out rows"
    check_same_layout(
        raw, other, "hold-out", "hold-out rows", another, "give hold-out data of the same format"
    )
    if raw.frame is not None and other.frame is not None:
        spare = {raw.id_column, raw.group_column} - {other.id_column, other.group_column}
        _check_columns([name for name in raw.frame.columns if name not in spare], list(other.frame.columns))


def _check_columns(ours: list[str], theirs: list[str]) -> None:
    lacking = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    if not lacking and not extra:
        return
    got = [f"lacks {listed(lacking)}"] if lacking else []
    got += [f"has {listed(extra)} in addition"] if extra else []
    hint = nearest(lacking[0], extra) if lacking else ""
    raise DataError(
        explain(
            f"the hold-out file to have the {len(ours)} columns of the training file",
            f"it {' and '.join(got)}{hint}",
            "files of two exports, or a renamed column",
            "export both files with the same columns (their order does not matter)",
        )
    )


def prepare(given: Parts, seed: int) -> tuple[Table, Table, Encoded]:
    """Return both parts ready for a model, and what encodes further rows as the hold-out was encoded.

    Returns
    -------
    tuple of Table, Table, Encoded

    Raises
    ------
    DataError
        As of `split`.
    """
    train, held, notes = given.train, given.held, given.notes
    if len(train) < 2 or len(held) < 1:
        raise DataError(
            explain(
                "at least two training rows and one hold-out row",
                f"{len(train)} and {len(held)}",
                "a sample file instead of the data",
                "give more rows",
            )
        )
    target = fit_target(train.labels, train.target_name, train.task, train.marks)
    held, said = in_training_words(held, target)
    said = (*class_doubts(target), *said)
    if train.task == "regression":
        y = target.encode(to_numbers(train.labels, train.marks))
        numbers, more = held_numbers(train, held, target)
        y_held, said = target.encode(numbers), (*said, *target_doubts(train), *more)
    else:
        y, y_held = target.encode(train.labels), target.encode(held.labels)
        said = (*spellings_of_one(train.labels, target.name), *said, *_alone(given.whole.labels))
        said += _untested(target, held, y, y_held)
    encoded = encode(train, held, seed, given.whole, y)
    named = dict.fromkeys(
        name for name in (train.target_name, train.id_column, train.group_column) if name is not None
    )
    drawn = held.reading is train.reading and held.source.digest == train.source.digest
    theirs = () if held.doubts == train.doubts else tuple(f"hold-out: {doubt}" for doubt in held.doubts)
    warnings = (
        *train.doubts,
        *theirs,
        *said,
        *encoded.warnings,
        *repeated_rows(encoded.train, encoded.held, drawn),
        *(copies_with_other_labels(encoded.train, y) if train.task == "classification" else ()),
    )
    shared: dict[str, Any] = {
        "task": train.task,
        "target": target,
        "kind": train.kind,
        "features": encoded.features,
        "used": encoded.used,
        "dropped": encoded.dropped,
        "notes": (
            *train.notes,
            *notes,
            *(
                f"column {name!r}: {how}"
                for name, how in encoded.used.items()
                if "missing" in how or "comma" in how
            ),
            *warnings,
        ),
        "warnings": warnings,
        "column_decisions": encoded.decisions,
        "shown_first": tuple(named),
    }
    return (
        _table(train, encoded.train, y, encoded.low_high, shared),
        _table(held, encoded.held, y_held, encoded.low_high, shared),
        encoded,
    )


def _untested(target: Target, held: RawTable, y: np.ndarray, y_held: np.ndarray) -> tuple[str, ...]:
    """Return a note on classes of several training rows that no hold-out row has."""
    counts = np.bincount(y, minlength=len(target.classes or ()))
    names = [
        name for k, name in enumerate(target.classes or ()) if counts[k] > 1 and k not in set(y_held.tolist())
    ]
    if not names:
        return ()
    what = f"the hold-out has no row of the {'class' if len(names) == 1 else 'classes'} {listed(names)}"
    return (f"{what}: nothing can test what is said of {'it' if len(names) == 1 else 'them'}",)


def _table(
    raw: RawTable, x: np.ndarray, y: np.ndarray, low_high: tuple[float, float], shared: dict[str, Any]
) -> Table:
    return Table(
        x=x,
        y=y,
        ids=raw.ids,
        groups=raw.groups,
        frame=raw.frame,
        source=raw.source,
        pictures=None if raw.pixels is None else to_pictures(raw.pixels, *low_high),
        **shared,
    )
