"""The folder of a job: whose it is, what is in it, and what is finished."""

import io
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from finfluence._files import atomic, write_json, write_text
from finfluence._version import __version__
from finfluence.errors import StorageError, explain
from finfluence.result import Influence, load

RUN = "run.yaml"
LIBRARIES = (
    "finfluence",
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
    "scikit-learn",
    "skrub",
    "transformers",
    "peft",
)


@dataclass(frozen=True)
class Job:
    """What is particular to one kind of job.

    Attributes
    ----------
    name
        Of the command: `finfluence NAME`. Its summary is `NAME.json`, its log `NAME.log`.
    version
        Of the folder's format: a newer one is refused.
    chosen
        Keys of `run.yaml` that the job writes on its way, and that another command line may change.
    parts
        Patterns of folders whose half-written files are cleared before the job goes on.
    """

    name: str
    version: int = 1
    chosen: tuple[str, ...] = ()
    parts: tuple[str, ...] = field(default=())

    @property
    def format(self) -> str:
        """What `run.yaml` says it is."""
        return f"finfluence-{self.name}"

    @property
    def summary(self) -> str:
        """Name of the file that comes last."""
        return f"{self.name}.json"

    @property
    def log(self) -> str:
        """Name of the log."""
        return f"{self.name}.log"


class JobFolder:
    """The folder of one job.

    `run.yaml` comes first and says what is being made; the summary comes last and says that it is whole.
    """

    def __init__(self, path: str | os.PathLike[str], job: Job) -> None:
        self.path = Path(os.path.abspath(path))
        self.job = job

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        """Whether the job in the folder reached its end."""
        return (self / self.job.summary).exists()

    def prepare(self, resume: bool) -> None:
        """Make the folder, or raise unless it is empty or holds a job to go on with.

        Raises
        ------
        StorageError
            It is a file, holds other files or another job, or cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise self._error("a folder for the results", "a file of that name", "the name is taken")
        existing = [p.name for p in self._entries()]
        if existing and RUN not in existing:
            raise self._error(
                f"an empty or new folder, or one that a {self.job.name} made",
                f"{len(existing)} other files, for instance {', '.join(map(repr, sorted(existing)[:3]))}",
                "the folder holds something of yours; nothing in it was touched",
            )
        if existing and not resume:
            raise StorageError(
                explain(
                    f"an empty or new folder at {self.path}",
                    f"a finished {self.job.name}"
                    if self.finished
                    else f"a {self.job.name} that was interrupted",
                    "the folder was used before",
                    f"choose another --out, or add --resume to go on with the {self.job.name} that is there",
                )
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self._unwritable(PermissionError(13, "Permission denied"))
        nested = (p for parts in self.job.parts for p in self.path.glob(f"{parts}/.*.part"))
        for stale in [*self.path.glob(".*.part"), *nested]:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()

    def start(self, run: dict[str, Any]) -> None:
        """Write run.yaml, or check that the job in the folder is this one.

        Raises
        ------
        StorageError
            It is another one; what differs is named.
        """
        if not (self / RUN).exists():
            self._write_run(run)
            return
        then = self.read_run()
        skip = ("command", "notes", *self.job.chosen)
        differing = list(_differences(then, yaml.safe_load(yaml.safe_dump(run)), skip))
        if differing:
            raise StorageError(
                explain(
                    f"the {self.job.name} that was started in {self.path}",
                    f"another one: {'; '.join(differing[:5])}",
                    "an option or the data changed since",
                    "repeat the options of the interrupted command (they stand in run.yaml), or choose another --out",
                )
            )

    def note(self, key: str, value: Any) -> None:
        """Add to run.yaml what the job chose on the way."""
        self._write_run({**self.read_run(), key: value})

    def read_run(self) -> dict[str, Any]:
        """Return what run.yaml says.

        Returns
        -------
        dict[str, Any]

        Raises
        ------
        StorageError
            There is none, or it is damaged, of another program, or of a later version.
        """
        path = self / RUN
        if not path.exists():
            raise self._missing("no run.yaml of this program")
        try:
            run = yaml.safe_load(path.read_text(encoding="utf-8"))
            known = isinstance(run, dict) and run.get("format") == self.job.format
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise self._lost_run(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
        if not run:
            raise self._lost_run("it is empty")
        if not known:
            raise self._missing("no run.yaml of this program")
        self._check_version(RUN, run.get("version"), run.get("versions", {}).get("finfluence"))
        return dict(run)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary: from now on the job is whole."""
        write_json(self / self.job.summary, {**summary, "finfluence": __version__})

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of a finished job.

        Returns
        -------
        dict[str, Any]

        Raises
        ------
        StorageError
            No job there, or an unfinished or damaged one.
        """
        if not self.path.exists():
            raise self._missing("no such folder")
        self.read_run()
        if not self.finished:
            raise StorageError(
                explain(
                    f"a finished {self.job.name} in {self.path}",
                    "one that was interrupted",
                    f"the {self.job.name} was stopped or failed before its end",
                    f"finish it: repeat the {self.job.name} command with --resume",
                )
            )
        summary = self.read_json(self.job.summary)
        if "format" not in summary:
            raise self.damaged(self.job.summary, "it lacks 'format'")
        self._check_version(self.job.summary, summary.get("version"), summary.get("finfluence"))
        return summary

    def read_json(self, name: str) -> dict[str, Any]:
        """Return what a JSON file of the folder says.

        Returns
        -------
        dict[str, Any]

        Raises
        ------
        StorageError
            It is missing or damaged; how to make it again is said.
        """
        with self.reading(name):
            found = json.loads((self / name).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise self.damaged(name, f"a {type(found).__name__} instead of an object")
        return found

    def read_frame(self, name: str) -> pd.DataFrame:
        """Return a Parquet file of the folder.

        Returns
        -------
        pd.DataFrame

        Raises
        ------
        StorageError
            It is missing or damaged; how to make it again is said.
        """
        with self.reading(name):
            return pq.read_table(io.BytesIO((self / name).read_bytes())).to_pandas()

    def read_result(self, name: str, *remade: str) -> Influence:
        """Return a result (a Zarr folder) of the folder; `remade` as of `reading`.

        Returns
        -------
        Influence

        Raises
        ------
        StorageError
            It is missing or damaged; how to make it again is said.
        """
        with self.reading(name, *remade):
            return load(self / name)

    @contextmanager
    def reading(self, name: str, *remade: str) -> Iterator[None]:
        """Turn whatever a damaged file of the folder causes inside the block into `damaged(name, …)`."""
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, StorageError) as error:
            raise self.damaged(name, _in_short(error, self / name), *remade) from error

    def damaged(self, name: str, got: str, *remade: str) -> StorageError:
        """Return the error of a file of ours that is missing, cut short or edited, and how to make it again.

        Parameters
        ----------
        remade
            Further files to delete, so that the job makes `name` again.

        Returns
        -------
        StorageError
        """
        gone = [path for path in dict.fromkeys((name, *remade, self.job.summary)) if (self / path).exists()]
        return StorageError(
            explain(
                f"{name}, whole, in the {self.job.name} folder {self.path}",
                got,
                "the file was cut short by a copy or a full disk, or was edited or removed",
                f"make it again: delete {' and '.join(gone)} there, and repeat the command that stands in run.yaml "
                "with --resume; everything that is whole is kept",
            )
        )

    def _write_run(self, run: dict[str, Any]) -> None:
        header = f"# Everything needed to repeat this {self.job.name}; written before it starts.\n"
        write_text(self / RUN, header + yaml.safe_dump(run, sort_keys=False, allow_unicode=True))

    def _lost_run(self, got: str) -> StorageError:
        return StorageError(
            explain(
                f"{RUN}, whole, in the {self.job.name} folder {self.path}",
                got,
                "the file was cut short by a copy or a full disk, or was edited",
                f"restore it from a copy; without it, {self.job.name} again into another folder (a finished one tells "
                f"its command in {self.job.summary})",
            )
        )

    def _check_version(self, name: str, found: Any, writer: Any) -> None:
        if isinstance(found, int) and found <= self.job.version:
            return
        raise StorageError(
            explain(
                f"{name} in {self.path} in format {self.job.version} of finfluence {__version__}, or an earlier one",
                f"format {found}, written by finfluence {writer or 'of another version'}",
                "the folder was made by a later version",
                "read it with the version that made it, or update this one",
            )
        )

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

    def _missing(self, got: str) -> StorageError:
        return StorageError(
            explain(
                f"the folder of a {self.job.name} at {self.path}",
                got,
                "a mistyped path, or the folder above or below the right one",
                f"name the folder that was given to finfluence {self.job.name} as --out",
            )
        )


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the job that made a folder; None where there is none that can be told."""
    try:
        run = yaml.safe_load((Path(path) / RUN).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    made = run.get("format") if isinstance(run, dict) else None
    return made.removeprefix("finfluence-") if isinstance(made, str) else None


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet, atomically and without metadata that depends on more than its content."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with atomic(path) as part:
        pq.write_table(table, part)


def versions() -> dict[str, str]:
    """Return the versions that the numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _in_short(error: Exception, path: Path) -> str:
    if not path.exists():
        return "no such file"
    if path.is_file() and not path.stat().st_size:
        return "an empty file"
    if isinstance(error, StorageError):
        return str(error).splitlines()[1].removeprefix("  got: ")
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no content'}"


def _differences(
    then: dict[str, Any], now: dict[str, Any], skip: tuple[str, ...], place: str = ""
) -> list[str]:
    found = []
    for key in [*then, *(k for k in now if k not in then)]:
        if not place and key in skip:
            continue
        a, b, name = then.get(key), now.get(key), f"{place}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, skip, f"{name}.")
        elif a != b:
            found.append(f"{name} was {a!r}, is {b!r}")
    return found
