"""The main job: from a noisy data set to named rows, a report and a cleaned file. No terminal in here.

Names are loaded on first use: the command line reads the options without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finfluence.jobs.scan._assess import Assessment as Assessment
    from finfluence.jobs.scan._assess import assess_scan as assess_scan
    from finfluence.jobs.scan._budget import planned as planned
    from finfluence.jobs.scan._budget import runs_for as runs_for
    from finfluence.jobs.scan._budget import spent as spent
    from finfluence.jobs.scan._chapters import Chapter as Chapter
    from finfluence.jobs.scan._chapters import decision_chapter as decision_chapter
    from finfluence.jobs.scan._check_words import check_sentence as check_sentence
    from finfluence.jobs.scan._check_words import harms as harms
    from finfluence.jobs.scan._choice import Choice as Choice
    from finfluence.jobs.scan._choice import choose as choose
    from finfluence.jobs.scan._cleaned import clean_scan as clean_scan
    from finfluence.jobs.scan._data import read_data as read_data
    from finfluence.jobs.scan._decide import DROP as DROP
    from finfluence.jobs.scan._decide import KEEP as KEEP
    from finfluence.jobs.scan._decide import MITIGATE as MITIGATE
    from finfluence.jobs.scan._decide import RELABEL as RELABEL
    from finfluence.jobs.scan._decide import REWEIGHT as REWEIGHT
    from finfluence.jobs.scan._decide import Advice as Advice
    from finfluence.jobs.scan._decide import decide_scan as decide_scan
    from finfluence.jobs.scan._decisions import decide_rows as decide_rows
    from finfluence.jobs.scan._decisions import line_tests as line_tests
    from finfluence.jobs.scan._estimate import Estimate as Estimate
    from finfluence.jobs.scan._from_python import scan as scan
    from finfluence.jobs.scan._group_labels import judge_groups as judge_groups
    from finfluence.jobs.scan._group_lines import group_lines as group_lines
    from finfluence.jobs.scan._group_lines import questions_sentence as questions_sentence
    from finfluence.jobs.scan._group_lines import verdict_of as verdict_of
    from finfluence.jobs.scan._group_questions import group_questions as group_questions
    from finfluence.jobs.scan._labels import RowLabels as RowLabels
    from finfluence.jobs.scan._measures import RowOutputs as RowOutputs
    from finfluence.jobs.scan._measures import measures as measures
    from finfluence.jobs.scan._measures import row_values as row_values
    from finfluence.jobs.scan._mitigate import Mitigation as Mitigation
    from finfluence.jobs.scan._mitigate import mitigate_scan as mitigate_scan
    from finfluence.jobs.scan._no_labels import estimated as estimated
    from finfluence.jobs.scan._options import AssessOptions as AssessOptions
    from finfluence.jobs.scan._options import DecideOptions as DecideOptions
    from finfluence.jobs.scan._options import MitigateOptions as MitigateOptions
    from finfluence.jobs.scan._options import ScanOptions as ScanOptions
    from finfluence.jobs.scan._options import VerifyOptions as VerifyOptions
    from finfluence.jobs.scan._options import checked_names as checked_names
    from finfluence.jobs.scan._pipeline import run_scan as run_scan
    from finfluence.jobs.scan._result import ScanResult as ScanResult
    from finfluence.jobs.scan._result import in_short as in_short
    from finfluence.jobs.scan._result import label_cells as label_cells
    from finfluence.jobs.scan._result import open_scan as open_scan
    from finfluence.jobs.scan._result import q_in_short as q_in_short
    from finfluence.jobs.scan._result import read_run as read_run
    from finfluence.jobs.scan._result import row_cells as row_cells
    from finfluence.jobs.scan._result import shows_labels as shows_labels
    from finfluence.jobs.scan._retraining_check import automatic_runs as automatic_runs
    from finfluence.jobs.scan._self_test import Named as Named
    from finfluence.jobs.scan._self_test import judge as judge
    from finfluence.jobs.scan._stages import scan_stages as scan_stages
    from finfluence.jobs.scan._tables import network_columns as network_columns
    from finfluence.jobs.scan._tables import network_rows as network_rows
    from finfluence.jobs.scan._training import as_trained as as_trained
    from finfluence.jobs.scan._training import plan_training as plan_training
    from finfluence.jobs.scan._verify import verify_scan as verify_scan

_HOME = {
    **dict.fromkeys(("Assessment", "assess_scan"), "_assess"),
    **dict.fromkeys(("Chapter", "decision_chapter"), "_chapters"),
    **dict.fromkeys(("planned", "runs_for", "spent"), "_budget"),
    **dict.fromkeys(("check_sentence", "harms"), "_check_words"),
    **dict.fromkeys(("Choice", "choose"), "_choice"),
    "clean_scan": "_cleaned",
    "read_data": "_data",
    **dict.fromkeys(("DROP", "KEEP", "MITIGATE", "RELABEL", "REWEIGHT", "Advice", "decide_scan"), "_decide"),
    **dict.fromkeys(("decide_rows", "line_tests"), "_decisions"),
    "Estimate": "_estimate",
    "scan": "_from_python",
    "judge_groups": "_group_labels",
    "group_lines": "_group_lines",
    "questions_sentence": "_group_lines",
    "verdict_of": "_group_lines",
    "group_questions": "_group_questions",
    "RowLabels": "_labels",
    **dict.fromkeys(
        (
            "AssessOptions",
            "DecideOptions",
            "MitigateOptions",
            "ScanOptions",
            "VerifyOptions",
            "checked_names",
        ),
        "_options",
    ),
    **dict.fromkeys(("RowOutputs", "measures", "row_values"), "_measures"),
    "estimated": "_no_labels",
    **dict.fromkeys(("Mitigation", "mitigate_scan"), "_mitigate"),
    "run_scan": "_pipeline",
    **dict.fromkeys(
        (
            "ScanResult",
            "in_short",
            "label_cells",
            "open_scan",
            "q_in_short",
            "read_run",
            "row_cells",
            "shows_labels",
        ),
        "_result",
    ),
    "automatic_runs": "_retraining_check",
    **dict.fromkeys(("Named", "judge"), "_self_test"),
    "scan_stages": "_stages",
    **dict.fromkeys(("network_columns", "network_rows"), "_tables"),
    **dict.fromkeys(("as_trained", "plan_training"), "_training"),
    "verify_scan": "_verify",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finfluence.jobs.scan' has no attribute {name!r}")
    return getattr(import_module(f"finfluence.jobs.scan.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
