"""Training again without the rows that methods name."""

import numpy as np
import pandas as pd
import pytest

from finfluence.estimators import METHODS
from finfluence.estimators.baselines import OwnLoss

SMALL = {"seeds": 2, "runs": 6}


class Broken(OwnLoss):
    """A method that fails."""

    name = "broken"

    def scores(self, tape):
        raise RuntimeError("out of luck")


def test_without_wrong_labels_the_model_is_better_than_without_random_rows(clouds):
    result = clouds("removal", methods="own-loss,random", **SMALL)
    changes = pd.read_parquet(result.folder / "changes.parquet")
    at = changes[changes["share"] == 0.2].groupby("method")["change"].mean()
    assert at["own-loss"] < at["(rows at random)"] - 0.02 and at["own-loss"] < 0
    assert len(changes) == 3 * 5 * 2 * 2 and np.isfinite(changes["loss"]).all()
    first = result.outcome.sections[0].rows[0]
    assert first[0] == "(rows at random)" and first[-2].count(",") == 1
    assert "Without the fifth of the rows named by own-loss" in result.outcome.verdict


@pytest.mark.slow
def test_it_is_kept_and_repeated_to_the_bit(clouds):
    first = clouds("removal", methods="own-loss", folder="a", **SMALL)
    second = clouds("removal", methods="own-loss", folder="b", **SMALL)
    assert (first.folder / "changes.parquet").read_bytes() == (second.folder / "changes.parquet").read_bytes()
    files = sorted((first.folder.parent / "bank").rglob("*.safetensors"))
    clouds("removal", methods="own-loss", folder="a", **SMALL)
    assert sorted((first.folder.parent / "bank").rglob("*.safetensors")) == files and files


def test_a_method_that_fails_is_named_and_nothing_is_removed_by_it(clouds, monkeypatch):
    monkeypatch.setitem(METHODS, "broken", f"{__name__}:Broken")
    result = clouds("removal", methods="broken,own-loss", **SMALL)
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert rows["broken"][1:] == [""] * 5 + ["failed: RuntimeError: out of luck"] and rows["own-loss"][1]
