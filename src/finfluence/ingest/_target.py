"""The column to predict: checked, told apart as classes or numbers, and fitted on the training part."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest._dates import are_dates
from finfluence.ingest._marks import Marks
from finfluence.ingest._messages import counted, listed
from finfluence.ingest._numerals import numeral
from finfluence.ingest._table import Target, Task
from finfluence.ingest._truth import truth
from finfluence.ingest._values import (
    MAYBE_UNLABELLED,
    MISSING_TARGET_WORDS,
    class_keys_of,
    class_order,
    look,
    looks_like_code,
)

MAX_INTEGER_CLASSES = 30
_EXACT = 2.0**53
TASKS = ("auto", "classification", "regression")


def choose_task(
    labels: np.ndarray, name: str, task: str = "auto", marks: Marks | None = None
) -> tuple[Task, str]:
    """Return the task and the reason for it, after checking the target's values.

    Whole numbers are classes if there are two of them, or at most `min(30, sqrt(n))`; so are at most as many other
    numbers if two spellings are one number (versions 3.1 and 3.10); other numbers are a regression; everything else is
    a classification.

    Parameters
    ----------
    labels
        Original values, object array.
    name
        Of the target, for messages.
    task
        "auto", "classification" or "regression".
    marks
        The decimal mark of the target; None for a point.

    Returns
    -------
    tuple of str
        The task, and why.

    Raises
    ------
    ConfigError
        `task` is unknown.
    DataError
        Values are missing or lists, only one value occurs, or the values do not fit the task.
    """
    if task not in TASKS:
        raise ConfigError(
            explain(
                f"task to be one of {listed(TASKS)}",
                repr(task),
                "a spelling mistake",
                "leave the option out to let the target decide",
            )
        )
    refuse_several(labels, name)
    _refuse_missing(labels, name)
    spellings = _spellings(labels)
    keys = list(dict.fromkeys(class_keys_of(spellings)))
    values = to_numbers(spellings, marks)
    numeric = not np.isnan(values).any()
    if task == "regression" or numeric:
        _refuse_odd(spellings, values, name)
    _refuse_single(keys, name)
    if task == "regression":
        return "regression", "asked for"
    whole = numeric and bool((values == np.round(values)).all())
    chosen, reason = _decide(len(labels), len(keys), numeric, whole)
    if chosen == "regression" and len(keys) <= _most_classes(len(labels)) and len(set(values)) < len(keys):
        chosen, reason = (
            "classification",
            f"the target holds {len(keys)} spellings of numbers, two of them of one number",
        )
    if task == "classification":
        chosen, reason = "classification", "asked for"
    if chosen == "classification":
        _refuse_singletons(labels, name)
    return chosen, reason


def check_held_out(labels: np.ndarray, name: str, task: Task, marks: Marks | None = None) -> None:
    """Check a hold-out target: nothing missing, no lists, and numbers for a regression.

    Raises
    ------
    DataError
        A value is missing, a list, or no number where training has numbers.
    """
    refuse_several(labels, name)
    _refuse_missing(labels, name)
    if task == "regression":
        spellings = _spellings(labels)
        _refuse_odd(spellings, to_numbers(spellings, marks), name)


def fit_target(labels: np.ndarray, name: str, task: Task, marks: Marks | None = None) -> Target:
    """Return the target's classes, or the mean and scale of its numbers, from training labels."""
    if task == "regression":
        values = to_numbers(labels, marks)
        return Target(name, None, float(values.mean()), float(values.std()) or 1.0, unit_of(labels))
    spellings: dict[object, object] = {}
    distinct = _spellings(labels)
    for key, value in zip(class_keys_of(distinct), distinct, strict=True):
        spellings.setdefault(key, value)
    return Target(name, tuple(sorted(spellings.values(), key=class_order)))


def to_numbers(labels: Iterable[object], marks: Marks | None = None) -> np.ndarray:
    """Return regression targets as float64, NaN for a label that is no number.

    A code (`007`) is none, nor a bound (`<5`), a range or a time; a unit is accepted where all labels carry it.

    Returns
    -------
    np.ndarray

    Examples
    --------
    >>> to_numbers(np.array(["1.5", 2, "x"], dtype=object)).tolist()
    [1.5, 2.0, nan]
    """
    decimal = "." if marks is None else marks.decimal
    labels = list(labels)
    spellings = _spellings(labels)
    units = {
        found.unit for value in spellings if isinstance(value, str) and (found := numeral(value.strip()))
    }
    known = {_spelling(value): _number(value, decimal, len(units) < 2) for value in spellings}
    return np.array([known[_spelling(value)] for value in labels], dtype=np.float64)


def unit_of(labels: np.ndarray) -> str:
    """Return the unit that all labels carry; "" for none."""
    units = {
        found.unit if isinstance(value, str) and (found := numeral(value.strip())) else ""
        for value in _spellings(labels)
    }
    return units.pop() if len(units) == 1 else ""


def class_keys(labels: np.ndarray) -> np.ndarray:
    """Return one small integer per row, equal for equal classes, in the order of their first rows."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in class_keys_of(labels)], dtype=np.int64)


def class_doubts(target: Target) -> tuple[str, ...]:
    """Return what a reader must know of classes that could mean the same, but stay apart.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> class_doubts(Target("t", ("a", "A", "b")))
    ("the target 't' holds 'a' and 'A', which differ in case or spaces alone: they are classes of their own",)
    """
    names, notes = list(target.classes or ()), []
    keys = set(class_keys_of(names))
    if keys & {"true", "false"} and keys & {0, 1}:
        notes.append(
            f"the target {target.name!r} mixes true or false with 0 or 1: they are classes of their own"
        )
    said = [truth(name) for name in names]
    if len(names) > 2 and None not in said and len(set(said)) == 2:
        notes.append(
            f"the target {target.name!r} holds {len(names)} spellings of true and false, {listed(names)}: each is a "
            "class of its own; write them in one way"
        )
    found = [numeral(str(name).strip()) for name in names]
    if len(names) > MAX_INTEGER_CLASSES and None not in found:
        notes.append(
            f"the target {target.name!r} holds {len(names)} numbers that are not written alike, such as "
            f"{listed(_unlike(names), 3)}: each is a class of its own; write them with one unit, or none"
        )
    if len(names) > 2 and all(are_dates(map(str, names))):
        notes.append(
            f"the target {target.name!r} holds dates, such as {str(names[0])!r}: each is a class of its own"
        )
    unsure = [name for name in names if str(name).strip().casefold() in MAYBE_UNLABELLED]
    if unsure and len(names) > 2:
        notes.append(
            f"the target {target.name!r} holds {listed(unsure)}: a class of its own; leave those rows out if they were "
            "never labelled"
        )
    folded: dict[str, list[object]] = {}
    numbers: dict[float, list[object]] = {}
    for name, value in zip(names, to_numbers(names), strict=True):
        folded.setdefault(look(name), []).append(name)
        if abs(value) < _EXACT:
            numbers.setdefault(value, []).append(name)
    for alike, how in ((folded, ""), (numbers, "are one number")):
        for several in alike.values():
            if len(several) > 1 and len({type(name) for name in several}) == 1:
                simple = len({" ".join(str(name).casefold().split()) for name in several}) == 1
                words = how or ("differ in case or spaces alone" if simple else "look alike")
                what = " and ".join(map(ascii if words == "look alike" else repr, several))
                notes.append(
                    f"the target {target.name!r} holds {what}, which {words}: they are classes of their own"
                )
    return tuple(notes)


def _unlike(names: list[object]) -> list[str]:
    """Return one name for each unit or kind of number."""
    kinds: dict[tuple[str, str], str] = {}
    for name in map(str, names):
        found = numeral(name.strip())
        if found is not None:
            kinds.setdefault((found.unit, found.loose), name)
    return list(kinds.values())


def spellings_of_one(labels: np.ndarray, name: str) -> tuple[str, ...]:
    """Return a note on each class that the labels write in several ways.

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> spellings_of_one(np.array(["1", "1.0", "2", "1"], dtype=object), "t")
    ("the target 't' writes one class in several ways, '1' (2 rows) and '1.0' (1 row): taken as one",)
    """
    texts = [str(label).strip() for label in labels]
    ways: dict[object, Counter[str]] = {}
    for key, text in zip(class_keys_of(labels), texts, strict=True):
        ways.setdefault(key, Counter())[text] += 1
    return tuple(
        f"the target {name!r} writes one class in several ways, "
        + " and ".join(f"{text!r} ({counted(count, 'row')})" for text, count in found.most_common(3))
        + ": taken as one"
        for found in ways.values()
        if len(found) > 1
    )


def refuse_several(labels: np.ndarray, name: str) -> None:
    """Refuse labels that are lists or records.

    Raises
    ------
    DataError
        A label is a list, a set, an array or a record.
    """
    several = [
        i for i, value in enumerate(labels) if isinstance(value, list | tuple | dict | set | np.ndarray)
    ]
    if several:
        value = labels[several[0]]
        raise DataError(
            explain(
                f"one label per row in the target {name!r}",
                f"{'records' if isinstance(value, dict) else 'lists'} in {len(several)} of {len(labels)} rows, such as "
                f"{value!r} in row {several[0]}",
                "several labels per row (multi-label data), which is not supported",
                "make a column with one label per row, or one column of yes and no for each label and scan them one "
                "by one",
            )
        )


def _most_classes(n: int) -> int:
    return max(2, min(MAX_INTEGER_CLASSES, math.isqrt(n)))


def _decide(n: int, k: int, numeric: bool, whole: bool) -> tuple[Task, str]:
    if not numeric:
        return "classification", f"the target holds {k} different texts"
    if whole and k <= _most_classes(n):
        return "classification", f"the target holds {k} different whole numbers in {n} rows"
    what = f"{k} different {'whole ' if whole else ''}numbers"
    return "regression", f"the target holds {what} in {n} rows"


def _spelling(value: object) -> tuple[type, object]:
    return type(value), value


def _spellings(labels: Iterable[object]) -> list[object]:
    """Return the different values, true apart from 1 and "1", in the order of their first rows."""
    return list({_spelling(value): value for value in labels}.values())


def _number(value: object, decimal: str, one_unit: bool) -> float:
    """Return a label as a number, NaN if it is none."""
    if isinstance(value, bool | np.bool_):
        return math.nan
    if isinstance(value, int | float | np.number):
        return float(value)
    text = str(value).strip()
    found = None if looks_like_code([text]) else numeral(text)
    if found is None or found.loose or (found.unit and not one_unit):
        return math.nan
    return float(found.plain(decimal) or math.nan)


def _refuse_odd(spellings: list[object], values: np.ndarray, name: str) -> None:
    odd = [label for label, value in zip(spellings, values, strict=True) if not math.isfinite(value)]
    if odd:
        raise DataError(
            explain(
                f"finite numbers in the target {name!r}",
                listed(odd),
                "a division by zero, units written into the cells, or another column than intended",
                "clean the column, or use --task classification if the values are classes",
            )
        )


def _refuse_missing(labels: np.ndarray, name: str) -> None:
    series = pd.Series(labels, dtype=object)
    words = series.map(
        lambda value: isinstance(value, str) and value.strip().casefold() in MISSING_TARGET_WORDS
    )
    missing = np.flatnonzero(series.isna() | words.astype(bool))
    if len(missing):
        raise DataError(
            explain(
                f"a value of the target {name!r} in every row",
                f"{len(missing)} of {len(labels)} rows have none: rows {listed(missing)} (the first is 0)",
                "rows that were never labelled",
                "leave those rows out, or label them",
            )
        )


def _refuse_single(keys: list[object], name: str) -> None:
    if len(keys) < 2:
        raise DataError(
            explain(
                f"at least two different values of the target {name!r}",
                f"one: {listed(keys)}",
                "a filtered file, or another column than intended",
                "add rows of the other classes, or name another target",
            )
        )


def _refuse_singletons(labels: np.ndarray, name: str) -> None:
    counts = np.bincount(class_keys(labels))
    alone = int((counts == 1).sum())
    if alone > len(counts) / 2 and len(counts) > 2:
        raise DataError(
            explain(
                f"classes of the target {name!r} with several rows each",
                f"{len(counts)} classes in {len(labels)} rows, {alone} of them with a single row",
                "a column of names, ids, free text or measurements; or numbers that are not written alike (some with a "
                "unit, bounds such as <5)",
                "name another target, or use --task regression if the values are plain numbers, all with one unit or "
                "none",
            )
        )
