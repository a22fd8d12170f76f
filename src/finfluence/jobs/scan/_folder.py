"""The folder of a scan: which files are in it."""

import os
from pathlib import Path

from finfluence.jobs._folder import Job, JobFolder

BUDGET, CHOICE = "budget", "choice"
SCAN = Job("scan", version=1, chosen=(BUDGET,), parts=("runs/*", "self-test/runs/*", "proof"))
FORMAT, VERSION, LOG, SUMMARY = SCAN.format, SCAN.version, SCAN.log, SCAN.summary
INFLUENCE, TABLE, REPORT = "influence.zarr", "influence.parquet", "report.html"
CHECK, SELF_TEST, VERIFICATION = "proof.json", "self-test.json", "verification.json"
GROUPS, PREVIEWS, RETRAINED = "groups.parquet", "previews.parquet", "verify"
GROUP_CHECK, DECISION = "groups-proof.json", "decision.json"
ASSESSMENT, MITIGATION, HEAD = "assessment.json", "mitigation.json", "head.safetensors"
LABELS, OUT_OF_FOLD, HOLDOUT_LABELS = "labels.json", "out-of-fold.safetensors", "holdout_labels.parquet"


class ScanFolder(JobFolder):
    """The folder of one scan."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, SCAN)

    def run_folder(self, run: int) -> Path:
        """Return the folder of one training."""
        return self / f"runs/{run:03d}"
