"""A field called id names the rows, however they are given; ids that would be lost are refused."""

import datetime

import numpy as np
import pandas as pd
import pytest
import torch

import finfluence as fi
import plain_training as pt
from finfluence.errors import DataError
from finfluence.runs import Rows, as_rows
from four_parts import assert_parts
from recorded_loops import begin, descend

X = np.arange(12.0).reshape(4, 3)
IDS = [7, 3, 9, 1]


class Items(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, k: int) -> dict:
        return {"x": X[k], "id": IDS[k]}


@pytest.mark.parametrize(
    "rows",
    [
        lambda: fi.Rows(x=X, id=IDS),
        lambda: fi.Rows(x=X, id=np.array(IDS)),
        lambda: fi.Rows(x=X, id=torch.tensor(IDS)),
        lambda: fi.Rows(x=X, ids=IDS),
        lambda: as_rows({"x": X, "id": IDS}),
        lambda: as_rows(Items()),
    ],
)
def test_ids_name_the_rows(rows):
    made = rows()
    assert made.ids.tolist() == IDS
    assert made.batch(torch.tensor([2]))["id"].tolist() == [2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ids": IDS, "id": IDS}, "both ids=… and a field 'id'"),
        ({"id": X}, "shape [4, 3]"),
        ({"id": [1, 1, 2, 3]}, "1 ids used more than once, such as 1"),
        ({"id": [1, "1", 2, 3]}, "1 ids used more than once, such as '1'"),
        ({"id": [1, 2]}, "2 ids"),
        ({"id": [1, None, 2, 3]}, "None of type NoneType"),
        ({"ids": [(1, 2), (1, 3), (2, 2), (2, 3)]}, "(1, 2) of type tuple"),
        ({"id": [float("nan"), 1.0, 2.0, 3.0]}, "nan of type float"),
        ({"id": [2**70, 1, 2, 3]}, "1180591620717411303424 of type int"),
        ({"id": [datetime.date(2020, 1, k) for k in (1, 2, 3, 4)]}, "datetime.date(2020, 1, 1) of type date"),
        ({"id": [2**53 + 1, 0.5, 2, 3]}, "whole numbers beyond 2^53 beside fractions"),
    ],
)
def test_ids_that_cannot_name_the_rows_are_refused(given, words):
    with pytest.raises(DataError) as caught:
        Rows(x=X, **given)
    assert f"got: {words}" in str(caught.value)


def test_ids_that_cannot_be_kept_get_the_four_parts():
    with pytest.raises(DataError) as caught:
        Rows(x=X, ids=[None, 1, 2, 3])
    assert_parts(
        caught.value,
        "numbers or texts as row ids",
        "None of type",
        "cells are missing",
        "[str(i) for i in ids]",
    )


@pytest.mark.parametrize(
    "data", [pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]}), pd.Series([1, 2], index=["a", "b"])]
)
def test_a_table_of_pandas_is_no_data_set_of_items(data):
    with pytest.raises(DataError) as caught:
        as_rows(data)
    assert_parts(
        caught.value, "data[0], data[1], …", f"KeyError for data[0] of a {type(data).__name__}", "names of its columns",
        "to_numpy()",
    )  # fmt: skip


@pytest.mark.parametrize("make", [list, lambda ids: np.array(ids)])
def test_ids_may_lie_in_what_the_loop_writes_on_again(make):
    def recorded(held):
        model, optimizer, tape = begin()
        for ids in pt.recipe().order(0):
            descend(model, optimizer, ids)
            if held is not None:
                held[:] = ids.tolist()
            tape.step(ids=ids.tolist() if held is None else held)
        return tape.finish()

    assert recorded(make([0] * 4)).identity() == recorded(None).identity()


def test_an_iterable_data_set_that_knows_its_length_has_no_rows():
    class Stream(torch.utils.data.IterableDataset):
        def __len__(self) -> int:
            return 4

        def __iter__(self):
            return iter([{"x": x} for x in X])

    with pytest.raises(DataError) as caught:
        as_rows(Stream())
    assert_parts(
        caught.value, "map-style torch Dataset", "Stream", "an iterable dataset", "fi.Rows(x=X, y=y, ids=ids)"
    )
