"""The hold-out target in the words and numbers of the training target."""

import numpy as np
import pandas as pd

from finfluence.errors import DataError, explain
from finfluence.ingest._columns import Column, sentinels, sizes
from finfluence.ingest._messages import counted, listed, nearest
from finfluence.ingest._parts import number_part, out_of_place
from finfluence.ingest._raw import RawTable
from finfluence.ingest._table import Target
from finfluence.ingest._target import to_numbers, unit_of
from finfluence.ingest._truth import truth, truth_levels
from finfluence.ingest._values import class_keys_of

FAR = 5.0


def in_training_words(held: RawTable, target: Target) -> tuple[RawTable, tuple[str, ...]]:
    """Return the hold-out part with truth values written as in training, and what was changed.

    Returns
    -------
    tuple[RawTable, tuple[str, ...]]

    Raises
    ------
    DataError
        A class that training never shows.
    """
    if target.classes is None:
        return held, ()
    known = set(class_keys_of(target.classes))
    keys = class_keys_of(held.labels)
    unseen: dict[object, int] = {}
    for key, value in zip(keys, held.labels, strict=True):
        if key not in known:
            unseen[str(value)] = unseen.get(str(value), 0) + 1
    if not unseen:
        return held, ()
    said = truth_levels(str(name) for name in target.classes)
    theirs = [truth(value) for value in held.labels]
    if said is not None and len(target.classes) == 2 and None not in theirs:
        by_truth = {said[str(name)]: name for name in target.classes}
        note = f"the hold-out target writes {listed(unseen)} where training writes {listed(target.classes)}: mapped"
        return held.with_labels([by_truth[bool(value)] for value in theirs]), (note,)
    first = str(next(iter(unseen)))
    raise DataError(
        explain(
            f"hold-out rows of the {len(known)} training classes: {listed(target.classes, 10)}",
            "classes that training never shows: "
            + listed(f"{value} ({counted(count, 'row')})" for value, count in unseen.items())
            + nearest(first, target.classes),
            "a spelling that differs, or a rare class that fell into one part",
            "correct the spelling, or leave those rows out of the hold-out part",
        )
    )


def target_doubts(train: RawTable) -> tuple[str, ...]:
    """Return what a reader must know of how the numbers of the target were read."""
    values = to_numbers(train.labels, train.marks)
    said = ((train.marks.note,) if train.marks.note else ()) + sentinels(values, "leave these rows out")
    return tuple(f"target {train.target_name!r}: {note}" for note in said)


def held_numbers(train: RawTable, held: RawTable, target: Target) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the hold-out targets of a regression in training's unit, and what a reader must know.

    Returns
    -------
    tuple[np.ndarray, tuple[str, ...]]

    Raises
    ------
    DataError
        A target that is no number in training's unit.
    """
    marks, own = train.marks, held.marks if held.reading is train.reading else held.marks_beside(train)
    unit = unit_of(train.labels)
    values = to_numbers(held.labels, own)
    said: tuple[str, ...] = ()
    if held.reading is not train.reading:
        column = Column(
            target.name, "number", "number", marks=marks, unit=unit, **sizes(to_numbers(train.labels, marks))
        )
        evidence = held.reading.marks.columns.get(target.name)
        doubtful = evidence is not None and evidence.doubtful > 0
        if doubtful or marks.decimal != own.decimal or unit != unit_of(held.labels):
            series = pd.Series(held.labels, index=held.ids, name=target.name, dtype=object)
            values, account = number_part(column, series, held.reading, train.reading)
            said = account.notes
        else:
            said = out_of_place(column, values)
    notes = tuple(f"hold-out target {target.name!r}: {note}" for note in said)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            explain(
                f"numbers in the hold-out target {target.name!r}{f' in {unit}' if unit else ''}, as in training",
                f"{len(bad)} of {len(values)} cells that cannot be read so, such as {held.labels[bad[0]]!r}",
                "another unit than in the training file",
                "write both files in the same way",
            )
        )
    far = np.abs(values - target.mean) > FAR * target.scale
    if far.mean() > 0.5:
        notes += (
            f"hold-out target {target.name!r}: {int(far.sum())} of {len(values)} numbers lie more than {FAR:g} "
            "standard deviations from training's mean: is it in another unit?",
        )
    return values, notes
