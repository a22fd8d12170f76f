"""The column to predict: checked, told apart as classes or numbers, and fitted on the training part."""

import math

import numpy as np
import pandas as pd

from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest._messages import listed
from finfluence.ingest._table import Target, Task
from finfluence.ingest._values import MISSING_TARGET_WORDS, canonical, class_order

MAX_INTEGER_CLASSES = 30
TASKS = ("auto", "classification", "regression")


def choose_task(labels: np.ndarray, name: str, task: str = "auto", decimal: str = ".") -> tuple[Task, str]:
    """Return the task and the reason for it, after checking the target's values.

    Whole numbers are classes if there are two of them, or at most `min(30, sqrt(n))`; other numbers are
    a regression; everything else is a classification.

    Raises
    ------
    ConfigError
        `task` is unknown.
    DataError
        Values are missing, only one value occurs, or the values do not fit the task.
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
    _refuse_missing(labels, name)
    keys = _distinct(labels)
    values = [_number(key, decimal) for key in keys]
    numeric = not any(math.isnan(value) for value in values)
    if task == "regression" or numeric:
        _refuse_odd(keys, values, name)
    _refuse_single(keys, name)
    if task == "regression":
        return "regression", "asked for"
    whole = numeric and all(value == round(value) for value in values)
    chosen, reason = _decide(len(labels), len(keys), numeric, whole)
    if task == "classification":
        chosen, reason = "classification", "asked for"
    if chosen == "classification":
        _refuse_singletons(labels, name)
    return chosen, reason


def check_held_out(labels: np.ndarray, name: str, task: Task, decimal: str = ".") -> None:
    """Check a hold-out target: nothing missing, and numbers for a regression."""
    _refuse_missing(labels, name)
    if task == "regression":
        keys = _distinct(labels)
        _refuse_odd(keys, [_number(key, decimal) for key in keys], name)


def fit_target(labels: np.ndarray, name: str, task: Task, decimal: str = ".") -> Target:
    """Return the target's classes, or the mean and scale of its numbers, from training labels."""
    if task == "regression":
        values = to_numbers(labels, decimal)
        return Target(name, None, float(values.mean()), float(values.std()) or 1.0)
    spellings: dict[object, object] = {}
    for value in pd.unique(pd.Series(labels, dtype=object)):
        spellings.setdefault(canonical(value), value)
    return Target(name, tuple(sorted(spellings.values(), key=class_order)))


def to_numbers(labels: np.ndarray, decimal: str = ".") -> np.ndarray:
    """Return regression targets as float64."""
    return np.array([_number(canonical(value), decimal) for value in labels], dtype=np.float64)


def class_keys(labels: np.ndarray) -> np.ndarray:
    """Return one small integer per row, equal for equal classes."""
    codes, uniques = pd.factorize(pd.Series(labels, dtype=object))
    merged, _ = pd.factorize(pd.Series([canonical(value) for value in uniques], dtype=object))
    return merged[codes]


def _decide(n: int, k: int, numeric: bool, whole: bool) -> tuple[Task, str]:
    if not numeric:
        return "classification", f"the target holds {k} different texts"
    limit = max(2, min(MAX_INTEGER_CLASSES, math.isqrt(n)))
    if whole and k <= limit:
        return "classification", f"the target holds {k} different whole numbers in {n} rows"
    what = f"{k} different {'whole ' if whole else ''}numbers"
    return "regression", f"the target holds {what} in {n} rows"


def _distinct(labels: np.ndarray) -> list[object]:
    return list(dict.fromkeys(canonical(value) for value in pd.unique(pd.Series(labels, dtype=object))))


def _number(key: object, decimal: str) -> float:
    """Return a canonical value as a number, NaN if it is none."""
    if isinstance(key, str) and decimal == "," and key.count(",") == 1:
        key = canonical(key.replace(".", "").replace(",", "."))
    if isinstance(key, str) and key.lower().lstrip("+-") in ("inf", "infinity"):
        return math.inf
    return key if isinstance(key, float) else math.nan


def _refuse_odd(keys: list[object], values: list[float], name: str) -> None:
    odd = [key for key, value in zip(keys, values, strict=True) if not math.isfinite(value)]
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
                "a column of names, ids, free text or measurements",
                "name another target, or use --task regression if the values are numbers",
            )
        )
