"""Training again with the candidates that methods name."""

import numpy as np
import pandas as pd
import pytest

SMALL = {"seeds": 1, "runs": 6, "share": 0.4}


def test_with_the_candidates_that_replay_names_the_model_is_better_than_with_random_ones(clouds):
    result = clouds("addition", methods="replay,own-loss,out-of-fold-loss,toy", **SMALL)
    changes = pd.read_parquet(result.folder / "changes.parquet")
    at = changes[changes["share"] == 0.5].groupby("method")["change"].mean()
    assert at["replay"] < at["(rows at random)"] - 0.02 and at["replay"] < 0 < at["(largest loss)"]
    assert len(changes) == 4 * 4 * 1 * 2 and np.isfinite(changes["loss"]).all()
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert list(rows)[:3] == ["(rows at random)", "(largest loss)", "(smallest loss)"]
    for name in ("own-loss", "out-of-fold-loss", "toy"):
        assert (
            rows[name][1] == ""
            and "does not apply: expected a method that estimates what adding" in rows[name][-1]
        )
    assert "candidates named by replay the held-out loss changes by -" in result.outcome.verdict


@pytest.mark.slow
def test_additions_are_repeated_to_the_bit_and_train_nothing_again(clouds):
    first, second = (clouds("addition", methods="replay", folder=f, **SMALL) for f in "ab")
    name = "changes.parquet"
    assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    files = sorted((first.folder.parent / "bank").rglob("*.safetensors"))
    again = clouds("addition", methods="replay", folder="a", **SMALL)
    assert again.measured == 0 and files
    assert sorted((again.folder.parent / "bank").rglob("*.safetensors")) == files


def test_without_a_method_that_adds_the_table_says_so(clouds):
    result = clouds("addition", methods="random", seeds=1, runs=2)
    assert result.outcome.verdict == "No method could be asked"
