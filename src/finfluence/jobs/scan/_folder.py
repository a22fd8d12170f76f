"""The output folder: whose it is, what is in it, and what is finished."""

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from finfluence._files import write_json, write_text
from finfluence.errors import StorageError, explain

FORMAT = "finfluence-scan"
VERSION = 1
LIBRARIES = ("finfluence", "torch", "numpy", "pandas", "scipy", "statsmodels", "scikit-learn", "skrub")
INFLUENCE, TABLE, REPORT = "influence.zarr", "influence.parquet", "report.html"
RUN, SUMMARY, PROOF, LOG = "run.yaml", "scan.json", "proof.json", "scan.log"
BUDGET = "budget"
GROUPS, PREVIEWS, SELF_TEST = "groups.parquet", "previews.parquet", "self-test.json"


class ScanFolder:
    """The folder of one scan.

    `run.yaml` comes first and says what is being made; `scan.json` comes last and says that it is whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        """Whether the scan in the folder reached its end."""
        return (self / SUMMARY).exists()

    def run_folder(self, run: int) -> Path:
        """Return the folder of one training."""
        return self.path / "runs" / f"{run:03d}"

    def prepare(self, resume: bool) -> None:
        """Make the folder, or raise unless it is empty or holds a scan to go on with.

        Raises
        ------
        StorageError
            It is a file, holds other files or another scan, or cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise self._error("a folder for the results", "a file of that name", "the name is taken")
        existing = [p.name for p in self._entries()]
        if existing and RUN not in existing:
            raise self._error(
                "an empty or new folder, or one that a scan made",
                f"{len(existing)} other files, for instance {', '.join(map(repr, sorted(existing)[:3]))}",
                "the folder holds something of yours; nothing in it was touched",
            )
        if existing and not resume:
            raise StorageError(
                explain(
                    f"an empty or new folder at {self.path}",
                    "a finished scan" if self.finished else "a scan that was interrupted",
                    "the folder was used before",
                    "choose another --out, or add --resume to go on with the scan that is there",
                )
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self._unwritable(PermissionError(13, "Permission denied"))
        nested = (p for runs in ("runs", "self-test/runs") for p in self.path.glob(f"{runs}/*/.*.part"))
        for stale in [*self.path.glob(".*.part"), *nested]:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()

    def start(self, run: dict[str, Any]) -> None:
        """Write run.yaml, or check that the scan in the folder is this one.

        Raises
        ------
        StorageError
            It is another one; what differs is named.
        """
        path = self / RUN
        if not path.exists():
            self._write_run(run)
            return
        then = self.read_run()
        differing = list(_differences(then, yaml.safe_load(yaml.safe_dump(run))))
        if differing:
            raise StorageError(
                explain(
                    f"the scan that was started in {self.path}",
                    f"another one: {'; '.join(differing[:5])}",
                    "an option or the data changed since",
                    "repeat the options of the interrupted command (they stand in run.yaml), or choose another --out",
                )
            )

    def note(self, key: str, value: Any) -> None:
        """Add to run.yaml what the scan chose on the way."""
        self._write_run({**self.read_run(), key: value})

    def _write_run(self, run: dict[str, Any]) -> None:
        header = "# Everything needed to repeat this scan; written before it starts.\n"
        write_text(self / RUN, header + yaml.safe_dump(run, sort_keys=False, allow_unicode=True))

    def read_run(self) -> dict[str, Any]:
        """Return what run.yaml says."""
        try:
            run = yaml.safe_load((self / RUN).read_text(encoding="utf-8"))
            if run["format"] != FORMAT or run["version"] > VERSION:
                raise KeyError("format")
        except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise self._no_scan("no run.yaml of this program") from error
        return dict(run)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary: from now on the scan is whole."""
        write_json(self / SUMMARY, summary)

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of a finished scan.

        Raises
        ------
        StorageError
            No scan there, or an unfinished one.
        """
        if not self.path.exists():
            raise self._no_scan("no such folder")
        self.read_run()
        if not self.finished:
            raise StorageError(
                explain(
                    f"a finished scan in {self.path}",
                    "one that was interrupted",
                    "the scan was stopped or failed before its end",
                    "finish it: repeat the scan command with --resume",
                )
            )
        summary: dict[str, Any] = json.loads((self / SUMMARY).read_text(encoding="utf-8"))
        return summary

    def _entries(self) -> list[Path]:
        if not self.path.exists():
            return []
        try:
            return [
                p for p in self.path.iterdir() if not (p.name.startswith(".") and p.name.endswith(".part"))
            ]
        except OSError as error:
            raise self._unwritable(error) from error

    def _error(self, expected: str, got: str, cause: str) -> StorageError:
        return StorageError(explain(f"{expected} at {self.path}", got, cause, "name another folder by --out"))

    def _unwritable(self, error: OSError) -> StorageError:
        return self._error(
            "a folder that can be written", str(error.strerror), "missing permission, or a read-only disk"
        )

    def _no_scan(self, got: str) -> StorageError:
        return StorageError(
            explain(
                f"the folder of a scan at {self.path}",
                got,
                "a mistyped path, or the folder above or below the right one",
                "name the folder that was given to finfluence scan as --out",
            )
        )


def versions() -> dict[str, str]:
    """Return the versions that the numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _differences(then: dict[str, Any], now: dict[str, Any], place: str = "") -> list[str]:
    found = []
    for key in [*then, *(k for k in now if k not in then)]:
        if not place and key in ("command", "notes", BUDGET):
            continue
        a, b, name = then.get(key), now.get(key), f"{place}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name} was {a!r}, is {b!r}")
    return found
