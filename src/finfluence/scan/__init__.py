"""The main job: from a noisy data set to named rows, a report and a cleaned file. No terminal in here."""

from finfluence.scan._cleaned import clean_scan
from finfluence.scan._options import ScanOptions
from finfluence.scan._pipeline import ScanResult, open_scan, read_run, scan
from finfluence.scan._verify import verify_scan

__all__ = ["ScanOptions", "ScanResult", "clean_scan", "open_scan", "read_run", "scan", "verify_scan"]
