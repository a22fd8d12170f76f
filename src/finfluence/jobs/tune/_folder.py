"""The folder of a tuning: which files are in it."""

import os
from pathlib import Path

from finfluence.jobs._folder import Job, JobFolder

TUNE = Job("tune", version=1, chosen=("chosen",), parts=("runs/*", "retuned"))
FORMAT, VERSION, LOG, SUMMARY = TUNE.format, TUNE.version, TUNE.log, TUNE.summary
INFLUENCE, TABLE, REPORT = "influence.zarr", "influence.parquet", "report.html"
GROUPS, GROUPS_RESULT, RANKING = "groups.parquet", "groups.zarr", "ranking.safetensors"
ADAPTER, RETUNED, CHECK, TEXTS = "adapter", "retuned", "retuning.json", "texts.json"
VERIFY, VERIFICATION, HIDDEN, DECISION = "verify", "verification.json", "hidden", "decision.json"


class TuneFolder(JobFolder):
    """The folder of one tuning."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, TUNE)

    def run_folder(self, run: int) -> Path:
        """Return the folder of one training."""
        return self / f"runs/{run:03d}"
