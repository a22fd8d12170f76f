"""Columns that hold the label in other words are said, honest ones are not; so are hold-out rows known from training."""

import numpy as np
import pandas as pd
import pytest

from finfluence.ingest import from_frame, split

N = 300
RNG = np.random.default_rng(5)
Y = RNG.integers(0, 2, N)
LABELS = np.array(["ham", "spam"])[Y]
NUMBERS = RNG.normal(100, 20, N)
THREE = RNG.integers(0, 3, N)
SPOILT = np.where(RNG.random(N) < 0.1, 1 - Y, Y)


def warned(column, labels=LABELS, **others):
    frame = pd.DataFrame({"a": column, "b": RNG.normal(size=N), **others, "label": labels})
    train, _ = split(from_frame(frame, "label"))
    line = train.column_decisions.set_index("column").loc["a"]
    said = [warning for warning in train.warnings if warning.startswith("column 'a': ")]
    assert bool(said) == bool(line["note"]) and line["used_as"]
    return said


LEAKS = {
    "copy": LABELS,
    "another case": np.char.upper(LABELS),
    "codes": Y,
    "other codes": 7 - 3 * Y,
    "yes and no": np.where(Y == 1, "yes", "no"),
    "score": (Y + RNG.normal(0, 0.1, N)).round(3),
    "probability": np.clip(Y * 0.9 + RNG.uniform(0, 0.1, N), 0, 1),
    "sentence": [f"{label} number {i % 9}" for i, label in enumerate(LABELS)],
    "missing in one class": np.where(Y == 1, np.nan, RNG.normal(size=N)),
    "date of a class": [f"{'2021-05' if y else '2020-03'}-{1 + i % 28:02d}" for i, y in enumerate(Y)],
    "one in a hundred wrong": np.where(np.arange(N) % 100 == 0, 1 - Y, Y),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_what_gives_the_label_away_is_said(name):
    assert "it alone tells the label" in warned(LEAKS[name])[0]


@pytest.mark.parametrize(
    "column",
    [NUMBERS, 3 * NUMBERS + 5, np.exp(NUMBERS / 50), -NUMBERS, NUMBERS + RNG.normal(0, 0.5, N)],
    ids=["copy", "another scale", "exponential", "negative", "rounded"],
)
def test_twins_of_a_number_are_said(column):
    assert "it alone tells the label" in warned(column, NUMBERS)[0]


def test_the_label_before_it_was_spoilt_is_said():
    said = warned(LABELS, np.array(["Ham", "Spam"])[SPOILT])
    assert "cells are the label itself" in said[0]


def test_one_hot_copies_are_said():
    labels = np.array(["cat", "dog", "fox"])[THREE]
    said = warned((THREE == 2).astype(int), labels)
    assert said == ["column 'a': it marks the class 'fox': leave it out if it was made from the label"]
    assert "it marks the class 'cat'" in warned(np.where(THREE == 0, "x", "y"), labels)[0]


HONEST = {
    "strong": Y + RNG.normal(0, 0.6, N),
    "noise": RNG.normal(size=N),
    "another flag": RNG.integers(0, 2, N),
    "same words, no agreement": np.array(["ham", "spam"])[RNG.integers(0, 2, N)],
    "category": np.array(list("abcdefgh"))[RNG.integers(0, 8, N)],
}


@pytest.mark.parametrize("name", HONEST)
def test_what_helps_honestly_is_not_said(name):
    assert not warned(HONEST[name])


def test_agreement_by_chance_is_not_said():
    labels = np.where(RNG.random(N) < 0.95, "no", "yes")
    assert not warned(np.where(RNG.random(N) < 0.95, "no", "yes"), labels)


def test_the_only_column_is_not_told_to_be_left_out():
    train, _ = split(from_frame(pd.DataFrame({"a": LABELS, "label": LABELS}), "label"))
    assert not any("leave it out" in warning for warning in train.warnings)


@pytest.mark.parametrize("again", [0, 2, 30])
def test_hold_out_rows_known_from_training_are_said(again):
    frame = pd.DataFrame({"a": RNG.normal(size=N), "b": RNG.normal(size=N), "label": LABELS})
    other = pd.DataFrame({"a": RNG.normal(size=100), "b": RNG.normal(size=100), "label": LABELS[:100]})
    other.iloc[:again, :2] = frame.iloc[:again, :2].to_numpy()
    train, _ = split(from_frame(frame, "label"), from_frame(other, "label"))
    words = f"{again} of 100 hold-out rows have the very features of a training row"
    assert any(warning.startswith(words) for warning in train.warnings) == (again == 30)
