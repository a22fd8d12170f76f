"""One line of progress: shares and times of a job whose stages are known."""

import io

import pytest
from rich.console import Console

from finfluence.cli import Screen
from finfluence.jobs import Stage, WholeJob, in_words
from finfluence.jobs.scan import ScanOptions, scan_stages

STAGES = [Stage("read", 1.0), Stage("judge labels", 4.0, parts=3), Stage("train run 1 of 2", 1.0, "train"),
          Stage("train run 2 of 2", 1.0, "train"), Stage("report", 1.0)]  # fmt: skip


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def told(whole, clock, now, *stage):
    clock.now = now
    return whole.tell(*stage)


def test_what_took_its_time_foretells_what_is_alike():
    clock = Clock()
    whole = WholeJob(STAGES, clock)
    assert told(whole, clock, 0, "read", 0, 1).seconds is None
    assert told(whole, clock, 2, "read", 1, 1).seconds == pytest.approx(14)  # 2 s a unit, 7 units to come
    told(whole, clock, 2, "judge labels, trees", 0, 5)
    middle = told(whole, clock, 6, "judge labels, trees", 5, 5)
    assert middle.seconds == pytest.approx(14)  # 8 s here, and 3 units
    told(whole, clock, 10, "train run 1 of 2", 0, 9)
    after = told(whole, clock, 30, "train run 1 of 2", 9, 9)
    assert after.seconds == pytest.approx(
        20 + 1 / 6 * 30, abs=1
    )  # the second run as the first, the report by its length
    assert told(whole, clock, 50, "train run 2 of 2", 9, 9).share < 1
    assert told(whole, clock, 51, "report", 1, 1) == whole.tell("report", 1, 1)
    assert whole.tell("report", 1, 1).share == 1 and whole.tell("report", 1, 1).seconds == 0


def test_the_share_never_falls_and_unknown_stages_change_nothing():
    clock, shares = Clock(), []
    whole = WholeJob(STAGES, clock)
    for k, stage in enumerate(
        [("read", 1, 1), ("judge labels, a", 1, 2), ("judge labels, a", 2, 2), ("judge labels, b", 0, 2),
         ("something else", 1, 9), ("judge labels, c", 2, 2), ("judge labels, d", 1, 1), ("judge labels, e", 0, 1),
         ("train run 1 of 2", 0, 3), ("train run 1 of 2", 3, 3), ("report", 0, 1), ("report", 1, 1)]
    ):  # fmt: skip
        shares.append(told(whole, clock, 10.0 * k**1.5, *stage).share)
    assert shares == sorted(shares) and shares[-1] == 1 and shares[4] == shares[3]


def test_a_scan_that_goes_on_continues_where_it_was():
    whole = WholeJob(scan_stages(ScanOptions(source="d.csv", out="o", runs=4)), Clock())
    whole.tell("read", 1, 1)
    again = whole.tell("train run 3 of 4", 50, 100)  # networks, labels and two runs were there already
    assert 0.6 < again.share < 0.9


def test_what_an_interrupted_scan_left_counts_from_the_first_line_on(tmp_path):
    for name in ("run.yaml", "labels.json", "out-of-fold.safetensors", "runs/000/influence.zarr"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    options = {"source": "d.csv", "out": tmp_path, "runs": 2}
    stages = scan_stages(ScanOptions(**options, resume=True))
    assert [s.name for s in stages if s.done] == [
        "choose a network", "judge labels", "train run 1 of 2", "replay run 1 of 2"
    ]  # fmt: skip
    assert not any(s.done for s in scan_stages(ScanOptions(**options)))
    clock = Clock()
    whole = WholeJob(stages, clock)
    whole.tell("read", 0, 1)
    first = told(whole, clock, 0.7, "read", 1, 1)
    assert first.share > 0.7 and first.seconds == pytest.approx(5.3)  # a run, the check and the report


def test_stages_of_a_scan_follow_its_options():
    names = [
        s.name for s in scan_stages(ScanOptions(source="d.csv", out="o", runs=2, proof=False, self_test=True))
    ]
    assert names[3:] == ["train run 1 of 2", "replay run 1 of 2", "train run 2 of 2", "replay run 2 of 2",
                         "self-test: train run 1 of 2", "self-test: replay run 1 of 2",
                         "self-test: train run 2 of 2", "self-test: replay run 2 of 2", "report"]  # fmt: skip
    with_groups = scan_stages(ScanOptions(source="d.csv", out="o", runs=1, group_column="source"))
    assert [s.name for s in with_groups][-3:] == ["retraining check", "retrain without groups", "report"]


def test_one_line_in_a_log_and_one_bar_on_a_terminal(capsys):
    stages = [Stage("read", 1.0), Stage("train [b]x", 3.0)]
    with Screen().progress(stages) as progress:
        progress("read", 1, 1)
        progress("train [b]x", 1, 2)
        progress("train [b]x", 2, 2)
    assert capsys.readouterr().out.splitlines()[0].startswith("read: done (25 %")
    screen, out = Screen(), io.StringIO()
    screen.out = Console(file=out, force_terminal=True, width=60)
    with screen.progress(stages) as progress:
        progress("read", 1, 1)
        progress("train [b]x", 1, 2)
    last = out.getvalue().rsplit("\r", 1)[-1]
    assert "train [b]x" in last and "62 %" in last and "read" not in last


def test_times_are_said_as_a_person_says_them():
    assert in_words(8.4) == "about 8 s left" and in_words(3600) == "about 1 h left"
