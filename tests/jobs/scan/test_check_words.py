"""What the check by retraining measures, row by row, and how it is said: directions in words, sizes without signs."""

import numpy as np
import pytest
import torch
from torch import nn

from finfluence.ingest import Target
from finfluence.jobs.scan import RowOutputs, automatic_runs, check_sentence, harms, measures, row_values

PAIRS = ("cleaned − original", "random removals − original", "cleaned − random removals")


def made(loss, accuracy=None, balanced=None, recall=(), unit="nats"):
    """A check with these intervals of cleaned − original; random removals change nothing."""
    names = {"held-out log loss": loss, "held-out accuracy": accuracy, "held-out balanced accuracy": balanced}
    given = {name: interval for name, interval in names.items() if interval is not None}
    differences = [
        {"metric": name, "name": pair, "value": (low + high) / 2, "lower": low, "upper": high}
        for name, of in given.items()
        for pair, (low, high) in zip(PAIRS, (of, (-0.01, 0.01), of), strict=True)
    ]
    metrics = [
        {"name": n, "better": "lower" if "loss" in n else "higher", "unit": unit if "loss" in n else ""}
        for n in given
    ]
    lines = [
        {"class": name, "rows": 9, "changes": {PAIRS[0]: {"value": (a + b) / 2, "lower": a, "upper": b}}}
        for name, (a, b) in recall
    ]
    return {"changed_rows": 62, "judging_rows": 100, "arms": [{"runs": 20}], "metrics": metrics,
            "differences": differences, "recall": lines}  # fmt: skip


def test_the_sentence_is_about_what_was_measured():
    text = check_sentence(made((-0.13, -0.09), (-0.003, 0.005), (0.01, 0.03), [("no", (-0.02, 0.01))]))
    assert text == (
        "Trained again, 20 times each (95 % intervals over trainings and held-out rows): cleaning 62 rows lowers the "
        "held-out log loss by 0.11 [0.09, 0.13]; raises the held-out balanced accuracy by 2 [1, 3] points; does not "
        "measurably change the held-out accuracy (between -0.3 and +0.5 points) or the recall of any class. Removing "
        "62 random rows instead does not measurably change the held-out log loss (between -0.01 and +0.01)."
    )
    assert "by -" not in text and "by +" not in text


def test_classes_whose_recall_changes_are_named_the_largest_first():
    recall = [(f"c{k}", (-0.02 * k - 0.01, -0.02 * k)) for k in range(1, 6)]
    text = check_sentence(made((0.09, 0.13), (-0.05, -0.03), recall=recall))
    assert "lowers the recall of “c5” by 10.5 [10, 11] points; lowers the recall of “c4”" in text
    assert "changes the recall of 2 more classes (report)" in text and "c1" not in text
    assert (
        "raises the held-out log loss by 0.11 [0.09, 0.13]; lowers the held-out accuracy by 4 [3, 5] points"
        in text
    )


@pytest.mark.parametrize(
    ("check", "harmful"),
    [
        (made((-0.1, 0.1), (-0.1, 0.1)), []),
        (made((0.1, 0.2), (-0.1, 0.1)), ["log loss"]),
        (made((0.1, 0.2), (0.01, 0.1)), []),
        (made((-0.2, -0.1), (-0.2, -0.1)), ["accuracy"]),
        (made((-0.2, -0.1), (-0.1, 0.1), (-0.2, -0.1)), ["balanced accuracy"]),
        (made((-0.2, -0.1), (0.0, 0.1), (-0.1, 0.1), [("rare", (-0.4, -0.2))]), ["rare"]),
        (made((-0.2, -0.1), (0.0, 0.1), (0.01, 0.1), [("rare", (-0.05, -0.02))]), []),
        (made((-0.2, -0.1), (0.0, 0.1), (0.01, 0.1), [("rare", (-0.4, -0.2))]), ["rare"]),
    ],
)
def test_harm_is_judged_by_every_measure(check, harmful):
    found = harms(check)
    assert len(found) == len(harmful)
    assert all(word in text for word, text in zip(harmful, found, strict=True))


def test_a_check_of_an_earlier_version_can_still_be_said():
    old = made((-0.13, -0.09), (0.01, 0.02))
    for d in [*old["metrics"], *old["differences"]]:
        for key in ("name", "metric"):
            if d.get(key) == "held-out log loss":
                d[key] = "held-out loss"
    del old["recall"]
    assert (
        "cleaning 62 rows lowers the held-out loss by 0.11 [0.09, 0.13]; raises the held-out accuracy by 1.5"
        in (check_sentence(old))
    )
    assert harms(old) == []


def test_measures_of_classes_are_means_of_rows():
    target = Target("label", classes=("a", "b"))
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    x, y = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1])
    query = RowOutputs(x, y, classes=True)
    outputs = query.values(model, None).detach().numpy()[None]
    assert len(query.names) == outputs.shape[1] == 6
    by_name = {m.name: row_values(m, outputs, target)[0] for m in measures(target)}
    chance = torch.softmax(x.double(), 1)[[0, 1, 2], y].numpy()
    np.testing.assert_allclose(by_name["log loss"], -np.log(chance), rtol=1e-6)
    np.testing.assert_allclose(by_name["bounded loss"], 1 - chance, rtol=1e-6)
    assert by_name["accuracy"].tolist() == by_name["balanced accuracy"].tolist() == [1, 1, 0]


def test_measures_of_numbers_are_in_their_unit():
    target = Target("price", mean=10.0, scale=4.0)
    outputs = np.array([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0]])
    by_name = {m.name: (m.unit, row_values(m, outputs, target).mean(1)) for m in measures(target)}
    assert by_name["loss"][0] == "" and by_name["loss"][1].tolist() == [pytest.approx(1.25 / 6), 0]
    assert by_name["RMSE"][0] == "price" and by_name["RMSE"][1].tolist() == [
        pytest.approx((20 / 3) ** 0.5),
        0,
    ]
    assert by_name["absolute error"][1].tolist() == [pytest.approx(2.0), 0]
    assert [m.unit for m in measures(Target("price", None, 10.0, 4.0, "€"))] == ["", "€", "€"]


def test_the_check_trains_no_more_than_the_replays_do():
    for replayed in range(1, 9):
        assert 3 * automatic_runs(1000, "cnn", replayed) <= max(9, 4 * replayed)
    assert automatic_runs(100_000, "linear") == 5
