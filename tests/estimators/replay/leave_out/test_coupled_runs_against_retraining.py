"""Paired effects and pooled intervals against retraining (`make calibration`; half a minute each)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.interval_coverage import TABULAR, covered, kinds, runs, truth

import finfluence as fi

pytestmark = pytest.mark.calibration

OUT = Path(__file__).parents[4] / "bench-out"


@pytest.mark.parametrize("setting", list(TABULAR))
def test_intervals_of_four_pooled_runs_hold_the_truth(setting: str) -> None:
    torch.set_num_threads(1)
    problem, true = truth(setting, OUT)
    pooled = fi.pool(runs(problem, "online", "auto"))
    assert covered(pooled, true).mean() >= 0.9


@pytest.mark.parametrize("setting", ["cancer-sgd", "cancer-adamw"])
def test_pairs_agree_with_retraining_better_than_linear_response(setting: str) -> None:
    torch.set_num_threads(1)
    problem, true = truth(setting, OUT)
    data = fi.pool(runs(problem, "online", "auto")).data
    groups = ~np.char.endswith(np.array([k.split()[-1] for k in kinds(data["subset"].values)]), "row")
    spread = true.data["spread"].values[groups]
    mu = true.data["effect"].values[groups] / spread
    paired = data["effect"].values[groups] / spread
    linear = data["linear_effect"].values[groups] / spread
    assert np.sqrt(((paired - mu) ** 2).mean()) < 0.75 * np.sqrt(((linear - mu) ** 2).mean())
    assert (paired * mu).sum() / (paired**2).sum() == pytest.approx(1, abs=0.08)
