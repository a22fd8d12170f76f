"""Subsets as people pass them: ids in any collection; masks, nested lists and odd names have words."""

import numpy as np
import pytest
import torch

import plain_training as pt
from finfluence.errors import DataError
from finfluence.runs.describe import find_subsets
from four_parts import assert_parts

RECIPE = pt.recipe()
MASK = np.arange(12) < 3


@pytest.mark.parametrize(
    "given",
    [torch.tensor([2, 0, 1]), {0, 1, 2}, range(3), {0: "x", 1: "y", 2: "z"}.keys(), list(torch.arange(3)), np.arange(3.0)],
)  # fmt: skip
def test_ids_in_any_collection(given):
    found = find_subsets(RECIPE, {"a": given, "b": [3]})
    assert [p.tolist() for p in found.positions] == [[0, 1, 2], [3]]


def test_a_generator_and_a_list_of_sets():
    assert find_subsets(RECIPE, {"a": (k for k in range(3))}).positions[0].tolist() == [0, 1, 2]
    found = find_subsets(RECIPE, [{4, 5}, torch.tensor(7)])
    assert [p.tolist() for p in found.positions] == [[4, 5], [7]] and found.names.tolist() == [
        "subset 0",
        "7",
    ]


@pytest.mark.parametrize("given", [MASK, MASK.tolist(), torch.from_numpy(MASK), [True, False]])
def test_a_mask_is_not_read_as_ids_0_and_1(given):
    with pytest.raises(DataError) as caught:
        find_subsets(RECIPE, {"a": given})
    assert_parts(
        caught.value, "row ids of the data in subset 'a'", f"truth values, {len(given)} of them", "a mask over rows", "ids[mask]"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kind"), [([[0, 1], [2]], "list"), (np.array([[0], [1]]), "ndarray"), (slice(0, 3), "slice")]
)
def test_what_is_no_flat_list_of_ids(given, kind):
    with pytest.raises(DataError) as caught:
        find_subsets(RECIPE, {"a": given})
    assert_parts(
        caught.value,
        "numbers or texts as row ids in subset 'a'",
        f"of type {kind}",
        "within a list",
        "one flat list",
    )


@pytest.mark.parametrize(("name", "kind"), [(("a", 1), "tuple"), (None, "NoneType")])
def test_names_that_are_no_texts(name, kind):
    with pytest.raises(DataError) as caught:
        find_subsets(RECIPE, {name: [0]})
    assert_parts(
        caught.value,
        "numbers or texts as names of subsets",
        f"of type {kind}",
        "groups of a table",
        "str(name)",
    )


def test_names_that_are_one_text():
    with pytest.raises(DataError, match="'1' twice"):
        find_subsets(RECIPE, {1: [0], "1": [1]})
