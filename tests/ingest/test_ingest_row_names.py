"""Columns that number or name the rows are left out, and columns that mean something stay."""

import hashlib
import uuid

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import DataError
from finfluence.ingest import from_frame, split

N = 200
RNG = np.random.default_rng(0)

NAMES = {
    "a permutation": RNG.permutation(N),
    "a permutation from 1": RNG.permutation(N) + 1,
    "a permutation from 1000": RNG.permutation(N) + 1000,
    "in order": np.arange(N),
    "backwards": np.arange(N)[::-1],
    "steps of ten, shuffled": 10 * RNG.permutation(N),
    "thinned and sorted": np.sort(RNG.choice(2 * N, N, replace=False)),
    "thinned and shuffled": RNG.choice(2 * N, N, replace=False),
    "two files": [*range(N // 2)] * 2,
    "sorted serial numbers": np.cumsum(RNG.integers(1, 900, N)),
    "as texts": [f"{i}.0" for i in RNG.permutation(N)],
    "with gaps": [None if i % 50 == 3 else i for i in RNG.permutation(N)],
    "review_id": RNG.choice(10**7, N, replace=False),
    "reviewId": np.repeat(RNG.choice(10**7, N // 2, replace=False), 2),
    "Unnamed: 0": RNG.choice(10**7, N, replace=False),
    "64 bits": [str(2**60 + int(v)) for v in RNG.integers(0, 2**40, N)],
    "neighbours beyond 2^53": 2**53 + np.random.default_rng(1).permutation(N),
    "the same as texts": [str(2**53 + int(i)) for i in np.random.default_rng(1).permutation(N)],
    "uuid": [str(uuid.UUID(int=int(v) << 64)) for v in RNG.integers(1, 2**62, N)],
    "md5": [hashlib.md5(bytes([i])).hexdigest() for i in range(N)],
    "code": [f"C-{i:05d}" for i in RNG.permutation(N)],
    "path": [f"train/{'pos' if i % 2 else 'neg'}/{i}.txt" for i in range(N)],
    "mail": [f"user{i}@example.org" for i in RNG.permutation(N)],
    "user_id": [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}x" for i in RNG.integers(0, 300, N)],
}

MEANS = {
    "income": RNG.integers(10_000, 90_000, N),
    "age": RNG.integers(18, 90, N),
    "year": RNG.integers(1950, 2020, N),
    "measure": RNG.normal(size=N),
    "sorted measure": np.sort(RNG.normal(size=N)),
    "money": RNG.choice(100_000, N, replace=False),
    "country_id": RNG.integers(1, 6, N),
    "glycemic index": RNG.normal(50, 9, N).round(1),
    "squares": np.arange(N) ** 2,
    "amount": [f"{v:,.2f}" for v in RNG.uniform(0, 9_999, N)],
    "when": pd.date_range("2020-01-01", periods=N, freq="h").astype(str),
    "flag": RNG.random(N) < 0.5,
    "mass": [f"{v:.6e}" for v in np.random.default_rng(1).lognormal(69, 1, N)],
    "mass in doubles": np.random.default_rng(1).lognormal(69, 1, N),
}


def decided(name, cells, labels=None):
    frame = pd.DataFrame(
        {"x": RNG.normal(size=N), name: cells, "label": ["a", "b"] * (N // 2) if labels is None else labels}
    )
    return split(from_frame(frame, target="label"))[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_names_the_rows_is_left_out_and_said(name):
    train = decided(name, NAMES[name])
    assert name in train.dropped, train.used
    assert train.features == ("x",)
    assert any(w.startswith("columns not used") and repr(name) in w for w in train.warnings)
    line = train.column_decisions.set_index("column").loc[name]
    assert line["used_as"] == f"not used: {train.dropped[name]}"


@pytest.mark.parametrize("name", MEANS)
def test_what_means_something_stays(name):
    assert name in decided(name, MEANS[name]).used


def test_numbers_sorted_by_the_label_give_it_away():
    ids = np.sort(RNG.choice(10**6, N, replace=False)) ** 2 % (10**7 - 1)
    labels = np.where(np.argsort(np.argsort(ids)) < N // 2, "a", "b")
    train = decided("ref", ids, labels)
    assert "the label changes only 1 times: it gives the label away" in train.dropped["ref"]
    alone = pd.DataFrame({"ref": ids, "label": labels})
    train, _ = split(from_frame(alone, target="label"))
    assert train.features == ("ref",)
    assert any("if it names the rows, leave it out" in warning for warning in train.warnings)


def test_a_table_of_row_names_alone_is_refused(refused):
    frame = pd.DataFrame({"n": RNG.permutation(N), "label": ["a", "b"] * (N // 2)})
    with refused(DataError, "at least one column", "'n': it numbers the rows", "labels without", "add the"):
        split(from_frame(frame, target="label"))


def test_few_rows_are_not_judged_by_chance():
    frame = pd.DataFrame({"x": [3, 1, 2, 5, 4, 8, 7, 6], "label": ["a", "b"] * 4})
    assert split(from_frame(frame, target="label"))[0].features == ("x",)
