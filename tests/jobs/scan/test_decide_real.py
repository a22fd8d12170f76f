"""decide on two real tables with known errors: its recommendation is what its own held-out check confirms."""

from pathlib import Path

import pytest
from benchmarks.decisions import decided, digits, told, tumours
from typer.testing import CliRunner

from finfluence.cli import app
from finfluence.jobs.scan import Advice, ScanOptions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def advice_of(options: ScanOptions) -> Advice:
    """Return the advice, after looking whether the command ends in it."""
    held = Path(str(options.holdout))
    found = decided(options, held)
    shown = CliRunner().invoke(app, ["decide", str(options.out), "--unlabelled", str(held), "--quiet"])
    assert shown.exit_code == 0, shown.output
    assert " ".join(shown.output.split()) == " ".join(found.sentence.split())
    return found


def assert_confirmed(found: Advice) -> None:
    """The recommended action surely does better on the rows that took no part; where none does, none is named."""
    sure = {}
    for tried in found.tried:
        by_metric = {d["metric"]: d for d in tried["differences"]}
        loss, accuracy = by_metric["held-out log loss"], by_metric["held-out accuracy"]
        gains = loss["upper"] < 0 or accuracy["lower"] > 0
        harms = loss["lower"] > 0 or accuracy["upper"] < 0 or tried["harms"]
        if gains and not harms and tried.get("control", {"better": True})["better"]:
            sure[tried["action"]] = tried["loss"]
    assert found.action == min(sure, key=sure.__getitem__, default="keep")


def test_tumours_with_flipped_labels_are_cleaned(tmp_path):
    found = advice_of(tumours(tmp_path))
    assert_confirmed(found)
    assert found.action in ("drop", "relabel", "reweight")  # 34 labels are wrong: keeping them is worse
    assert found.unlabelled is not None and found.unlabelled["unlabelled_rows"] == 140
    assert "| drop (" in told("tumours", found)


def test_what_is_recommended_for_the_demo_is_confirmed(tmp_path):
    found = advice_of(digits(tmp_path, short=True))
    assert_confirmed(found)
    assert {t["action"] for t in found.tried} | set(found.left_out) == {
        "drop",
        "relabel",
        "reweight",
        "mitigate",
    }
