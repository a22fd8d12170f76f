"""What a source names: an existing file of a known format."""

from pathlib import Path
from typing import Any

from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest._builtin import BUILTIN_NAMES
from finfluence.ingest._formats import TABLE_FORMATS
from finfluence.ingest._messages import listed, nearest

_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz")
FORMATS = {**TABLE_FORMATS, ".npz": "npz"}


def content(path: Path, name: str) -> tuple[bytes, str]:
    """Return the bytes of a file and its format, by its extension.

    Returns
    -------
    tuple[bytes, str]

    Raises
    ------
    DataError
        The file does not exist, cannot be opened, or has an unknown extension.
    """
    if not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else iter(())
        options = [*(entry.name for entry in beside), *BUILTIN_NAMES]
        raise DataError(
            explain(
                "a file, a folder of images, or a built-in data set",
                f"{name} does not exist{nearest(path.name, options)}",
                "a spelling mistake, or another working directory",
                f"check the path; built-in names are {listed(BUILTIN_NAMES)}",
            )
        )
    format = FORMATS.get(path.suffix.lower())
    if format is None:
        packed = path.suffix.lower() in _PACKED
        raise DataError(
            explain(
                f"a file ending in {listed(FORMATS, 20)}, or a folder of images",
                f"{name} ends in {path.suffix or 'nothing'!r}{nearest(path.suffix, FORMATS)}",
                "a compressed file" if packed else "another format, or another extension than usual",
                f"unpack it, and name {path.stem!r}"
                if packed
                else "convert it (spreadsheets: save as CSV; JSON: one "
                "object a line, as .jsonl), or give the file its right extension",
            )
        )
    try:
        return path.read_bytes(), format
    except OSError as error:
        raise DataError(
            explain(
                "a file that can be read",
                f"{name}: {error.strerror}",
                "missing permission, a device, or a broken disk",
                "check the file's permissions",
            )
        ) from error


def refuse_columns(what: str, target: Any, id_column: Any, group_column: Any) -> None:
    """Refuse column names for a source without columns."""
    given = {"target": target, "id": id_column, "group": group_column}
    named = [f"--{key} {value}" for key, value in given.items() if value not in (None, "label")]
    if named:
        raise ConfigError(
            explain(
                f"no column names for {what}, which has no columns",
                listed(named),
                "options meant for a table",
                "leave them out",
            )
        )
