"""What was decided for each column, as a table, and what of it a reader must see on the screen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from finfluence.ingest._columns import Column
from finfluence.ingest._parts import NOTABLE, Account

COLUMNS = ("column", "read_as", "format", "missing", "unreadable", "holdout_lost", "used_as", "note")
FEW_CELLS = 3
_NAMED = 6
_MOST_SAID = 12


@dataclass(frozen=True)
class Cut:
    """How many numbers of a feature lie beyond three standard deviations, where they are cut."""

    training: int
    holdout: int


def decision_table(
    names: Sequence[str],
    columns: Sequence[Column],
    roles: Mapping[str, str],
    left_out: Mapping[str, str],
    accounts: Mapping[str, Account],
    rows: int,
) -> pd.DataFrame:
    """Return one line a column, in the order of the file.

    Parameters
    ----------
    names
        All columns of the file.
    columns
        What was decided for the candidates.
    roles
        Column -> "target", "id" or "group".
    left_out
        Column -> why it was no candidate.
    accounts
        Column -> what became of its cells in the hold-out part.
    rows
        Training rows.

    Returns
    -------
    DataFrame
        `column`; `read_as` (number, date, category, text); `format` (marks, units, order of dates); `missing` and
        `unreadable`, shares of the training cells; `holdout_lost`, share of the hold-out cells that could not be read
        or are no level that training knows; `used_as` (how it became features, or why not); `note`.
    """
    by_name = {column.name: column for column in columns}
    lines = []
    for name in names:
        column, account = by_name.get(name), accounts.get(name)
        lost = account.lost / account.present if account is not None and account.present else 0.0
        if name in roles:
            line = (name, "label" if roles[name] == "target" else "name", "", 0.0, 0.0, 0.0, roles[name], "")
        elif column is None:
            line = (name, "name", "", 0.0, 0.0, 0.0, f"not used: {left_out.get(name, '')}", "")
        else:
            used = column.about if column.kind != "dropped" else f"not used: {column.about}"
            notes = (*column.notes, *(() if account is None else account.notes))
            line = (
                name, "" if column.kind == "dropped" else column.kind, column.format, column.missing / rows,
                column.unreadable / rows, lost, used, "; ".join(notes),
            )  # fmt: skip
        lines.append(line)
    return pd.DataFrame(lines, columns=pd.Index(COLUMNS, dtype=object))


def warnings_of(
    columns: Sequence[Column],
    left_out: Mapping[str, str],
    accounts: Mapping[str, Account],
    cuts: Mapping[str, Cut],
    rows: tuple[int, int],
) -> tuple[str, ...]:
    """Return what a reader must see: columns left out, cells lost, imputed and cut, and decisions open to doubt.

    Parameters
    ----------
    columns, left_out, accounts
        As `decision_table`.
    cuts
        Feature -> numbers beyond three standard deviations.
    rows
        Rows of the training and the hold-out part.

    Returns
    -------
    tuple[str, ...]
    """
    train, held = rows
    dropped = {**left_out, **{column.name: column.about for column in columns if column.kind == "dropped"}}
    used = [column for column in columns if column.kind != "dropped"]
    said = []
    if dropped:
        said.append(_joined("columns not used", (f"{name!r} ({why})" for name, why in dropped.items())))
    gaps_of = {column.name: column.missing for column in used if column.kind in ("number", "date")}
    gaps = {name: count for name, count in gaps_of.items() if _many(count, train)}
    if gaps:
        cells = (f"{name!r} ({count} of {train})" for name, count in gaps.items())
        said.append(_joined("missing cells were replaced by the median, with a mark", cells))
    for column in used:
        if _many(column.unreadable, train):
            said.append(
                f"column {column.name!r}: {column.unreadable} of {train} cells are no {column.kind}: taken as missing"
            )
        said += [f"column {column.name!r}: {note}" for note in column.notes]
    empty = {
        name: held - account.present
        for name, account in accounts.items()
        if name in gaps_of and _more_gaps(held - account.present, held, gaps_of[name], train)
    }
    if empty:
        cells = (f"{name!r} ({count} of {held})" for name, count in empty.items())
        said.append(
            _joined(
                "hold-out cells are missing, more than in training, and were replaced by its median", cells
            )
        )
    for account in accounts.values():
        said += [f"hold-out column {account.column!r}: {note}" for note in account.notes]
        if account.notable and account.lost:
            said.append(
                f"hold-out column {account.column!r}: {account.lost} of {account.present} cells cannot be read as in "
                f"training, or are unknown there, such as {account.example!r}: they say nothing"
            )
    cut = {name: found.training for name, found in cuts.items() if _many(found.training, train)}
    if cut:
        cells = (f"{name!r} ({count} of {train})" for name, count in cut.items())
        said.append(_joined("numbers beyond 3 standard deviations were cut there", cells))
    far = [
        f"{name!r} ({found.holdout} of {held})"
        for name, found in cuts.items()
        if _many(found.holdout, held) and found.holdout / held > 0.2 + 2 * found.training / train
    ]
    if far:
        what = "hold-out numbers beyond 3 standard deviations of training were cut there; are they in another unit?"
        said.append(_joined(what, far))
    more = len(said) - _MOST_SAID
    return (
        (*said[:_MOST_SAID], f"and {more} more notes on columns: see the table of columns")
        if more > 0
        else tuple(said)
    )


def _more_gaps(held_gaps: int, held: int, gaps: int, train: int) -> bool:
    """Tell whether a hold-out lacks cells by more than its training part does, chance aside."""
    expected = held * gaps / train
    return _many(held_gaps, held) and held_gaps > 1.5 * expected + 3 * expected**0.5


def _many(count: int, of: int) -> bool:
    return count > max(FEW_CELLS, NOTABLE * of)


def _joined(what: str, parts: Iterable[str]) -> str:
    items = list(parts)
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return f"{what}: {', '.join(items[:_NAMED])}{more}"
