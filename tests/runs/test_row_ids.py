"""A field called id names the rows, however they are given; ids that would be lost are refused."""

import numpy as np
import pytest
import torch

import finfluence as fi
from finfluence.errors import DataError
from finfluence.runs import Rows, as_rows

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
        ({"id": [2**53 + 1, 0.5, 2, 3]}, "whole numbers beyond 2^53 beside fractions"),
    ],
)
def test_ids_that_cannot_name_the_rows_are_refused(given, words):
    with pytest.raises(DataError) as caught:
        Rows(x=X, **given)
    assert f"got: {words}" in str(caught.value)
