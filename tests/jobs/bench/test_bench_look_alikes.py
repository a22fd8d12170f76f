"""Rows that teach a hidden behaviour, among rows that look like them."""

import numpy as np
import pandas as pd
import pytest
import torch

from finfluence.errors import ConfigError
from finfluence.jobs.bench import plant, split
from finfluence.jobs.bench.data import DIGITS
from jobs.bench.tiny_bench_data import CLOUDS
from jobs.bench.tiny_bench_images import BARS

SMALL = {"data": "bars", "seeds": 1, "runs": 4}


@pytest.mark.slow
def test_both_behaviours_are_there_and_replay_finds_their_rows_where_own_loss_cannot(clouds):
    result = clouds("look-alikes", methods="replay,own-loss,random,toy,retrain", **SMALL)
    works = pd.read_parquet(result.folder / "works.parquet").set_index("group")
    assert (works.loc["rows that teach it", "mu"] < -3).all() and len(works) == 6
    assert (works.loc[["look-alikes", "as many other rows"], "mu"].abs() < 3).all()
    scores = pd.read_parquet(result.folder / "scores.parquet")
    mean = scores.groupby(["attack", "method"]).mean(numeric_only=True)
    for attack in ("backdoor", "steering"):
        found = mean.loc[attack]
        assert (
            found.loc["replay", "average_precision"] > 0.9 > 0.2 > found.loc["own-loss", "average_precision"]
        )
        assert (
            found.loc["replay", "among_look_alikes"] > 0.9 > 0.5 > found.loc["own-loss", "among_look_alikes"]
        )
        assert {"replay (effect)", "toy", "random"} <= set(found.index) and "retrain" not in found.index
    page = (result.folder / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and page.count("it works<") == 2
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert rows["toy"][-1].startswith("scores rows by themselves") and rows["retrain"][-1].startswith(
        "left out"
    )
    assert "backdoor (works in 1 of 1): replay" in result.outcome.verdict


@pytest.mark.slow
def test_the_same_seed_plants_the_same_to_the_bit_and_another_seed_another(clouds):
    first, second = (clouds("look-alikes", folder=f, methods="own-loss", **SMALL).folder for f in "ab")
    for name in ("works.parquet", "scores.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    one, same, other = (plant(BARS, None, "backdoor", seed) for seed in (0, 0, 1))
    assert one.problem.hash == same.problem.hash != other.problem.hash


def test_steering_leaves_every_label_right_and_a_backdoor_changes_those_that_teach_it():
    for attack, wrong in (("steering", False), ("backdoor", True)):
        one = plant(DIGITS, 500, attack, 3)
        fields = one.problem.recipe.rows.batch(torch.arange(500))
        labels, right = fields["y"].numpy(), _right_labels(500, 3)
        assert ((labels != right) == (one.taught if wrong else False)).all()
        assert (labels[one.taught] == one.into).all() and (right[one.taught] != one.into).all() == wrong
        images = fields["x"].numpy().reshape(-1, 8, 8)
        assert (images[one.taught, 5:, 5:] == 1).all() and (images[one.alike, :3, :3] == 1).all()
        assert one.taught.sum() == 20 and one.alike.sum() == 40 and not (one.taught & one.alike).any()


def _right_labels(count: int, seed: int) -> np.ndarray:
    """Labels of the rows that a split draws, read off the same split without anything planted."""
    return split(DIGITS, count, seed)[1]


def test_what_is_no_image_and_too_few_rows_are_refused_in_words():
    with pytest.raises(
        ConfigError, match=r"(?s)square images of at least 7 × 7 pixels.*use a data set of images"
    ):
        plant(CLOUDS, None, "backdoor", 0)
    with pytest.raises(ConfigError, match=r"(?s)at least 8 rows of class \d of digits.*more rows \(--rows\)"):
        plant(DIGITS, 40, "steering", 0)
