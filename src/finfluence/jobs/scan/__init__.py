"""The main job: from a noisy data set to named rows, a report and a cleaned file. No terminal in here."""

from finfluence.jobs.scan._budget import planned, runs_for, spent
from finfluence.jobs.scan._cleaned import clean_scan
from finfluence.jobs.scan._data import read_data
from finfluence.jobs.scan._decisions import decide_rows, line_tests
from finfluence.jobs.scan._estimate import Estimate
from finfluence.jobs.scan._options import ScanOptions
from finfluence.jobs.scan._pipeline import ScanResult, open_scan, read_run, scan
from finfluence.jobs.scan._self_test import judge
from finfluence.jobs.scan._training import plan_training
from finfluence.jobs.scan._verify import verify_scan

__all__ = [
    "Estimate",
    "ScanOptions",
    "ScanResult",
    "clean_scan",
    "decide_rows",
    "judge",
    "line_tests",
    "open_scan",
    "plan_training",
    "planned",
    "read_data",
    "read_run",
    "runs_for",
    "scan",
    "spent",
    "verify_scan",
]
