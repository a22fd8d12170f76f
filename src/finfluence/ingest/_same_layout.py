"""Whether further rows are laid out as the training source is."""

from finfluence.errors import DataError, explain
from finfluence.ingest._raw import RawTable


def check_same_layout(raw: RawTable, other: RawTable, part: str, what: str, another: str, alike: str) -> None:
    """Raise if `other` is the training source itself, of another kind, or an array or images of another shape.

    Parameters
    ----------
    raw, other
        The training source, and the further rows.
    part, what
        What they are to be, as an adjective and in words: "hold-out", "hold-out rows".
    another, alike
        What to do where one file is given twice, and where the kinds differ.

    Raises
    ------
    DataError
    """
    if raw.source.digest == other.source.digest:
        raise DataError(
            explain(
                f"{what} that are not the training rows",
                f"{other.source.name} has the very content of {raw.source.name}",
                "one file given twice",
                another,
            )
        )
    if raw.kind != other.kind:
        raise DataError(
            explain(
                f"{what} of the same kind as the training data ({raw.kind})",
                other.kind,
                "files of two data sets",
                alike,
            )
        )
    shapes = [(item.pixels if item.pixels is not None else item.array) for item in (raw, other)]
    ours, theirs = (None if values is None else list(values.shape[1:]) for values in shapes)
    if ours != theirs:
        raise DataError(
            explain(
                f"{part} samples of shape {ours}, as in training",
                f"shape {theirs}",
                "files of two data sets, or another preparation",
                "prepare both in the same way",
            )
        )
