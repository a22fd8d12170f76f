"""Time, memory and growth. The clock is not asserted on, beyond what holds by orders of magnitude."""

import numpy as np
import pandas as pd
import pytest

from finfluence.estimators import METHODS
from finfluence.estimators.baselines import OwnLoss


class Broken(OwnLoss):
    """A method that fails."""

    name = "broken"

    def scores(self, tape):
        raise RuntimeError("out of luck")


@pytest.mark.slow
def test_costs_and_exponents_of_every_method_stand_in_the_table(clouds, monkeypatch):
    monkeypatch.setitem(METHODS, "broken", f"{__name__}:Broken")
    result = clouds("cost", methods="own-loss,grad-dot,broken,retrain", rows=80, most=50)
    costs = pd.read_parquet(result.folder / "costs.parquet")
    assert len(costs) == 4 * 9 and sorted(costs["rows"].unique()) == [20, 40, 80]
    good = costs[costs["method"].isin(["own-loss", "grad-dot"])]
    assert (good[["trainings", "trainings_wall", "seconds", "bytes"]] > 0).all(axis=None)
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert rows["broken"][-1] == "failed: RuntimeError: out of luck" and rows["broken"][1:4] == [""] * 3
    assert rows["retrain"][-1].startswith("left out: about ") and rows["own-loss"][-1] == ""
    exponents = pd.read_parquet(result.folder / "exponents.parquet").set_index("method")
    assert np.isfinite(exponents.loc["grad-dot"]).all() and exponents.loc["broken"].isna().all()
    assert exponents.loc["grad-dot", "rows"] < 1.5  # at most one backward pass of all rows
    assert "of 2 methods cost less than one training" in result.outcome.verdict


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(clouds):
    first = clouds("cost", methods="own-loss", rows=80).folder
    second = clouds("cost", methods="own-loss", rows=80).folder
    assert first == second
    frame = pd.read_parquet(first / "costs.parquet")
    again = pd.read_parquet(clouds("cost", methods="own-loss,random", rows=80).folder / "costs.parquet")
    pd.testing.assert_frame_equal(frame, again[again["method"] == "own-loss"].reset_index(drop=True))
