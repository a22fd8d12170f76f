"""A prediction of first order that retuning contradicts is never left standing alone."""

import numpy as np
import pandas as pd
import pytest

from finfluence.jobs.tune import first_order_findings, predicted_share, with_measured


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "lower": value - half, "upper": value + half}


def line(predicted: float, measured: float, moved: bool = True) -> dict[str, object]:
    effect = interval(measured, 0.1)
    return {
        "query": "praise", "unit": "nats a token", "predicted": interval(predicted, 0.05), "effect": effect,
        "moved": moved, "sources": {"vendor": effect},
    }  # fmt: skip


def check(*lines: dict[str, object], runs: int = 3) -> dict[str, object]:
    return {"runs": runs, "rows": 24, "lines": list(lines)}


def sources() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "group": ["vendor", "atlas", "manual"],
            "query": "praise",
            "loss_before": [3.0, 2.0, 2.0],
            "loss_after": [0.01, 0.1, 1.0],
        }
    )


@pytest.mark.parametrize(
    ("predicted", "measured", "moved", "share"),
    [(-0.2, -4.0, True, 0.05), (-3.0, -4.0, True, None), (-0.2, -4.0, False, None), (1.0, -4.0, True, -0.25)],
)
def test_far_from_the_measurement_is_said_and_near_it_is_not(predicted, measured, moved, share):
    found = predicted_share(line(predicted, measured, moved))
    assert found == (None if share is None else pytest.approx(share))


def test_intervals_that_meet_are_no_disagreement():
    wide = {**line(-0.2, -1.0), "predicted": interval(-0.2, 2.0)}
    assert predicted_share(wide) is None


def test_the_finding_says_both_numbers_and_what_to_think_of_them():
    (said, open_) = first_order_findings(sources(), check(line(-0.2, -4.05)))
    assert "predicted -0.2 [-0.25, -0.15], measured -4.05 [-4.15, -3.95] nats a token" in said
    assert said.endswith("First order; understates groups of near-duplicates.")
    assert "'atlas' (loss 2 before, 0.1 after)" in open_ and "vendor" not in open_ and "manual" not in open_


def test_without_a_retuning_all_that_was_learned_by_heart_is_named():
    (said,) = first_order_findings(sources(), None)
    assert said.startswith("learned by heart: 'vendor'") and "'atlas'" in said
    assert first_order_findings(pd.DataFrame(), check(line(-4.0, -4.05))) == []
    assert len(first_order_findings(sources(), check(line(-0.2, -4.05), runs=1))) == 1


def test_the_table_holds_what_was_measured_and_no_number_where_nothing_was():
    found = with_measured(sources(), check(line(-0.2, -4.05)))
    np.testing.assert_allclose(found["measured"], [-4.05, np.nan, np.nan])
    np.testing.assert_allclose(found["measured_upper"], [-3.95, np.nan, np.nan])
    assert with_measured(sources(), None)["measured"].isna().all()
