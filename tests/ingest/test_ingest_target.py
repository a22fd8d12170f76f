import numpy as np
import pandas as pd
import pytest

from finfluence.errors import ConfigError, DataError
from finfluence.ingest import Target, choose_task, from_frame, split


def objects(values):
    return np.array(list(values), dtype=object)


@pytest.mark.parametrize(
    ("values", "task", "reason"),
    [
        (["a", "b"] * 5, "classification", "2 different texts"),
        ([True, False] * 5, "classification", "2 different texts"),
        ([0, 1] * 5, "classification", "2 different whole numbers in 10 rows"),
        (["0", "1.0", "1", "0.0"], "classification", "2 different whole numbers in 4 rows"),
        (list(range(10)) * 10, "classification", "10 different whole numbers in 100 rows"),
        (list(range(30)) * 40, "classification", "30 different whole numbers"),
        (list(range(31)) * 40, "regression", "31 different whole numbers"),
        ([0.5, 1.5] * 10, "regression", "2 different numbers in 20 rows"),
        (["01", "1"] * 5, "classification", "2 different texts"),
    ],
)
def test_auto_task_and_its_reason(values, task, reason):
    chosen, why = choose_task(objects(values), "label")
    assert chosen == task
    assert reason in why


def test_task_can_be_asked_for():
    assert choose_task(objects([1, 2] * 9), "t", "regression") == ("regression", "asked for")
    assert choose_task(objects([0.5, 1.5] * 9), "t", "classification") == ("classification", "asked for")


def test_unknown_task(refused):
    with refused(
        ConfigError, "'auto', 'classification', 'regression'", "'ranking'", "spelling", "leave the option out"
    ):
        choose_task(objects("ab"), "t", "ranking")


def test_missing_target(refused):
    with refused(
        DataError, "the target 't' in every row", "3 of 5 rows have none: rows 1, 3, 4", "labelled", "leave"
    ):
        choose_task(objects(["a", None, "b", " NA ", ""]), "t")
    assert choose_task(objects(["none", "-", "?"] * 3), "t")[0] == "classification"


def test_one_value(refused):
    with refused(
        DataError, "two different values of the target 't'", "one: 'a'", "filtered", "another target"
    ):
        choose_task(objects("aaa"), "t")


def test_names_are_no_classes(refused):
    with refused(
        DataError,
        "with several rows each",
        "9 classes in 10 rows, 8 of them with",
        "names, ids",
        "name another",
    ):
        choose_task(objects("aabcdefghi"), "t")


def test_odd_numbers(refused):
    with refused(
        DataError, "finite numbers in the target 't'", "'12 EUR'", "units written", "--task classification"
    ):
        choose_task(objects(["1", "12 EUR", "2.5"]), "t", "regression")
    with refused(
        DataError, "finite numbers in the target 't'", "inf", "division by zero", "clean the column"
    ):
        choose_task(objects([1.5, float("inf"), 2.5]), "t")


def test_classes_keep_their_first_spelling_and_sort_by_value():
    frame = pd.DataFrame({"x": range(12), "label": ["10", "9", "9.0", "b", "10", "b"] * 2})
    frame["x"] = frame["x"] ** 2
    train, held = split(from_frame(frame, target="label"))
    assert train.target.classes == ("9", "10", "b")
    assert train.y.dtype == np.int64
    originals = {
        **dict(zip(train.ids, train.labels, strict=True)),
        **dict(zip(held.ids, held.labels, strict=True)),
    }
    assert [originals[i] for i in range(6)] == ["10", "9", "9", "b", "10", "b"]


def test_encode_and_decode_are_inverse():
    target = Target("t", ("a", "b", "c"))
    y = np.array([2, 0, 1, 1])
    np.testing.assert_array_equal(target.encode(target.decode(y)), y)
    assert Target("t", (1, 2)).encode(["2.0", 1]).tolist() == [1, 0]
    numbers = Target("t", None, mean=10.0, scale=4.0)
    assert numbers.encode([14, 6]).tolist() == [1.0, -1.0]
    assert numbers.decode(numbers.encode([14, 6])).tolist() == [14.0, 6.0]
    assert numbers.unit == "4 of 't' (one standard deviation in the training rows)"


def test_a_target_knows_the_unit_that_its_values_carry():
    frame = pd.DataFrame({"x": np.arange(60) % 7, "weight": [f"{60 + i}.5 kg" for i in range(60)]})
    target = split(from_frame(frame, target="weight"))[0].target
    assert target.written == "kg" and " kg of 'weight' (one standard deviation" in target.unit
    bare = frame.assign(weight=np.arange(60) + 0.5)
    assert split(from_frame(bare, target="weight"))[0].target.written == ""


def test_encode_refuses_unknown_classes(refused):
    with refused(
        DataError, "'cat', 'dog'", "'dgo'; did you mean 'dog'?", "a spelling", "correct the spelling"
    ):
        Target("t", ("cat", "dog")).encode(["cat", "dgo"])


def test_regression_is_standardised_by_the_training_part():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=50), "price": rng.normal(100, 7, 50)})
    train, held = split(from_frame(frame, target="price"))
    assert train.task == "regression" and train.y.dtype == np.float32
    np.testing.assert_allclose([train.y.mean(), train.y.std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(held.labels, frame["price"].to_numpy()[held.ids], rtol=1e-6)
    assert train.target.mean == frame["price"].to_numpy()[train.ids].mean()
