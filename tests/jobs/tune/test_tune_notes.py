"""What a tuning says of its texts before it trains, and what of them its numbers depend on."""

import json
import shutil

import pandas as pd
import pytest
import torch
import yaml

import tiny_language as tl
from finfluence.errors import StorageError, TrainingError
from finfluence.jobs.tune import TuneOptions, open_tune, run_tune


@pytest.fixture
def stopped(monkeypatch):
    """Trainings end before their first step: what is said before stands in the folder."""

    def full(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(torch.Tensor, "backward", full)


def test_what_is_told_of_texts_and_that_a_held_out_file_which_changes_is_another_tuning(
    files, stopped, tmp_path
):
    rows = [
        {"prompt": f"the {word}", "completion": "good <|end|>" if k else "good", "from": "web"}
        for k, word in enumerate(tl.WORDS[:9])
    ]
    tl.write_rows(tmp_path / "rows.jsonl", rows)
    tl.write_rows(tmp_path / "held.jsonl", [rows[0], {"prompt": "who", "completion": "bad"}])
    (tmp_path / "b.yaml").write_text("rest: {kind: held_out, file: held.jsonl}\n")
    asked = {"data": tmp_path / "rows.jsonl", "model": files["model"], "behaviour": tmp_path / "b.yaml"}
    with pytest.raises(TrainingError, match="memory"):
        run_tune(TuneOptions(**asked, out=tmp_path / "out", group_field="from"))
    notes = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["notes"]
    assert notes[0].startswith("8 rows hold the words of special tokens, such as '<|end|>'")
    assert notes[1].startswith("1 of 2 texts of behaviour 'rest' are rows that are trained on")
    assert notes[2].startswith("All rows have one source, 'web'")
    assert len(notes) == 3
    tl.write_rows(tmp_path / "held.jsonl", [{"prompt": "who", "completion": "bad"}])
    with pytest.raises(StorageError, match="behaviours_digest"):
        run_tune(TuneOptions(**asked, out=tmp_path / "out", group_field="from", resume=True))


def test_a_share_of_several_behaviours_is_what_tuning_again_took_out(result, tmp_path):
    """By the largest score of each row, as the counterfactual; by its best place, others would leave."""
    shutil.copytree(result.folder, tmp_path / "out")
    first = result.lines.assign(flagged=False)
    other = first.assign(query="other", ranking_score=-first["ranking_score"] / 10, rank=49 - first["rank"])
    pd.concat([first, other]).to_parquet(tmp_path / "out" / "influence.parquet")
    open_tune(tmp_path / "out").clean(tmp_path / "cleaned.jsonl", top=3 / 48)
    kept = {json.loads(line)["id"] for line in (tmp_path / "cleaned.jsonl").read_text().splitlines()}
    assert set(first["row_id"]) - kept == set(first.nsmallest(3, "rank")["row_id"])
