"""Folders of ours that are no result, or hold one: what they are, and how they are read or made again."""

from pathlib import Path

RESULT, RUN = "influence.zarr", "run.yaml"
_REPEAT = "make it again: delete {} there, and repeat the command that stands in run.yaml with --resume"


def result_in(path: Path) -> Path:
    """Return the result that the folder of a finished scan holds, or the path itself.

    Returns
    -------
    Path
    """
    return path / RESULT if (path / RUN).exists() and (path / RESULT).exists() else path


def what_it_is(path: Path) -> tuple[str, str]:
    """Say what is found at a path that holds no result, and how to go on.

    Returns
    -------
    tuple of str
        What it is, and the next step.
    """
    again = "check the path, or make the result again with fi.replay(…).save(path)"
    if not path.exists():
        return "no such folder", again
    if (path / RUN).exists():
        return f"the folder of a job without {RESULT}", _REPEAT.format("scan.json, if it is there,")
    if (path / "tape.json").exists():
        return "a tape", "open it with fi.Tape.open, and make a result of it with fi.replay(tape, queries)"
    if any(path.glob("runs-*.parquet")):
        return (
            "finished runs",
            "call fi.retrain or fi.verify again with this out=: they are read, not repeated",
        )
    return "a file or folder of another program or version", again


def made_again(path: Path) -> str:
    """Say how a damaged result is made again.

    Returns
    -------
    str
    """
    if path.name == RESULT and (path.parent / RUN).exists():
        return _REPEAT.format(f"{RESULT} and scan.json")
    return "check the path, or make the result again with fi.replay(…).save(path)"
